"""reindex on schemas of all kinds, and everything it must refuse."""

from __future__ import annotations

import datetime as dt
import json
import urllib.parse
import uuid
from pathlib import Path

import psycopg
import pytest

from idxctl.indexes.sizes import Sizes
from idxctl.verify import compare
from support import judge
from support.rig import Rig


@pytest.fixture
def build(database, migrate, opensearch_url, unique_name, tmp_path):
    """A function that makes a rig of SQL, a document query and watches."""
    migrate(database)
    made = []

    def make(schema: str, document: str, watches: str, *, index: str = "", mapping: dict | None = None) -> Rig:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(schema.encode())
        write(tmp_path, unique_name, document, watches, index=index, mapping=mapping)
        rig = Rig(database, opensearch_url, unique_name, tmp_path)
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.close()


def write(
    directory: Path, name: str, document: str, watches: str, *, index: str = "", mapping: dict | None = None
) -> None:
    (directory / "document.sql").write_text(document)
    (directory / "mapping.json").write_text(json.dumps(mapping or {}))
    (directory / "idxctl.toml").write_text(
        f'[indexes.{name}]\ndocument = "document.sql"\nmapping = "mapping.json"\n{index}\n'
        + watches.replace("NAME", name)
    )


def drop(server: str, database: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())


@pytest.fixture
def cli(idxctl, database, opensearch_url, tmp_path):
    idxctl.use(database=database, opensearch=opensearch_url, config=tmp_path / "idxctl.toml")
    return idxctl


ONE = '[[indexes.NAME.watch]]\ntable = "things"\nkey = "id"\n'
THINGS = "CREATE TABLE things (id bigint PRIMARY KEY, name text); INSERT INTO things SELECT i, 'n' || i FROM generate_series(1, 50) i;"
DOCUMENT = "SELECT id AS document_id, to_jsonb(t) AS document FROM things t"


def held(rig: Rig) -> dict[str, dict]:
    return dict(judge.held_documents(rig.opensearch, rig.index))


def test_empty_table_makes_an_empty_index(build):
    rig = build("CREATE TABLE things (id bigint PRIMARY KEY)", DOCUMENT, ONE)
    rig.watch()
    assert rig.reindex().swapped
    assert held(rig) == {}


def test_uuid_keys(build):
    rig = build("CREATE TABLE things (id uuid PRIMARY KEY, name text)", DOCUMENT, ONE)
    ids = [str(uuid.uuid4()) for _ in range(700)]
    for one in ids:
        rig.sql("INSERT INTO things VALUES (%s, 'x')", one)
    rig.watch()
    rig.reindex()
    rig.sql("UPDATE things SET name = 'y' WHERE id = %s", ids[3])
    rig.sql("DELETE FROM things WHERE id = %s", ids[4])
    rig.drain()
    assert rig.differences() == []


ODD = [
    "a:b",
    "50%",
    'quo"te',
    "it's",
    "back\\slash",
    "tab\there",
    "žluťoučký",
    "🙂",
    "a b",
    "%3A",
    "/slash?x=1",
    "{}",
    "line\nbreak",
]


def test_text_keys_of_any_characters(build):
    rig = build(
        'CREATE TABLE things (id text COLLATE "C" PRIMARY KEY, name text)',
        DOCUMENT,
        ONE,
    )
    for one in ODD:
        rig.sql("INSERT INTO things VALUES (%s, 'x')", one)
    rig.watch()
    rig.reindex()
    assert sorted(held(rig)) == sorted(ODD)
    rig.sql("UPDATE things SET name = 'y'")
    rig.drain()
    assert rig.differences() == []
    rig.sql("DELETE FROM things")
    rig.drain()
    assert held(rig) == {}


def test_composite_keys_of_any_characters(build):
    rig = build(
        "CREATE TABLE things (tenant text, seq int, name text, PRIMARY KEY (tenant, seq))",
        "SELECT tenant, seq, to_jsonb(t) AS document FROM things t",
        '[[indexes.NAME.watch]]\ntable = "things"\nkey = ["tenant", "seq"]\n',
        index='key = ["tenant", "seq"]',
    )
    for number, one in enumerate(ODD):
        rig.sql("INSERT INTO things VALUES (%s, %s, 'x'), (%s, %s, 'x')", one, number, one, number + 1)
    rig.watch()
    rig.reindex()
    rig.sql("UPDATE things SET name = 'y' WHERE seq % 2 = 0")
    rig.sql("DELETE FROM things WHERE seq = 3")
    rig.drain()
    found = {(one["tenant"], one["seq"]): one["name"] for one in held(rig).values()}
    assert found == {(tenant, seq): name for tenant, seq, name in rig.sql("SELECT tenant, seq, name FROM things")}
    assert set(held(rig)) == {
        f"{tenant.replace('%', '%25').replace(':', '%3A')}:{seq}"
        for tenant, seq in rig.sql("SELECT tenant, seq FROM things")
    }


def test_quoted_table_in_a_schema_of_its_own_and_json_with_line_breaks(build):
    rig = build(
        'CREATE SCHEMA geo; CREATE TABLE geo."Place Notes" ("Id" int PRIMARY KEY, body json); '
        """INSERT INTO geo."Place Notes" SELECT i, E'{"a":\\n1,\\r\\n"b": "x\\\\ny"}' FROM generate_series(1, 30) i""",
        'SELECT "Id" AS document_id, body AS document FROM geo."Place Notes"',
        '[[indexes.NAME.watch]]\ntable = \'geo."Place Notes"\'\nkey = "Id"\n',
    )
    rig.watch()
    rig.reindex()
    rig.sql("""UPDATE geo."Place Notes" SET body = '{"a": 2}' WHERE "Id" = 7""")
    rig.drain()
    assert rig.differences() == []


def test_routing_is_derived_from_the_id(build):
    rig = build(
        THINGS,
        DOCUMENT,
        ONE,
        index='routing = "(document_id % 3)::text"',
        mapping={"settings": {"number_of_shards": 3, "number_of_replicas": 0}},
    )
    rig.watch()
    rig.reindex()
    rig.sql("UPDATE things SET name = 'y'")
    rig.sql("DELETE FROM things WHERE id < 10")
    rig.drain()
    assert rig.differences() == []
    rig.reindex()
    assert rig.differences() == []


def test_standby_stays_current_after_a_swap(build):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.watch()
    rig.reindex()
    rig.reindex()
    rig.sql("UPDATE things SET name = 'y' WHERE id < 20")
    rig.drain()
    standby = rig.generation("standby")
    assert rig.differences() == []
    assert rig.differences(standby.name) == []


def test_concrete_index_of_that_name_is_replaced_only_with_a_yes(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.watch()
    rig.ask("PUT", f"/{rig.index}", {})
    rig.ask("PUT", f"/{rig.index}/_doc/old?refresh=true", {"old": True})
    refused = cli("reindex")
    assert refused.status == 2
    assert "--yes" in refused.stderr
    assert "old" in held(rig)
    assert rig.sql("SELECT FROM opensearch_indexing_generations") == []
    assert cli("reindex", "--yes").status == 0
    assert rig.differences() == []
    assert list(rig.ask("GET", f"/_alias/{rig.index}")) == [rig.generation().name]


def test_alias_that_belongs_to_someone_else_is_left_alone(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.ask("PUT", f"/{rig.index}-theirs", {"aliases": {rig.index: {}}})
    refused = cli("reindex")
    assert refused.status == 4
    assert f"{rig.index}-theirs" in refused.stderr
    assert cli("reindex", "--take-alias").status == 0
    assert rig.differences() == []
    assert "error" not in rig.ask("GET", f"/{rig.index}-theirs")


REFUSED = {
    "no document_id": ("SELECT id, to_jsonb(t) AS document FROM things t", {}, "document_id"),
    "no document": ("SELECT id AS document_id FROM things t", {}, "document"),
    "document of text": ("SELECT id AS document_id, name AS document FROM things t", {}, "jsonb"),
    "does not parse": ("SELEC id", {}, "does not run"),
    "no such table": ("SELECT id AS document_id, '{}'::jsonb AS document FROM thinks", {}, "thinks"),
    "float key": ("SELECT id::float8 AS document_id, to_jsonb(t) AS document FROM things t", {}, "double precision"),
    "NULL id": ("SELECT nullif(id, 7) AS document_id, to_jsonb(t) AS document FROM things t", {}, "NULL"),
    "duplicate ids": (
        "SELECT id AS document_id, to_jsonb(t) AS document FROM things t, generate_series(1, 2)",
        {},
        "more than once",
    ),
    "mapping": (DOCUMENT, {"mappings": {"properties": {"name": {"type": "no_such_type"}}}}, "no_such_type"),
    "_source off": (DOCUMENT, {"mappings": {"_source": {"enabled": False}}}, "_source"),
    "fields out of _source": (DOCUMENT, {"mappings": {"_source": {"excludes": ["name"]}}}, "verify_ignore"),
    "routing required": (DOCUMENT, {"mappings": {"_routing": {"required": True}}}, "routing"),
    "analyzer": (DOCUMENT, {"mappings": {"properties": {"name": {"type": "text", "analyzer": "mine"}}}}, "mine"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_its_name_and_leaves_nothing(build, cli, case):
    document, mapping, named = REFUSED[case]
    rig = build(THINGS, document, ONE, mapping=mapping)
    refused = cli("reindex")
    assert refused.status == 4, refused.stderr
    assert named in refused.stderr
    assert "Traceback" not in refused.stderr
    assert rig.sql("SELECT state FROM opensearch_indexing_generations WHERE state <> 'retired'") == []
    assert rig.ask("GET", f"/_alias/{rig.index}").get("status") == 404


@pytest.mark.parametrize("routing", ["name", "substr(document_id, 1, 2)"])
def test_a_routing_that_does_not_run_is_named(build, cli, routing):
    build(THINGS, DOCUMENT, ONE, index=f"routing = {json.dumps(routing)}")
    refused = cli("reindex")
    assert refused.status == 4
    assert routing in refused.stderr
    assert "document_id alone, which is bigint" in refused.stderr


def test_a_query_that_fails_only_when_it_is_run_names_its_index(build, cli):
    rig = build(
        THINGS
        + "CREATE FUNCTION note(t text) RETURNS text LANGUAGE sql AS 'INSERT INTO things VALUES (-1, t) RETURNING name'",
        "SELECT id AS document_id, jsonb_build_object('name', note(name)) AS document FROM things",
        ONE,
    )
    refused = cli("reindex")
    assert refused.status == 1
    assert f"index {rig.index}: the document query fails: cannot execute INSERT" in refused.stderr


def test_cast_that_misses_the_index_is_refused_on_a_large_table(build, cli):
    rig = build(
        "CREATE TABLE things (id bigint PRIMARY KEY); INSERT INTO things SELECT generate_series(1, 12000); ANALYZE things",
        "SELECT id::text AS document_id, to_jsonb(t) AS document FROM things t",
        ONE,
    )
    refused = cli("reindex")
    assert refused.status == 4
    assert "things" in refused.stderr
    rig.sql("CREATE INDEX ON things ((id::text))")
    rig.sql("ANALYZE things")
    assert cli("reindex").status == 0


def test_refused_documents_become_letters_at_the_swap(build, cli):
    rig = build(
        THINGS + "UPDATE things SET name = 'poison' WHERE id IN (7, 8)",
        "SELECT id AS document_id, jsonb_build_object('name', CASE name WHEN 'poison' THEN 'x' ELSE '1' END) AS document FROM things t",
        ONE,
        mapping={"mappings": {"properties": {"name": {"type": "integer"}}}},
    )
    rig.watch()
    done = cli("reindex", "-o", "json")
    assert done.status == 3
    assert (done.json["documents"], done.json["failed"], done.json["swapped"]) == (48, 2, True)
    assert sorted(rig.letters()) == ["7", "8"]
    assert rig.differences(but=[7, 8]) == []


def test_a_row_that_breaks_the_query_becomes_a_letter_and_the_others_are_checked(build, cli):
    """P3."""
    rig = build(
        THINGS,
        "SELECT id AS document_id, jsonb_build_object('name', name, 'share', 100 / (id - 7)) AS document FROM things",
        ONE,
    )
    rig.watch()
    done = cli("reindex", "-o", "json")
    assert done.status == 3, done.stderr
    assert (done.json["documents"], done.json["failed"]) == (49, 1)
    assert rig.letters() == {"7": ("sql_22012", "division by zero")}
    assert len(held(rig)) == 49


def test_too_many_refused_documents_stop_the_swap(build, cli):
    rig = build(
        THINGS,
        "SELECT id AS document_id, jsonb_build_object('name', name) AS document FROM things t",
        ONE,
        mapping={"mappings": {"properties": {"name": {"type": "integer"}}}},
    )
    refused = cli("reindex")
    assert refused.status == 1
    assert "50 of 50" in refused.stderr
    assert rig.ask("GET", f"/_alias/{rig.index}").get("status") == 404
    assert rig.letters() == {}


def test_second_reindex_at_once_is_kept_out(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.sql(
        "INSERT INTO opensearch_indexing_reindex_runs (index_name, state, owner) VALUES (%s, 'backfilling', 'other')",
        rig.index,
    )
    assert cli("reindex").status == 6


def test_json_has_the_promised_fields(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.watch()
    preview = cli("reindex", "--dry-run", "-o", "json").json
    wanted = {"index", "generation", "documents", "failed", "seconds", "swapped"}
    assert wanted <= preview.keys()
    assert preview["dry_run"] is True
    done = cli("reindex", "-o", "json").json
    assert wanted <= done.keys()
    assert (done["index"], done["documents"], done["swapped"]) == (rig.index, 50, True)
    again = cli("reindex", "--if-changed", "-o", "json").json
    assert again["swapped"] is False


PROMISED = {"index", "generation", "documents", "failed", "seconds", "swapped"}
STRICT = {"mappings": {"properties": {"name": {"type": "integer"}}}}
NAMES = "SELECT id AS document_id, jsonb_build_object('name', name) AS document FROM things t"


def test_json_of_a_run_with_too_many_refused_documents_tells_what_is_known(build, cli):
    rig = build(THINGS, NAMES, ONE, mapping=STRICT)
    refused = cli("reindex", "-o", "json")
    assert refused.status == 1
    told = refused.json
    assert told.keys() >= PROMISED
    assert (told["index"], told["generation"]) == (rig.index, f"{rig.index}-000001")
    assert (told["documents"], told["failed"], told["swapped"]) == (0, 50, False)
    assert told["error"].startswith("50 of 50 documents were refused")
    assert f"error: {told['error']}" in refused.stderr


def test_json_of_a_run_that_finds_drift_tells_what_is_known(build, cli):
    rig = build(
        THINGS, "SELECT id AS document_id, jsonb_build_object('at', clock_timestamp()) AS document FROM things", ONE
    )
    rig.watch()
    refused = cli("reindex", "-o", "json")
    assert refused.status == 1
    assert (refused.json["documents"], refused.json["failed"], refused.json["swapped"]) == (50, 0, False)
    assert "still differ from their rows" in refused.json["error"]


def test_json_of_a_run_kept_out_by_another_has_no_generation(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.sql(
        "INSERT INTO opensearch_indexing_reindex_runs (index_name, state, owner) VALUES (%s, 'backfilling', 'other')",
        rig.index,
    )
    refused = cli("reindex", "-o", "json")
    assert refused.status == 6
    assert refused.json.keys() >= PROMISED
    assert (refused.json["index"], refused.json["generation"], refused.json["swapped"]) == (rig.index, None, False)
    assert "is under way" in refused.json["error"]


def test_json_of_a_run_that_fails_behind_its_swap_does_not_deny_the_swap(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.sql(
        """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
           CREATE TRIGGER no BEFORE UPDATE ON opensearch_indexing_generations FOR EACH ROW
           WHEN (NEW.state = 'live') EXECUTE FUNCTION no()"""
    )
    failed = cli("reindex", "-o", "json")
    assert failed.status == 1
    assert list(rig.ask("GET", f"/_alias/{rig.index}")) == [failed.json["generation"]]
    assert (failed.json["swapped"], "not today" in failed.json["error"]) == (True, True)


def test_json_of_several_indexes_is_a_list_of_those_that_were_begun(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    config = rig.directory / "idxctl.toml"
    (rig.directory / "names.sql").write_text(NAMES)
    (rig.directory / "strict.json").write_text(json.dumps(STRICT))
    broken = f'[indexes.{rig.index}-names]\ndocument = "names.sql"\nmapping = "strict.json"\n' + ONE.replace(
        "NAME", f"{rig.index}-names"
    )
    alone = config.read_text()
    config.write_text(alone + broken)
    failed = cli("reindex", "-o", "json")
    assert failed.status == 1
    assert [(one["index"], one["swapped"], one["error"] is None) for one in failed.json] == [
        (rig.index, True, True),
        (f"{rig.index}-names", False, False),
    ]
    config.write_text(broken + alone)
    failed = cli("reindex", "-o", "json")
    assert [(one["index"], one["swapped"]) for one in failed.json] == [(f"{rig.index}-names", False)]
    assert cli("reindex", "--index", f"{rig.index}-names", "-o", "json").json["swapped"] is False


def test_what_was_refused_before_it_began_prints_no_json(build, cli):
    build(THINGS, "SELECT id AS document_id FROM things", ONE)
    refused = cli("reindex", "-o", "json")
    assert (refused.status, refused.stdout) == (4, "")


def test_schema_not_migrated_is_said(database, cli, tmp_path: Path):
    (tmp_path / "idxctl.toml").write_text("")
    refused = cli("reindex")
    assert refused.status == 4
    refused = cli("queue", "stats")
    assert (refused.status, "idxctl migrate up" in refused.stderr) == (4, True)


# Documents and databases of every kind ----------------------------------------------------------------------------------


def test_texts_that_few_parsers_read_are_compared(build):
    """Half of a surrogate pair and a number beyond a double stand beside a document that differs."""
    rig = build(
        "CREATE TABLE things (id int PRIMARY KEY, said json); INSERT INTO things VALUES (1, '{\"a\": 1}'), "
        '(2, \'{"a": "\\ud800"}\'), (3, \'{"a": 1e400}\')',
        "SELECT id AS document_id, said AS document FROM things",
        ONE,
        mapping={"mappings": {"dynamic": False}},
    )
    rig.watch()
    rig.reindex()
    rig.sql("ALTER TABLE things DISABLE TRIGGER ALL")
    rig.sql("UPDATE things SET said = '{\"a\": 2}' WHERE id = 1")
    found = list(compare.compare_range(rig.conn, rig.client, rig.generation(), None, None, sizes=Sizes()))
    assert [(one.checked, one.stale) for one in found] == [(3, {"1": ["a"]})]


@pytest.mark.parametrize("gone", [(1,), (2,), (1, 2), (2, 3)])
def test_a_document_that_is_not_there_is_not_taken_for_its_neighbour_of_the_same_content(build, gone):
    rig = build(
        "CREATE TABLE things (id int PRIMARY KEY, said json); INSERT INTO things SELECT i, '{\"a\": 1}' FROM generate_series(1, 3) i",
        "SELECT id AS document_id, said AS document FROM things",
        ONE,
        mapping={"mappings": {"dynamic": False}},
    )
    rig.watch()
    rig.reindex()
    for one in gone:
        rig.ask("DELETE", f"/{rig.generation().name}/_doc/{one}?version={10**17}&version_type=external")
    (found,) = compare.compare_range(rig.conn, rig.client, rig.generation(), None, None, sizes=Sizes())
    assert found.missing == [str(one) for one in gone]


def test_a_document_that_quotes_an_answer_speaks_for_no_other(build):
    """Its source holds what would answer for the next document, as it should be."""
    rig = build(
        "CREATE TABLE things (id int PRIMARY KEY, said json); INSERT INTO things VALUES (1, '{}'), (2, '{\"a\":1}')",
        "SELECT id AS document_id, said AS document FROM things",
        ONE,
        mapping={"mappings": {"dynamic": False}},
    )
    rig.watch()
    rig.reindex()
    name = rig.generation().name
    quoted = (
        '{"q":[{"_index":"%s","_id":"2","_version":1,"_seq_no":1,"_primary_term":1,"found":true,"_source":{"a":1}}]}'
    )
    rig.ask("PUT", f"/{name}/_doc/1?version={10**17}&version_type=external", json.loads(quoted % name))
    rig.ask("DELETE", f"/{name}/_doc/2?version={10**17}&version_type=external")
    (found,) = compare.compare_range(rig.conn, rig.client, rig.generation(), None, None, sizes=Sizes())
    assert (found.missing, found.stale) == (["2"], {"1": ["q"]})


def test_a_database_that_is_not_of_utf8(request, postgres_url, migrate, opensearch_url, unique_name, tmp_path):
    name = f"idxctl_test_{unique_name}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'".encode())
    request.addfinalizer(lambda: drop(postgres_url, name))
    url = urllib.parse.urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    migrate(url)
    write(tmp_path, unique_name, "SELECT id AS document_id, to_jsonb(t) AS document FROM things t", ONE)
    rig = Rig(url, opensearch_url, unique_name, tmp_path)
    request.addfinalizer(rig.close)
    rig.application.execute("SET client_encoding = 'UTF8'")
    rig.sql("CREATE TABLE things (id text PRIMARY KEY, name text); INSERT INTO things VALUES ('é', 'ü'), ('a', 'ß')")
    rig.watch()
    rig.reindex()
    rig.sql("UPDATE things SET name = name || 'ñ'")
    rig.drain()
    assert held(rig) == {"é": {"id": "é", "name": "üñ"}, "a": {"id": "a", "name": "ßñ"}}


ODD = {
    "names": (
        """CREATE SCHEMA "we.ird ""S\"""; CREATE TABLE "we.ird ""S\"""."tbl üüüüüüüüüüüüüüüüüüüüüüüüüüüü" ("Key %" text PRIMARY KEY, old int, new int, changed int);
        INSERT INTO "we.ird ""S\"""."tbl üüüüüüüüüüüüüüüüüüüüüüüüüüüü" VALUES ('a:b', 1, 1, 1), ('%/ ü', 1, 1, 1), ('😀', 2, 2, 2)""",
        """SELECT "Key %" AS document_id, to_jsonb(d) AS document FROM "we.ird ""S\"""."tbl üüüüüüüüüüüüüüüüüüüüüüüüüüüü" d;\n-- the end""",
        """[[indexes.NAME.watch]]\ntable = '"we.ird ""S\"""."tbl üüüüüüüüüüüüüüüüüüüüüüüüüüüü"'\nkey = "Key %"\n""",
        [
            """UPDATE "we.ird ""S\"""."tbl üüüüüüüüüüüüüüüüüüüüüüüüüüüü" SET old = 7, "Key %" = "Key %" || '%3A'""",
            """DELETE FROM "we.ird ""S\"""."tbl üüüüüüüüüüüüüüüüüüüüüüüüüüüü" WHERE changed = 2""",
        ],
    ),
    "triggers, rules and cascades of their own": (
        """CREATE TABLE p (id int PRIMARY KEY, name text); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE, n int);
        INSERT INTO p SELECT i, 'p' || i FROM generate_series(1, 9) i; INSERT INTO c SELECT i, i % 9 + 1, i FROM generate_series(1, 40) i;
        CREATE FUNCTION b() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN new.p := CASE WHEN new.p < 9 THEN 9 ELSE 8 END; RETURN new; END$$;
        CREATE TRIGGER b BEFORE UPDATE OF n ON c FOR EACH ROW EXECUTE FUNCTION b();
        CREATE FUNCTION a() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
          IF pg_trigger_depth() < 3 THEN UPDATE c SET n = n + 1000 WHERE p = new.p; UPDATE p SET name = name || '!' WHERE id = new.p; END IF; RETURN NULL; END$$;
        CREATE TRIGGER zz AFTER UPDATE ON c FOR EACH ROW EXECUTE FUNCTION a();
        CREATE RULE kept AS ON DELETE TO p WHERE old.id = 2 DO INSTEAD UPDATE p SET name = 'kept' WHERE id = old.id""",
        """SELECT p.id AS document_id, jsonb_build_object('name', name, 'ns', (SELECT jsonb_agg(n ORDER BY c.id) FROM c WHERE c.p = p.id)) AS document FROM p""",
        """[[indexes.NAME.watch]]\ntable = "p"\nkey = "id"\n[[indexes.NAME.watch]]\ntable = "c"\nkey = "p"\n""",
        [
            "UPDATE c SET n = 5 WHERE id IN (1, 2)",
            "UPDATE p SET id = id + 100 WHERE id < 4",
            "DELETE FROM p WHERE id IN (2, 5, 101)",
            "WITH a AS (UPDATE c SET n = 0 WHERE id = 7 RETURNING *), b AS (DELETE FROM c WHERE id = 8) UPDATE c SET n = a.n FROM a WHERE c.id = 9",
        ],
    ),
    "two levels of partitions": (
        """CREATE TABLE d (id bigint GENERATED ALWAYS AS IDENTITY, at date, tenant int, n int, PRIMARY KEY (id, at, tenant)) PARTITION BY RANGE (at);
        CREATE TABLE d24 PARTITION OF d FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (tenant);
        CREATE TABLE d24a PARTITION OF d24 FOR VALUES IN (1, 2); CREATE TABLE d24b PARTITION OF d24 DEFAULT; CREATE TABLE rest PARTITION OF d DEFAULT;
        INSERT INTO d (at, tenant, n) SELECT '2023-06-01'::date + i * 20, i % 4, i FROM generate_series(1, 60) i""",
        """SELECT id AS document_id, jsonb_build_object('at', at, 'tenant', tenant, 'n', n) AS document FROM d""",
        """[[indexes.NAME.watch]]\ntable = "d"\nkey = "id"\nignore = []\n""",
        [
            "UPDATE d SET at = at + 200, tenant = (tenant + 1) % 4",
            "UPDATE d24a SET n = n + 1000",
            "DELETE FROM d24b WHERE n % 5 = 0",
            "MERGE INTO d USING (SELECT id FROM d LIMIT 9) s ON d.id = s.id WHEN MATCHED THEN UPDATE SET at = d.at - 150, tenant = 7",
            "TRUNCATE d24a",
        ],
    ),
    "inherited": (
        """CREATE TABLE a (id int PRIMARY KEY, n int, x int); CREATE TABLE b (x int, more text, id int NOT NULL, n int); ALTER TABLE b INHERIT a;
        INSERT INTO a SELECT i, i, i FROM generate_series(1, 3) i; INSERT INTO b SELECT 1, 't', i, i FROM generate_series(4, 9) i""",
        """SELECT id AS document_id, jsonb_build_object('n', n) AS document FROM a""",
        """[[indexes.NAME.watch]]\ntable = "a"\nkey = "id"\nignore = ["x"]\n""",
        [
            "UPDATE a SET n = n + 1",
            "UPDATE ONLY a SET n = 0 WHERE id = 2",
            "UPDATE b SET n = 7 WHERE id = 5",
            "ALTER TABLE a ADD more_still int DEFAULT 4",
            "UPDATE a SET n = n + 1",
            "DELETE FROM b WHERE id = 6",
        ],
    ),
    "drafts, NULL documents and a key of dates": (
        """CREATE TABLE d (day date PRIMARY KEY, n int, state text DEFAULT 'open'); INSERT INTO d SELECT date '2024-02-25' + i, i FROM generate_series(1, 9) i""",
        """WITH u AS (SELECT * FROM d WHERE state <> 'draft')
        SELECT day AS document_id, CASE WHEN n <> 5 THEN jsonb_build_object('n', n, 'like', state LIKE 'o%', 's', '%s {} $1') END AS document FROM u /* end */""",
        """[[indexes.NAME.watch]]\ntable = "d"\nkey = "day"\n""",
        [
            "SET DateStyle = 'SQL, DMY'",
            "UPDATE d SET state = 'draft' WHERE n < 3",
            "UPDATE d SET n = 5 WHERE n = 6",
            "UPDATE d SET n = 50 WHERE n = 5 AND day > '01/03/2024'",
            "UPDATE d SET state = 'again' WHERE n = 1",
            "DELETE FROM d WHERE n = 9",
        ],
    ),
    "texts of every kind as keys": (
        r"""CREATE TABLE d (id text PRIMARY KEY, n int); INSERT INTO d SELECT id, 1 FROM unnest(ARRAY[
        E'tab\t', E'line\n', E'\u2028', E'\x7f', E'\x01', '_x', '.', '..', 'a/b?c#d', '"', '\', ' ', '*', 'null', '{', '%3A']) id""",
        """SELECT id AS document_id, to_jsonb(d) AS document FROM d""",
        """[[indexes.NAME.watch]]\ntable = "d"\nkey = "id"\nignore = []\n""",
        ["UPDATE d SET n = ascii(id)", "DELETE FROM d WHERE n % 3 = 0"],
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_documents_equal_their_rows_on_odd_schemas(build, case):
    schema, document, watches, changes = ODD[case]
    rig = build(schema, document, watches)
    if "MERGE" in str(changes) and rig.conn.raw.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    rig.watch()
    rig.reindex()
    assert rig.differences(name=iso) == []
    for change in changes:
        rig.application.execute(change.encode())
    rig.drain()
    assert rig.differences(name=iso) == []
    assert rig.letters() == {}


def iso(row: tuple) -> str:
    return row[0].isoformat() if isinstance(row[0], dt.date) else str(row[0])
