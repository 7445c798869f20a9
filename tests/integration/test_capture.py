"""What each kind of write leaves in the queue (C1-C5), on a real PostgreSQL."""

from __future__ import annotations

import threading
import uuid
from collections import Counter

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from idxctl.core import keys
from idxctl.core.errors import PostgresRefused
from support.capture import SHOP_WATCHES, Captured

LISTING = (
    "INSERT INTO listings (id, user_id, category_id, title, description, price) "
    "SELECT i, 1, 1, 't', 'd', 1 FROM generate_series({}, {}) i"
)


@pytest.fixture
def db(migrated):
    captured = Captured(migrated)
    yield captured
    captured.conn.close()


@pytest.fixture
def market(shop):
    captured = Captured(shop)
    captured.watch(*SHOP_WATCHES, name="marketplace_listings")
    yield captured
    captured.conn.close()


def each_once(*ids):
    return Counter(map(str, ids))


# Roots and children ----------------------------------------------------------------------------------------------------


def test_every_row_of_a_statement_leaves_one_task(market):
    assert market.after(LISTING.format(9001, 9003)) == each_once(9001, 9002, 9003)
    assert market.after("UPDATE listings SET price = 2 WHERE id IN (9001, 9002)") == each_once(9001, 9002)
    assert market.after("DELETE FROM listings WHERE id = 9003") == each_once(9003)


def test_a_statement_that_touches_no_row_leaves_nothing(market):
    assert market.after("UPDATE listings SET price = 2 WHERE false", "DELETE FROM listing_images WHERE false") == {}


def test_several_children_of_one_parent_leave_one_task(market):
    assert market.after(
        "INSERT INTO listing_images (listing_id, url) VALUES (7, 'a'), (7, 'b'), (8, 'c')"
    ) == each_once(7, 8)


def test_a_child_that_changes_its_parent_touches_both(market):
    market.after("INSERT INTO listing_images (id, listing_id, url) VALUES (9001, 7, 'a')")
    assert market.after("UPDATE listing_images SET listing_id = 8 WHERE id = 9001") == each_once(7, 8)


def test_a_changed_primary_key_touches_both_documents(market):
    market.after(LISTING.format(9001, 9001))
    assert market.after("UPDATE listings SET id = 9100 WHERE id = 9001") == each_once(9001, 9100)


def test_a_null_parent_is_left_out_and_does_not_fail_the_writer(db):
    db.sql("CREATE TABLE parts (id int PRIMARY KEY, doc int)").watch({"table": "parts", "key": ("doc",)})
    assert db.after("INSERT INTO parts VALUES (1, NULL), (2, 5)") == each_once(5)
    assert db.after("UPDATE parts SET doc = 6 WHERE doc IS NULL") == each_once(6)


def test_a_rolled_back_write_leaves_nothing(market):
    with psycopg.connect(market.url) as other:
        other.execute("UPDATE listings SET price = 3")
        other.rollback()
    assert market.ids() == {}


def test_cascades_are_captured_once_a_statement(market):
    market.after(
        LISTING.format(9001, 9002),
        "INSERT INTO listing_images (listing_id, url) SELECT l, 'u' FROM generate_series(9001, 9002) l, generate_series(1, 3)",
    )
    # one firing for listings, one for its images: the cascade's own statements are gathered
    assert market.after("DELETE FROM listings WHERE id >= 9001") == Counter({"9001": 2, "9002": 2})


def test_every_way_to_write_is_captured(db):
    """C2."""
    db.sql("CREATE TABLE docs (id int PRIMARY KEY, v int)", "CREATE VIEW shown AS SELECT * FROM docs").watch(
        {"table": "docs", "key": ("id",)}
    )
    with db.conn.raw.cursor().copy("COPY docs FROM STDIN") as copy:
        copy.write(b"1\t1\n2\t2\n")
    assert db.ids() == each_once(1, 2)
    assert db.after(
        "INSERT INTO docs VALUES (2, 9), (3, 9) ON CONFLICT (id) DO UPDATE SET v = excluded.v"
    ) == each_once(2, 3)
    assert db.after(
        "WITH gone AS (DELETE FROM docs WHERE id = 3 RETURNING id) INSERT INTO docs SELECT 4, 4 FROM gone"
    ) == (each_once(3, 4))
    assert db.after("UPDATE shown SET v = 7 WHERE id = 1") == each_once(1)
    merge = (
        "MERGE INTO docs d USING (VALUES (1), (2), (5)) s (id) ON d.id = s.id WHEN MATCHED AND s.id = 1 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET v = 0 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 0)"
    )
    if db.conn.raw.info.server_version >= 150000:
        assert db.after(merge) == each_once(1, 2, 5)


def test_replication_role_is_captured(market):
    """C2: ENABLE ALWAYS."""
    market.sql("SET session_replication_role = replica")
    assert market.after("UPDATE listings SET price = 3 WHERE id = 1") == each_once(1)


# ignore (C4) -----------------------------------------------------------------------------------------------------------


def test_an_update_of_ignored_columns_alone_is_not_captured(market):
    assert market.after("UPDATE listings SET views_count = views_count + 1") == {}
    assert market.after("UPDATE listings SET views_count = 0, stock = 77 WHERE id = 3") == each_once(3)


def test_rows_that_an_update_left_as_they_were_are_not_captured(market):
    market.after("UPDATE listings SET stock = 5 WHERE id <= 3")
    assert market.after(
        "UPDATE listings SET stock = CASE WHEN id = 2 THEN 6 ELSE stock END WHERE id <= 3"
    ) == each_once(2)


def test_a_change_of_bytes_alone_is_a_change(db):
    """C4: 1.0 and 1.00 are equal, json has no equality at all."""
    db.sql(
        "CREATE TABLE docs (id int PRIMARY KEY, n numeric, j json, seen int)",
        "INSERT INTO docs VALUES (1, 1.0, '{}', 0)",
    )
    db.watch({"table": "docs", "key": ("id",), "ignore": ("seen",)})
    assert db.after("UPDATE docs SET n = 1.00") == each_once(1)
    assert db.after("UPDATE docs SET j = '{ }'") == each_once(1)
    assert db.after("UPDATE docs SET j = NULL") == each_once(1)
    assert db.after("UPDATE docs SET seen = 1, n = 1.00") == {}


def test_columns_added_dropped_and_recreated_later_do_not_disturb_capture(market):
    """C4: a column of later is not taken for an ignored one, one that is gone does not fail the writer."""
    market.sql("ALTER TABLE listings ADD COLUMN colour text")
    assert market.after("UPDATE listings SET colour = 'red' WHERE id = 1") == each_once(1)
    market.sql("ALTER TABLE listings DROP COLUMN colour, DROP COLUMN stock")
    assert market.after("UPDATE listings SET price = 9 WHERE id = 2") == each_once(2)
    market.sql("ALTER TABLE listings ADD COLUMN stock bigint")
    assert market.after("UPDATE listings SET stock = 4 WHERE id = 3") == each_once(3)
    market.watch(*SHOP_WATCHES, name="marketplace_listings")
    assert market.after("UPDATE listings SET views_count = views_count + 1") == {}
    assert market.after("UPDATE listings SET stock = 5 WHERE id = 3") == each_once(3)


def test_retyped_columns_do_not_disturb_capture(db):
    db.sql("CREATE TABLE docs (id int PRIMARY KEY, v int, seen int)", "INSERT INTO docs VALUES (1, 1, 1)")
    db.watch({"table": "docs", "key": ("id",), "ignore": ("seen",)})
    assert db.after("UPDATE docs SET v = 2") == each_once(1)
    db.sql("ALTER TABLE docs ALTER id TYPE bigint, ALTER v TYPE text USING 'v' || v")
    assert db.after("UPDATE docs SET v = 'x', id = 5000000000") == each_once(1, 5000000000)


def test_ignore_with_a_primary_key_of_text_keeps_keys_apart_that_a_collation_calls_equal(db):
    try:
        db.sql("CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except PostgresRefused:
        return  # a PostgreSQL without ICU has no such collation
    db.sql(
        "CREATE TABLE docs (code text COLLATE folded PRIMARY KEY, v int, seen int)",
        "INSERT INTO docs VALUES ('a', 1, 1)",
    )
    db.watch({"table": "docs", "key": ("code",), "ignore": ("seen",)}, {"table": "docs", "key": ("code",)})
    assert db.after("UPDATE docs SET code = 'A'") == Counter({"a": 2, "A": 2})


def test_a_plan_made_for_one_row_serves_many_and_the_other_way_round(market):
    market.after("UPDATE listings SET stock = 1 WHERE id = 1")
    assert len(market.after("UPDATE listings SET stock = stock + 1")) == 300
    assert market.after("UPDATE listings SET stock = 1 WHERE id = 1") == each_once(1)


# Keys ------------------------------------------------------------------------------------------------------------------


def test_uuid_text_and_composite_keys(db):
    one, tenant = uuid.uuid4(), "a:b%c"
    db.sql(
        "CREATE TABLE people (id uuid PRIMARY KEY)",
        "CREATE TABLE codes (code text PRIMARY KEY)",
        "CREATE TABLE orders (tenant text, seq bigint, note text, PRIMARY KEY (tenant, seq))",
    )
    db.watch({"table": "people", "key": ("id",)}, {"table": "codes", "key": ("code",)})
    db.watch({"table": "orders", "key": ("tenant", "seq"), "ignore": ("note",)}, name="orders", key=("tenant", "seq"))
    assert db.after(f"INSERT INTO people VALUES ('{one}')") == each_once(one)
    assert db.after("INSERT INTO codes VALUES ('x:y% z')") == each_once("x:y% z")
    assert db.after(f"INSERT INTO orders VALUES ('{tenant}', 7)") == each_once(keys.document_id([tenant, 7]))
    assert db.after("UPDATE orders SET note = 'n'") == {}
    assert db.after("UPDATE orders SET seq = 8, note = 'm'") == each_once("a%3Ab%25c:7", "a%3Ab%25c:8")


def test_ids_do_not_depend_on_the_writers_settings(db):
    db.sql("CREATE TABLE days (d date PRIMARY KEY)").watch({"table": "days", "key": ("d",)})
    db.sql("SET datestyle = 'German'")
    assert db.after("INSERT INTO days VALUES ('2026-11-02')") == each_once("2026-11-02")


@pytest.mark.parametrize("parts", [("a", "b"), ("a:b", "c"), ("a", "b:c"), ("%3A", ":"), ("", "%"), ("č", "\n'\\")])
def test_sql_and_python_write_the_same_id(db, parts):
    expression = keys.document_id_sql(["v.a", "v.b"], ["text", "text"]).replace("%", "%%")
    row = db.conn.execute(f"SELECT {expression} FROM (VALUES (%s, %s)) v (a, b)", parts).fetchone()
    assert row == (keys.document_id(parts),)
    assert keys.key_parts(row[0], 2) == parts


def test_quoted_and_qualified_names_with_an_expression_as_key(db):
    db.sql(
        "CREATE SCHEMA geo",
        """CREATE TABLE geo."Place Notes" (id int PRIMARY KEY, "Place ""Code" text, found int)""",
    )
    db.watch(
        {"table": 'geo."Place Notes"', "key": ('Place "Code',)},
        {"table": 'geo."Place Notes"', "key_sql": 'lower("Place ""Code")', "ignore": ("found",)},
        {"table": 'geo."Place Notes"', "key_sql": """'x-' || "Place Notes"."Place ""Code\""""},
    )
    assert db.after("""INSERT INTO geo."Place Notes" VALUES (1, 'AbC', 1), (2, NULL, 1)""") == each_once(
        "AbC", "abc", "x-AbC"
    )
    assert db.after("""UPDATE geo."Place Notes" SET found = 2""") == each_once("AbC", "x-AbC")


def test_a_key_expression_means_what_it_meant_at_installation(db):
    """C5: objects of the same name that turn up in the search path later, or the writer's own path, change nothing."""
    db.sql("CREATE SCHEMA app", "CREATE FUNCTION app.code(text) RETURNS text LANGUAGE sql AS $$ SELECT 'app-' || $1 $$")
    db.sql("SET search_path = public, app", "CREATE TABLE places (code varchar PRIMARY KEY)")
    db.watch({"table": "places", "key_sql": "code(lower(code))"})
    db.sql(
        "CREATE FUNCTION public.code(text) RETURNS text LANGUAGE sql AS $$ SELECT 'public-' || $1 $$",
        "CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql AS $$ SELECT 'wrong' $$",
        "SET search_path = public",
    )
    db.sql("INSERT INTO places VALUES ('X')")
    assert db.expanded() == ["app-x"]  # by a worker: what is somebody's is not called with the owner's rights (C6)


def test_objects_of_our_names_in_the_writers_path_change_nothing(db):
    """C5."""
    db.sql(
        "CREATE TABLE docs (id int PRIMARY KEY, code varchar, seen int)",
        "INSERT INTO docs VALUES (1, 'a', 0)",
    )
    db.watch(
        {"table": "docs", "key": ("id",), "ignore": ("seen",)}, {"table": "docs", "keys": "SELECT id FROM changed"}
    )
    db.sql(
        "CREATE SCHEMA trap",
        "CREATE TABLE trap.opensearch_indexing_queue (LIKE public.opensearch_indexing_queue)",
        "CREATE TABLE trap.opensearch_indexing_new (id int)",
        "CREATE FUNCTION trap.never(varchar, varchar) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE FUNCTION trap.nevern(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
        "CREATE OPERATOR trap.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = trap.never)",
        "CREATE OPERATOR trap.= (LEFTARG = int, RIGHTARG = int, FUNCTION = trap.nevern)",
        "CREATE FUNCTION trap.jsonb_build_array(int) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[99]'::jsonb $$",
        "SET search_path = trap, pg_catalog, public",
    )
    db.sql("UPDATE public.docs SET code = 'b'", "SET search_path = public")
    assert db.ids() == each_once(1)
    assert db.payloads() == [[[1]]]


def test_several_watches_and_indexes_over_one_table(db):
    db.sql("CREATE TABLE links (a int, b int)").watch(
        {"table": "links", "key": ("a",)}, {"table": "links", "key": ("b",)}
    )
    db.watch({"table": "links", "key": ("a",), "priority": "high"}, name="other")
    db.sql("INSERT INTO links VALUES (1, 2)")
    assert sorted(db.tasks("index_name, document_id, priority, origin", "document")) == [
        ("docs", "1", 0, "trigger"),
        ("docs", "2", 0, "trigger"),
        ("other", "1", 1, "trigger"),
    ]


@pytest.mark.parametrize("table", ["new", "old", "d", "s", "n", "o", "changed"])
def test_tables_and_columns_named_as_what_the_functions_use(db, table):
    db.sql(f'CREATE TABLE "{table}" (id int PRIMARY KEY, value int, tg_op int, found int, image int, p0 int, seen int)')
    db.watch(
        {"table": f'"{table}"', "key": ("value",), "ignore": ("seen",)},
        {"table": f'"{table}"', "key_sql": "tg_op + found"},
        {"table": f'"{table}"', "keys": "SELECT image FROM changed"},
    )
    assert db.after(f'INSERT INTO "{table}" VALUES (1, 10, 20, 1, 30, 0, 0)') == each_once(10, 21)
    assert db.after(f'UPDATE "{table}" SET p0 = 1') == each_once(10, 21)
    assert db.after(f'DELETE FROM "{table}"') == each_once(10, 21)
    assert db.expanded() == ["30"]


# Lookups (C1) ----------------------------------------------------------------------------------------------------------


def test_a_lookup_stores_the_columns_it_reads_and_runs_after_the_commit(market):
    market.sql("UPDATE categories SET name = name || '!' WHERE id IN (1, 2)")
    assert market.ids() == {}
    assert sorted(market.payloads()[0]) == [[1], [2]]
    assert market.expanded() == sorted(
        str(id_) for (id_,) in market.conn.execute(b"SELECT id FROM listings WHERE category_id IN (1, 2)")
    )


def test_a_parent_that_moves_in_while_the_lookup_table_changes_is_found(market):
    """C1: run in the writer's transaction the query would see neither the other's row nor be seen by it."""
    with psycopg.connect(market.url) as mover, psycopg.connect(market.url) as renamer:
        mover.execute("UPDATE listings SET category_id = 7 WHERE id = 1")
        renamer.execute("UPDATE categories SET name = 'renamed' WHERE id = 7")
        mover.commit()
        renamer.commit()
    assert "1" in market.expanded()


def test_old_and_new_values_of_the_join_columns_are_stored(db):
    db.sql("CREATE TABLE docs (id int PRIMARY KEY, grp text)", "CREATE TABLE grps (name text, other int)")
    db.sql("INSERT INTO grps VALUES ('a', 1)", "INSERT INTO docs VALUES (1, 'a'), (2, 'b')")
    db.watch({"table": "grps", "keys": "SELECT d.id FROM docs d JOIN changed c ON c.name = d.grp"})
    db.sql("UPDATE grps SET name = 'b'")
    assert sorted(db.payloads()[0]) == [["a"], ["b"]]
    assert db.expanded() == ["1", "2"]


def test_a_thousand_changed_rows_make_one_fan_out(db):
    db.sql("CREATE TABLE grps (id int PRIMARY KEY)").watch({"table": "grps", "keys": "SELECT id FROM changed"})
    db.sql("INSERT INTO grps SELECT generate_series(1, 2500)")
    assert sorted(map(len, db.payloads())) == [500, 1000, 1000]
    assert len(db.expanded()) == 2500


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("SELECT a FROM changed", ["a"]),
        ("WITH c AS (SELECT * FROM changed) SELECT c.a FROM c WHERE c.b > 0;", ["a", "b", "c"]),
        ("SELECT d.id FROM docs d JOIN changed USING (b)", ["b"]),
        ("SELECT d.id FROM docs d NATURAL JOIN changed", ["b", "c"]),
        ("SELECT (to_jsonb(changed) ->> 'a')::int FROM changed", ["a", "b", "c"]),
        ("SELECT id FROM docs WHERE EXISTS (SELECT FROM changed WHERE changed.c = docs.c) -- so", ["c"]),
        ("SELECT id FROM docs WHERE (SELECT count(*) FROM changed) > 0", ["a"]),
        ("SELECT NULL::int FROM changed UNION ALL SELECT a FROM changed", ["a"]),
    ],
)
def test_the_columns_a_lookup_reads_are_found(db, query, columns):
    """C1: by a throwaway view and its pg_depend."""
    db.sql("CREATE TABLE docs (id int PRIMARY KEY, b int, c int)", "CREATE TABLE grps (a int, b int, c int)")
    db.sql("INSERT INTO docs VALUES (1, 5, 6)").watch({"table": "grps", "keys": query})
    db.sql("INSERT INTO grps VALUES (1, 5, 6), (1, 5, 6)")
    (definition,) = db.conn.execute(b"SELECT definition FROM opensearch_indexing_watches").fetchone()
    assert definition["columns"] == columns
    assert db.expanded() == db.expanded(by_stored_types=True) == ["1"]


def test_values_of_every_kind_come_back_from_a_fan_out(db):
    db.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'glad')",
        "CREATE DOMAIN plain AS text NOT NULL",
        """CREATE TABLE grps (id uuid, t text, n numeric, f float8, ts timestamptz, d date, b bytea, j jsonb, a int[], m mood,
                              i interval, w varchar(3), p plain)""",
        """INSERT INTO grps VALUES (gen_random_uuid(), E'a"\\\\\\'b', 1.50, 'NaN', now(), '0044-03-15 BC', '\\x00ff', '{"k": [1]}',
                                   '{1,NULL}', 'glad', '1 mon 2 days', 'abc', 'p')""",
    )
    same = " AND ".join(
        f"c.{name} IS NOT DISTINCT FROM g.{name}"
        for name in ["id", "t", "n", "f", "ts", "d", "b", "j", "a", "m", "i", "w", "p"]
    )
    db.watch({"table": "grps", "keys": f"SELECT g.id FROM grps g JOIN changed c ON {same}"})
    db.sql("SET bytea_output = escape", "UPDATE grps SET n = n")
    assert len(db.expanded()) == 1


def test_a_lookup_table_of_more_columns_than_a_function_takes_arguments(db):
    wide = ", ".join(f"c{number} int DEFAULT {number}" for number in range(230))
    db.sql(f"CREATE TABLE grps ({wide})").watch(
        {"table": "grps", "keys": "SELECT (to_jsonb(c) ->> 'c229')::int FROM changed c"}
    )
    db.sql("INSERT INTO grps DEFAULT VALUES")
    assert len(db.payloads()[0][0]) == 230
    assert db.expanded() == ["229"]


def test_a_lookup_column_retyped_before_the_fan_out_is_expanded(db):
    db.sql(
        "CREATE TABLE docs (id int, grp bigint)",
        "CREATE TABLE grps (id int, name text)",
        "INSERT INTO docs VALUES (1, 7)",
    )
    db.watch({"table": "grps", "keys": "SELECT d.id FROM docs d JOIN changed c ON c.id = d.grp"})
    db.sql("INSERT INTO grps VALUES (7)", "ALTER TABLE grps ALTER id TYPE bigint, DROP COLUMN name")
    db.sql("INSERT INTO docs VALUES (2, 5000000000)", "INSERT INTO grps VALUES (5000000000)")
    assert db.expanded() == ["1", "2"]


def test_a_lookup_runs_under_the_search_path_of_its_installation(db):
    db.sql(
        "CREATE SCHEMA app",
        "CREATE TABLE app.docs (id int)",
        "CREATE TABLE app.grps (id int)",
        "INSERT INTO app.docs VALUES (3)",
    )
    db.sql("SET search_path = public, app").watch(
        {"table": "grps", "keys": "SELECT d.id FROM docs d JOIN changed c USING (id)"}
    )
    db.sql("SET search_path = public", "INSERT INTO app.grps VALUES (3)")
    assert db.expanded() == ["3"]


def test_a_lookup_of_a_composite_key_returns_its_columns_in_order(db):
    db.sql(
        "CREATE TABLE docs (t text, n int, grp int)",
        "CREATE TABLE grps (id int)",
        "INSERT INTO docs VALUES ('a:', 1, 5), (NULL, 2, 5)",
    )
    db.watch({"table": "grps", "keys": "SELECT t, n FROM docs JOIN changed c ON c.id = grp"}, key=("t", "n"))
    db.sql("INSERT INTO grps VALUES (5)")
    assert db.expanded() == ["a%3A:1"]


def test_ignored_columns_start_no_lookup(db):
    db.sql("CREATE TABLE grps (id int PRIMARY KEY, name text, seen int)", "INSERT INTO grps VALUES (1, 'a', 0)")
    db.watch({"table": "grps", "keys": "SELECT id FROM changed", "ignore": ("seen",)})
    db.sql("UPDATE grps SET seen = 1")
    assert db.payloads() == []
    db.sql("UPDATE grps SET name = 'b'")
    assert db.payloads() == [[[1]]]


# TRUNCATE (C3) ---------------------------------------------------------------------------------------------------------


def test_truncate_leaves_one_sweep_for_each_index(db):
    db.sql("CREATE TABLE docs (id int)").watch(
        {"table": "docs", "key": ("id",)}, {"table": "docs", "keys": "SELECT id FROM changed"}
    )
    db.watch({"table": "docs", "key": ("id",)}, name="other")
    with db.conn.raw.transaction():
        db.sql("INSERT INTO docs VALUES (1)", "TRUNCATE docs", "TRUNCATE docs")
    sweeps = db.tasks("index_name, payload ->> 'reason', priority", "sweep")
    assert sorted(sweeps) == [("docs", "truncate", 0), ("other", "truncate", 0)]
    db.sql("TRUNCATE docs")
    assert len(db.tasks("id", "sweep")) == 4


def test_a_truncate_rolled_back_to_a_savepoint_does_not_hide_the_next(db):
    """C3: the flag that keeps sweeps apart dies with the savepoint that set it."""
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",)})
    db.sql("BEGIN", "SAVEPOINT s", "TRUNCATE docs", "ROLLBACK TO s", "TRUNCATE docs", "COMMIT")
    assert len(db.tasks("id", "sweep")) == 1


# Writers (P5, C5) ------------------------------------------------------------------------------------------------------


def test_an_application_without_rights_on_our_tables_writes(shop, unique_name):
    """C5: SECURITY DEFINER."""
    market = Captured(shop)
    market.watch(*SHOP_WATCHES, name="marketplace_listings")
    market.sql(
        f"CREATE ROLE {unique_name} LOGIN",
        f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO {unique_name}",
        f"REVOKE ALL ON opensearch_indexing_queue, opensearch_indexing_watches FROM {unique_name}",
    )
    try:
        with psycopg.connect(make_conninfo(shop, user=unique_name)) as application:
            application.execute("UPDATE listings SET price = 4 WHERE id = 1")
            application.execute("UPDATE categories SET name = 'n' WHERE id = 1")
            with pytest.raises(psycopg.errors.InsufficientPrivilege), application.transaction():
                application.execute("SELECT * FROM opensearch_indexing_queue")
        assert market.ids() == each_once(1)
    finally:
        market.sql(f"DROP OWNED BY {unique_name}", f"DROP ROLE {unique_name}")
        market.conn.close()


def test_two_transactions_that_touch_children_of_one_parent_do_not_wait_for_each_other(market):
    """P5: appended, never upserted."""
    with psycopg.connect(market.url) as one, psycopg.connect(market.url) as two:
        two.execute("SET lock_timeout = '2s'")
        one.execute("INSERT INTO listing_attributes (listing_id, name, value) VALUES (1, 'a', 'b')")
        two.execute("UPDATE listing_images SET url = 'x' WHERE listing_id = 1")
        two.commit()
        one.commit()
    assert market.ids() == Counter({"1": 2})


def test_concurrent_writers_all_leave_their_tasks(market):
    def write(number: int) -> None:
        with psycopg.connect(market.url, autocommit=True) as connection:
            for turn in range(20):
                connection.execute("UPDATE listings SET stock = stock + 1 WHERE id = %s", (number * 20 + turn + 1,))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert market.ids() == each_once(*range(1, 81))
