"""`queue add`: documents by id or by a condition, which is one expression, reads only, and sees every row or says so."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from idxctl.core.errors import ConfigError, DocumentError, IdxctlError, PostgresRefused, UsageError, WaitTimeout
from idxctl.indexes.definitions import define
from idxctl.queue.add import add_documents

ESCAPES = {
    "a second statement": "true); CREATE TABLE planted (); SELECT (1",
    "a second statement and a comment": "true); CREATE TABLE planted (); --",
    "a commit": "true) TO STDOUT; COMMIT; CREATE TABLE planted (); COPY (SELECT (1",
    "a bracket that closes ours": "false) UNION SELECT '7' WHERE (true",
    "a bracket behind a comment": "false /* ( */ ) UNION SELECT '7' WHERE ( /* ) */ true",
    "a bracket behind a dollar quote": "'$$(' = $$'$$) UNION SELECT '7' WHERE ($$'$$ = ''",
    "a comment that takes our bracket": "true --",
    "a comment without an end": "true /*",
    "a quote without an end": "name = 'x",
    "a dollar quote without an end": "$$",
    "a semicolon": "true;",
    "a query": "true ORDER BY 1",
    "two values": "true, true",
    "nothing": " ",
}


def add(rig, where, **options):
    given = {"ids": None, "priority": "normal", "dry_run": False, **options}
    return add_documents(rig.conn, rig.settings, rig.index, where=where, **given)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    "where", [text for kind, text in ESCAPES.items() if kind != "a comment that takes our bracket"]
)
def test_a_condition_that_is_no_single_expression_is_refused(untriggered, where, dry_run):
    untriggered.sql("DELETE FROM opensearch_indexing_queue")
    with pytest.raises(UsageError, match="the condition does not run"):
        add(untriggered, where, dry_run=dry_run)
    assert untriggered.one("SELECT to_regclass('planted')") is None
    assert untriggered.queued() == 0


@pytest.mark.parametrize(
    "where", ["document_id > 15 -- ( ;", "document_id > /* ; ) */ 15", "$q$) ;$q$ <> '' AND document_id > 15"]
)
def test_comments_and_quotes_stay_inside_the_condition(untriggered, where):
    assert add(untriggered, where) == 5
    assert untriggered.queued() == 5


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_condition_that_writes_is_refused(untriggered, dry_run):
    untriggered.sql(
        "CREATE FUNCTION meddle() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN DELETE FROM items; RETURN true; END $$"
    )
    with pytest.raises(UsageError, match="read-only transaction"):
        add(untriggered, "meddle()", dry_run=dry_run)
    with pytest.raises(UsageError, match="read-write mode"):
        add(untriggered, "set_config('transaction_read_only', 'off', true) = 'off' AND meddle()", dry_run=dry_run)
    assert untriggered.one("SELECT count(*) FROM items") == 20


def test_a_condition_that_takes_too_long_enqueues_nothing(untriggered):
    with pytest.raises(WaitTimeout, match="not found within"):
        add(untriggered, "pg_sleep(600) IS NULL", time_limit=timedelta(milliseconds=50))
    assert untriggered.queued() == 0


@contextlib.contextmanager
def policy_against(rig, role):
    """*role* may use everything of idxctl and read the items, of which a policy hides all but nine."""
    with psycopg.connect(rig.database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        try:
            admin.execute("ALTER TABLE items ENABLE ROW LEVEL SECURITY; CREATE POLICY nine ON items USING (id <= 9)")
            for right in ("ALL ON ALL TABLES", "ALL ON ALL SEQUENCES", "EXECUTE ON ALL FUNCTIONS"):
                admin.execute(sql.SQL("GRANT {} IN SCHEMA public TO {}").format(sql.SQL(right), sql.Identifier(role)))
            yield
        finally:
            admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def test_a_policy_that_hides_rows_is_an_error_and_not_fewer_rows(untriggered, unique_name):
    with policy_against(untriggered, unique_name), untriggered.as_role(unique_name) as theirs:
        for where, dry_run in (("document_id > 0", True), ("document_id > 0", False), (None, False)):
            with pytest.raises(PostgresRefused, match="row-level security") as refused:
                add(theirs, where, dry_run=dry_run)
            assert "BYPASSRLS" in (refused.value.hint or "")
    assert untriggered.queued() == 0


def test_all_enqueues_every_row_and_a_sweep(untriggered):
    assert add(untriggered, None) == 20
    assert untriggered.sql("SELECT kind, count(*) FROM opensearch_indexing_queue GROUP BY kind ORDER BY kind") == [
        ("document", 20),
        ("sweep", 1),
    ]


def test_ids_with_what_copy_would_take_for_its_own_arrive_as_they_are(untriggered):
    untriggered.sql("CREATE TABLE odd (id text PRIMARY KEY)")
    odd = ["a\tb", "c\\N", "\\.", "d\ne", "\\N", "é"]
    untriggered.sql("INSERT INTO odd SELECT unnest(%s::text[])", odd)
    untriggered.configure(document="SELECT id AS document_id, '{}'::jsonb AS document FROM odd")
    untriggered.sql("DELETE FROM opensearch_indexing_generations")
    assert add(untriggered, "true") == len(odd)
    assert sorted(row[0] for row in untriggered.sql("SELECT document_id FROM opensearch_indexing_queue")) == sorted(odd)


@pytest.mark.parametrize(
    "document",
    [
        "SELECT 1 AS document_id, '{}'::jsonb AS document; DROP TABLE parts",
        "SELECT 1 AS document_id, '{}'::jsonb AS document) AS d; DROP TABLE parts; SELECT (1",
        "SELECT 1 AS document_id, '{}'::jsonb AS document) AS d, (SELECT 1",
        "WITH gone AS (DELETE FROM parts RETURNING 1) SELECT 1 AS document_id, '{}'::jsonb AS document FROM gone",
        "DELETE FROM parts RETURNING id AS document_id, '{}'::jsonb AS document",
    ],
)
def test_a_document_query_that_is_no_single_select_is_refused(untriggered, document):
    untriggered.configure(document=document)
    with pytest.raises(DocumentError, match="does not run"):
        define(untriggered.conn, untriggered.settings.indexes[untriggered.index])
    assert untriggered.one("SELECT count(*) FROM parts") == 20


def test_a_routing_that_closes_our_bracket_is_refused(untriggered):
    toml = untriggered.config.read_text().replace(
        "mapping =", 'routing = "1) FROM parts; DROP TABLE parts; SELECT (1"\nmapping =', 1
    )
    untriggered.configure(toml=toml)
    with pytest.raises(DocumentError, match="routing"):
        define(untriggered.conn, untriggered.settings.indexes[untriggered.index])
    assert untriggered.one("SELECT count(*) FROM parts") == 20


@pytest.mark.parametrize(
    ("was", "planted"),
    [
        ('key = "item_id"', 'key_sql = "item_id) FROM parts; COMMIT; DROP TABLE parts; SELECT (1"'),
        ('key = "item_id"', 'key_sql = "item_id) AS x, (1"'),
        ("ON i.category_id = c.id", ") AS k; COMMIT; DROP TABLE parts; SELECT FROM (SELECT 1"),
        ("ON i.category_id = c.id", "ON true) AS k, (SELECT 1"),
    ],
)
def test_a_watch_whose_sql_closes_our_bracket_is_refused(untriggered, was, planted):
    untriggered.configure(toml=untriggered.config.read_text().replace(was, planted))
    with pytest.raises(ConfigError):
        untriggered.watch()
    assert untriggered.one("SELECT count(*) FROM parts") == 20


def test_a_lookup_that_writes_changes_nothing_and_waits(items):
    items.sql(
        "CREATE FUNCTION meddle(bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN DELETE FROM parts; RETURN $1; END $$"
    )
    toml = items.config.read_text().replace("SELECT i.id FROM items i JOIN", "SELECT meddle(i.id) FROM items i JOIN")
    items.configure(toml=toml)
    items.watch()
    items.sql("UPDATE categories SET name = name || '!'")
    items.hand().step()
    assert items.one("SELECT count(*) FROM parts") == 20
    (error,) = {row[0] for row in items.sql("SELECT last_error FROM opensearch_indexing_queue WHERE kind = 'keys'")}
    assert "read-only transaction" in error


def test_errors_of_ids_are_ours(untriggered):
    with pytest.raises(IdxctlError):
        add(untriggered, None, ids=["1"], priority="urgent")
