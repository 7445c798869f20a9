"""Schemas and writes of real sites, from the first row to the document: after them, every document is its row."""

from __future__ import annotations

import json
import random

import psycopg
import pytest

from idxctl.embedded.postgres import Postgres
from support import judge
from support.rig import Rig


@pytest.fixture
def build(database, migrate, opensearch_url, unique_name, tmp_path):
    """A function that makes a rig of SQL, a document query and watches, with everything in its index."""
    made = []

    def make(schema: str, document: str, watches: str, *, key: str = "", url: str = database) -> Rig:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(schema.encode())
        (tmp_path / "document.sql").write_text(document)
        (tmp_path / "mapping.json").write_text(json.dumps({"mappings": {"dynamic": False}}))
        head = f'[indexes.{unique_name}]\ndocument = "document.sql"\nmapping = "mapping.json"\n{key}\n'
        (tmp_path / "idxctl.toml").write_text(head + watches.replace("NAME", unique_name))
        rig = Rig(url, opensearch_url, unique_name, tmp_path)
        made.append(rig)
        rig.watch()
        rig.reindex()
        return rig

    yield make
    for rig in made:
        rig.close()


def watch(table: str, how: str) -> str:
    return f'[[indexes.NAME.watch]]\ntable = "{table}"\n{how}\n'


# Ways to write ----------------------------------------------------------------------------------------------------------

GOODS = """
CREATE TABLE goods (id bigint PRIMARY KEY, body text);
CREATE TABLE parts (id bigint PRIMARY KEY, goods_id bigint REFERENCES goods ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, n int)
    PARTITION BY HASH (id);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX ON parts (goods_id);
INSERT INTO goods SELECT i, 'x' FROM generate_series(1, 100) i;
INSERT INTO parts SELECT i, i % 100 + 1, 0 FROM generate_series(1, 300) i;
CREATE VIEW shown AS SELECT id, body FROM goods WHERE body <> 'hidden';
CREATE VIEW loud AS SELECT id, upper(body) AS body FROM goods;
CREATE FUNCTION through() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'DELETE' THEN DELETE FROM goods WHERE id = OLD.id; RETURN OLD; END IF;
    INSERT INTO goods VALUES (NEW.id, NEW.body) ON CONFLICT (id) DO UPDATE SET body = excluded.body; RETURN NEW;
END $$;
CREATE TRIGGER through INSTEAD OF INSERT OR UPDATE OR DELETE ON loud FOR EACH ROW EXECUTE FUNCTION through();
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF pg_trigger_depth() < 2 THEN UPDATE goods SET body = body || '.' WHERE id IN (1, 2); END IF; RETURN NULL;
END $$;
CREATE TRIGGER zz_touch AFTER UPDATE ON goods FOR EACH ROW EXECUTE FUNCTION touch();
CREATE CONSTRAINT TRIGGER late AFTER DELETE ON goods DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION touch();
"""
GOODS_DOCUMENT = """
SELECT g.id AS document_id, to_jsonb(g) || jsonb_build_object('n', (SELECT coalesce(sum(n), 0) FROM parts p WHERE p.goods_id = g.id),
    'c', (SELECT count(*) FROM parts p WHERE p.goods_id = g.id)) AS document FROM goods g"""
GOODS_WATCHES = watch("goods", 'key = "id"') + watch("parts", 'key = "goods_id"')
WRITES = [
    ["BEGIN ISOLATION LEVEL SERIALIZABLE", "UPDATE goods SET body = 'serial' WHERE id = 3", "DELETE FROM goods WHERE id = 4", "COMMIT"],
    ["INSERT INTO shown VALUES (201, 'by a view')", "UPDATE shown SET body = 'hidden' WHERE id = 5", "DELETE FROM shown WHERE id = 6"],
    ["INSERT INTO loud VALUES (7, 'new'), (202, 'new')", "UPDATE loud SET body = 'q' WHERE id < 12", "DELETE FROM loud WHERE id = 13"],
    ["BEGIN", "CREATE TEMP TABLE goods (id bigint, body text) ON COMMIT DROP", "INSERT INTO goods VALUES (1, 'no')", "UPDATE public.goods SET body = 'yes' WHERE id = 14", "COMMIT"],
    ["BEGIN", *[f"SAVEPOINT s; UPDATE parts SET n = n + 1 WHERE id = {i}; {'ROLLBACK TO s' if i % 3 else 'RELEASE s'}" for i in range(1, 100)], "COMMIT"],
    ["BEGIN", "DELETE FROM parts WHERE id = 9", "SAVEPOINT s", "TRUNCATE goods CASCADE", "ROLLBACK TO s", "COMMIT"],
    ["BEGIN", "TRUNCATE goods CASCADE", "INSERT INTO goods SELECT i, 'again' FROM generate_series(50, 80) i", "INSERT INTO parts VALUES (1, 50, 1)", "COMMIT"],
    ["BEGIN", "INSERT INTO parts VALUES (900, 999, 1)", "INSERT INTO goods VALUES (999, 'behind its part')", "UPDATE goods SET id = 998 WHERE id = 999", "UPDATE parts SET goods_id = 998 WHERE id = 900", "COMMIT"],
    ["UPDATE parts SET id = id + 1000, goods_id = 20", "DELETE FROM goods WHERE id = 20"],
    ["WITH gone AS (DELETE FROM parts WHERE goods_id < 30 RETURNING *) INSERT INTO parts SELECT id + 5000, 30, n FROM gone"],
    ["SET session_replication_role = replica", "DELETE FROM goods WHERE id = 31", "UPDATE parts SET goods_id = 32 WHERE goods_id = 33", "RESET session_replication_role"],
    ["DO $$ BEGIN FOR i IN 1..50 LOOP BEGIN INSERT INTO goods VALUES (40 + i, 'dup'); EXCEPTION WHEN unique_violation THEN UPDATE goods SET body = 'dup' WHERE id = 40 + i; END; END LOOP; END $$"],
    ["BEGIN", "DECLARE c CURSOR FOR SELECT * FROM goods WHERE id BETWEEN 60 AND 70 FOR UPDATE", "MOVE 3 IN c", "FETCH c", "UPDATE goods SET body = 'cursor' WHERE CURRENT OF c", "DELETE FROM goods WHERE CURRENT OF c", "COMMIT"],
]  # fmt: skip


@pytest.mark.parametrize("writes", WRITES, ids=range(len(WRITES)))
def test_after_writes_of_every_kind_each_document_is_its_row(build, writes):
    rig = build(GOODS, GOODS_DOCUMENT, GOODS_WATCHES)
    for statement in writes:
        rig.sql(statement)
    rig.drain()
    assert rig.differences() == []
    assert rig.letters() == {}


def test_a_prepared_transaction_is_indexed_once_it_is_committed(build, tmp_path):
    """Its tasks are older than all that came between, and claims have looked past them."""
    with Postgres(tmp_path / "postgres", fsync=False, settings={"max_prepared_transactions": "5"}) as server:
        rig = build(GOODS, GOODS_DOCUMENT, GOODS_WATCHES, url=server.create_database("site"))
        rig.sql("DROP TRIGGER zz_touch ON goods")  # what they touch would wait for the prepared transactions
        rig.sql("DROP TRIGGER late ON goods")
        for name, statement in (
            ("kept", "UPDATE goods SET body = 'in two phases' WHERE id = 3"),
            ("gone", "DELETE FROM goods WHERE id = 40"),
        ):
            rig.sql("BEGIN")
            rig.sql(statement)
            rig.sql(f"PREPARE TRANSACTION '{name}'")
        with rig.working():
            rig.sql("UPDATE goods SET body = 'between' WHERE id > 90")
            rig.wait_for_rest()
            rig.sql("COMMIT PREPARED 'kept'")
            rig.sql("ROLLBACK PREPARED 'gone'")
            rig.wait_for_rest()
        assert rig.document(3)["body"] == "in two phases"
        assert rig.differences() == []


def test_copy_is_captured_frozen_or_not(build):
    rig = build(GOODS, GOODS_DOCUMENT, GOODS_WATCHES)
    with rig.application.cursor() as cursor, cursor.copy("COPY goods FROM STDIN") as copy:
        copy.write("301\tcopied\n302\tcopied\n")
    rig.sql("BEGIN")
    rig.sql("TRUNCATE goods CASCADE")
    with rig.application.cursor() as cursor, cursor.copy("COPY goods FROM STDIN (FREEZE)") as copy:
        copy.write("1\tfrozen\n303\tfrozen\n")
    rig.sql("COMMIT")
    rig.drain()
    assert rig.differences() == []


# Schemas ----------------------------------------------------------------------------------------------------------------


def test_one_index_over_the_same_tables_of_many_tenants(build):
    tenants = [f"t{number}" for number in range(12)]
    schema, document, watches = "", [], ""
    for one in tenants:
        schema += f"""CREATE SCHEMA {one}; CREATE TABLE {one}.users (id bigint PRIMARY KEY, name text);
            CREATE TABLE {one}.items (id bigint PRIMARY KEY, name text, owner bigint);
            INSERT INTO {one}.users SELECT i, 'u' || i FROM generate_series(1, 3) i;
            INSERT INTO {one}.items SELECT i, 'i' || i, i % 3 + 1 FROM generate_series(1, 10) i;"""
        document.append(
            f"SELECT '{one}' AS tenant, x.id, jsonb_build_object('tenant', '{one}', 'name', x.name, 'owner',"
            f" (SELECT u.name FROM {one}.users u WHERE u.id = x.owner)) AS document FROM {one}.items x"
        )
        watches += watch(f"{one}.items", f"keys = \"SELECT '{one}', c.id FROM changed c\"")
        lookup = f"SELECT '{one}', x.id FROM {one}.items x JOIN changed c ON x.owner = c.id"
        watches += watch(f"{one}.users", f'keys = "{lookup}"')
    rig = build(schema, " UNION ALL ".join(document), watches, key='key = ["tenant", "id"]')
    rig.sql("UPDATE t3.items SET name = 'other' WHERE id = 5")
    rig.sql("DELETE FROM t4.items WHERE id = 5")
    rig.sql("UPDATE t11.users SET name = 'somebody' WHERE id = 2")
    rig.drain()
    assert rig.document("t3:5")["name"] == "other"
    assert rig.differences(name=lambda row: f"{row[0]}:{row[1]}") == []


def test_rows_that_move_from_a_default_partition_into_one_that_is_made_for_them(build):
    days = "".join(
        f"CREATE TABLE events_{day} PARTITION OF events FOR VALUES FROM ('2024-01-{day:02}') TO ('2024-01-{day + 1:02}');"
        for day in range(1, 20)
    )
    rig = build(
        "CREATE TABLE events (id bigint, at timestamptz NOT NULL, body text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
        f"CREATE TABLE events_default PARTITION OF events DEFAULT; {days}"
        "INSERT INTO events SELECT i, '2024-01-01'::timestamptz + i * interval '7 hours', 'x' FROM generate_series(1, 200) i",
        "SELECT e.id AS document_id, jsonb_build_object('at', e.at, 'body', e.body) AS document FROM events e",
        watch("events", 'key = "id"'),
    )
    rig.sql("BEGIN")
    rig.sql("CREATE TABLE events_new (LIKE events INCLUDING ALL)")
    rig.sql(
        "WITH moved AS (DELETE FROM events_default WHERE at >= '2024-02-05' AND at < '2024-02-06' RETURNING *) "
        "INSERT INTO events_new SELECT *, 'moved' FROM (SELECT id, at FROM moved) m"
    )
    rig.sql("ALTER TABLE events ATTACH PARTITION events_new FOR VALUES FROM ('2024-02-05') TO ('2024-02-06')")
    rig.sql("COMMIT")
    rig.drain()
    assert rig.differences() == []
    rig.watch()
    rig.sql("UPDATE events_new SET body = 'straight'")
    rig.sql("ALTER TABLE events DETACH PARTITION events_1")
    rig.sql(
        "INSERT INTO opensearch_indexing_queue (index_name, document_id) SELECT %s, id::text FROM events_1", rig.index
    )
    rig.drain()
    assert rig.differences() == []


MUSIC = """
CREATE TABLE area (id int PRIMARY KEY, name text);
CREATE TABLE artist (id int PRIMARY KEY, name text, area int REFERENCES area);
CREATE TABLE credit (id int PRIMARY KEY);
CREATE TABLE credit_name (credit int REFERENCES credit, position int, artist int REFERENCES artist, PRIMARY KEY (credit, position));
CREATE TABLE release (id int PRIMARY KEY, gid uuid UNIQUE NOT NULL DEFAULT gen_random_uuid(), name text, credit int REFERENCES credit, seen int);
CREATE TABLE medium (id int PRIMARY KEY, release int REFERENCES release ON DELETE CASCADE, position int);
CREATE TABLE track (id int PRIMARY KEY, medium int REFERENCES medium ON DELETE CASCADE, name text);
INSERT INTO area SELECT i, 'area ' || i FROM generate_series(1, 4) i;
INSERT INTO artist SELECT i, 'artist ' || i, i % 4 + 1 FROM generate_series(1, 12) i;
INSERT INTO credit SELECT i FROM generate_series(1, 15) i;
INSERT INTO credit_name SELECT i, p, (i * p) % 12 + 1 FROM generate_series(1, 15) i, generate_series(1, 2) p;
INSERT INTO release (id, name, credit) SELECT i, 'release ' || i, i % 15 + 1 FROM generate_series(1, 40) i;
INSERT INTO medium SELECT i, i % 40 + 1, i FROM generate_series(1, 60) i;
INSERT INTO track SELECT i, i % 60 + 1, 'track ' || i FROM generate_series(1, 200) i;
"""
MUSIC_DOCUMENT = """
SELECT r.gid AS document_id, jsonb_build_object('name', r.name,
    'artists', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', a.name, 'area', (SELECT x.name FROM area x WHERE x.id = a.area))
        ORDER BY n.position), '[]') FROM credit_name n JOIN artist a ON a.id = n.artist WHERE n.credit = r.credit),
    'tracks', (SELECT coalesce(jsonb_agg(t.name ORDER BY t.id), '[]') FROM medium m JOIN track t ON t.medium = m.id
        WHERE m.release = r.id)) AS document FROM release r"""
_OF_ARTIST = "credit_name n ON n.artist = {} JOIN release r ON r.credit = n.credit"
MUSIC_WATCHES = (
    watch("release", 'key = "gid"\nignore = ["seen"]')
    + watch("credit_name", 'keys = "SELECT r.gid FROM release r JOIN changed c USING (credit)"')
    + watch("artist", f'keys = "SELECT r.gid FROM changed c JOIN {_OF_ARTIST.format("c.id")}"\ndeferred = true')
    + watch("area", f'keys = "SELECT r.gid FROM changed c JOIN artist a ON a.area = c.id JOIN {_OF_ARTIST.format("a.id")}"')
    + watch("medium", 'keys = "SELECT r.gid FROM release r JOIN changed c ON c.release = r.id"')
    + watch("track", 'keys = "SELECT r.gid FROM changed c JOIN medium m ON m.id = c.medium JOIN release r ON r.id = m.release"')
)  # fmt: skip


def test_random_writes_all_over_a_catalogue_of_music_beside_a_worker(build):
    rig = build(MUSIC, MUSIC_DOCUMENT, MUSIC_WATCHES)
    chance = random.Random(20)
    number = chance.randint
    with rig.working():
        for _ in range(150):
            statement = chance.choice(
                [
                    f"UPDATE artist SET name = name || '!' WHERE id = {number(1, 12)}",
                    f"UPDATE artist SET area = {number(1, 4)} WHERE id = {number(1, 12)}",
                    f"UPDATE area SET name = name || '.' WHERE id = {number(1, 4)}",
                    f"UPDATE credit_name SET artist = {number(1, 12)} WHERE credit = {number(1, 15)} AND position = 1",
                    f"DELETE FROM credit_name WHERE credit = {number(1, 15)} AND position = 2",
                    f"UPDATE release SET credit = {number(1, 15)}, seen = 1 WHERE id = {number(1, 40)}",
                    f"UPDATE release SET gid = gen_random_uuid() WHERE id = {number(1, 40)}",
                    f"UPDATE release SET seen = {number(1, 40)}",
                    f"DELETE FROM release WHERE id = {number(1, 40)}",
                    f"UPDATE medium SET release = (SELECT min(id) FROM release WHERE id > {number(1, 30)}) WHERE id = {number(1, 60)}",
                    f"UPDATE track SET medium = (SELECT min(id) FROM medium WHERE id > {number(1, 40)}) WHERE id = {number(1, 200)}",
                    f"DELETE FROM track WHERE id = {number(1, 200)}",
                ]
            )
            rig.sql(statement)
        rig.wait_for_rest()
    assert rig.differences() == []


def test_tasks_of_a_whole_row_are_worked_off_after_columns_came_and_went(build):
    columns = ", ".join(f"col_{number:04} int" for number in range(1580))
    rig = build(
        f"CREATE TABLE docs (id bigint PRIMARY KEY, t text); CREATE TABLE wide (id bigint PRIMARY KEY, link bigint, {columns});"
        "INSERT INTO docs SELECT i, 't' FROM generate_series(1, 5) i; INSERT INTO wide (id, link) SELECT i, i FROM generate_series(1, 5) i",
        "SELECT d.id AS document_id, jsonb_build_object('n', (SELECT sum(col_0000) FROM wide w WHERE w.link = d.id)) AS document FROM docs d",
        watch("docs", 'key = "id"')
        + watch("wide", "keys = \"SELECT c.link FROM changed c WHERE to_jsonb(c) ->> 'col_0000' IS NOT NULL\""),
    )
    rig.sql("UPDATE wide SET col_0000 = 7 WHERE id = 1")
    rig.sql("ALTER TABLE wide DROP COLUMN col_0005, ADD COLUMN more text")
    rig.sql("UPDATE wide SET col_0000 = 8 WHERE id = 2")
    rig.watch()
    rig.sql("UPDATE wide SET col_0000 = 9 WHERE id = 3")
    rig.drain()
    assert [rig.document(one)["n"] for one in (1, 2, 3)] == [7, 8, 9]
    assert rig.differences() == []


def test_days_before_christ_far_ahead_and_without_end(build):
    rig = build(
        "CREATE TABLE offers (id date PRIMARY KEY, ends timestamptz, body text);"
        "INSERT INTO offers VALUES ('0044-03-15 BC', 'infinity', 'bc'), ('12024-01-01', '2024-01-01', 'far'), "
        "('infinity', NULL, 'inf'), ('-infinity', '4000-01-01 BC', 'minus')",
        "SELECT o.id AS document_id, jsonb_build_object('b', o.body, 'e', o.ends, 'live', o.ends > now()) AS document FROM offers o",
        watch("offers", 'key = "id"\nat = "ends"'),
    )
    rig.sql("UPDATE offers SET body = body || '!', ends = '-infinity'")
    rig.sql("INSERT INTO offers VALUES ('9999-12-31', '294276-12-31', 'last'), ('4713-01-01 BC', 'infinity', 'first')")
    rig.drain()
    rows = rig.sql("SELECT document_id::text, document FROM (" + rig.query + ") d")
    assert dict(judge.held_documents(rig.opensearch, rig.index)) == dict(rows)
    assert rig.letters() == {}
