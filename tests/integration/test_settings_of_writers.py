"""
What the application's session is set to changes nothing that its writes leave behind, wherever it was set.

The writes go through our triggers and functions, which run inside that session. Everything they leave (tasks with what they
carry, letters with their groups, notes of the audit) is compared with what the same writes leave under no setting at all.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from datetime import datetime, timezone
from typing import Any

import psycopg
import pytest
from psycopg import sql

from idxctl.postgres import migrate
from support.rig import Rig
from support.settings import SETTINGS

SCHEMA = """
CREATE TABLE cats (id int PRIMARY KEY, name text, since timestamptz, born date, span interval, raw bytea, f float8, r real,
    price money, n numeric, tags text[], flag bool, doc xml, body jsonb, days daterange);
CREATE TABLE ev (id int PRIMARY KEY, cat int, day date);
CREATE TABLE logs (id int PRIMARY KEY, code text, at timestamptz, span interval, raw bytea, f float8,
    n numeric DEFAULT 1234.5);
CREATE TABLE moves (id int, region int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE moves_1 PARTITION OF moves FOR VALUES IN (1);
CREATE TABLE moves_2 PARTITION OF moves FOR VALUES IN (2);
"""
ROWS = r"""
SET session_replication_role = replica;
TRUNCATE cats, ev, logs, moves;
INSERT INTO cats VALUES (2, 'd');
INSERT INTO cats VALUES (1, E'c\\d "e" ''f''', '2020-01-31 10:00+00', '2020-01-31', '1 day 2 hours -3 mins', '\x00ff5c27', 0.1::float8 + 0.2,
    0.1, 1234.5, 1.50, ARRAY['a', NULL, 'NULL', E'\\'], true, NULL, '{"a": [1, null]}', '[2020-01-01,2020-02-01)');
INSERT INTO ev SELECT i, i % 2 + 1, '2024-01-31' FROM generate_series(1, 5) i;
INSERT INTO logs VALUES (1, E'a\\7', '2024-01-31 10:00+00', '1 day 2 hours', '\x00ff5c27', 0.1::float8 + 0.2);
INSERT INTO moves VALUES (1, 1), (2, 1);
TRUNCATE opensearch_indexing_queue, opensearch_indexing_dlq;
DELETE FROM opensearch_indexing_audit;
RESET session_replication_role;
"""
TOML = r"""
[indexes.NAME]
document = "document.sql"
mapping = "mapping.json"
[[indexes.NAME.watch]]
table = "ev"
key = "id"
ignore = ["cat"]
[[indexes.NAME.watch]]
table = "cats"
keys = '''SELECT e.id FROM ev e JOIN changed c ON e.cat = c.id WHERE (c.name, c.since, c.born, c.span, c.f, c.r, c.price, c.n,
    c.tags, c.flag, c.doc::text, c.body, c.days) IS NOT NULL'''
[[indexes.NAME.watch]]
table = "logs"
key_sql = '''length(regexp_replace(code, '\d', 'xx'))'''
[[indexes.NAME.watch]]
table = "logs"
key_sql = '''concat_ws('|', at, at::date, span, raw, f, to_char(n, 'L9D9'), n::money, to_char(at, 'TMMonth'))'''
[[indexes.NAME.watch]]
table = "moves"
key = "id"
"""
# As programs of a team write: statements of LEGACY's kind, an ORM's, a person's at psql.
WRITES = r"""
BEGIN READ WRITE;
UPDATE ev SET day = day + 1 WHERE id < 3;
UPDATE ev SET cat = 1 WHERE id = 4;
INSERT INTO ev VALUES (6, 1, '2024-02-28') ON CONFLICT (id) DO UPDATE SET day = excluded.day;
DELETE FROM ev WHERE id = 5;
UPDATE cats SET name = name || '!';
UPDATE logs SET code = code || code;
UPDATE moves SET region = 2 WHERE id = 1;
MERGE INTO moves m USING (VALUES (2)) v (id) ON m.id = v.id WHEN MATCHED THEN UPDATE SET region = 2;
TRUNCATE logs;
SELECT public.opensearch_indexing_enqueue('NAME', '15');
SELECT public.opensearch_indexing_enqueue('NAME', 'a' || chr(92) || 'b', 'delete', 5);
SELECT public.opensearch_indexing_enqueue('NAME', i::text) FROM generate_series(20, 22) i;
INSERT INTO public.opensearch_indexing_dlq (index_name, document_id, action, last_error)
    VALUES ('NAME', '3', 'index', 'a ''number'' 17 [x] "y" ' || chr(92) || '[z');
INSERT INTO public.opensearch_indexing_dlq (listing_id, action, last_error, attempts) VALUES (-4, 'delete', 'Connection [a] refused 10', 3);
UPDATE public.opensearch_indexing_dlq SET last_error = 'other [a, b] "c" 5' WHERE listing_id = 3;
COMMIT;
"""
MORE = [
    ("client_encoding", "LATIN1"),
    ("client_encoding", "SQL_ASCII"),
    ("exit_on_error", "on"),
    ("plan_cache_mode", "force_generic_plan"),
    ("plan_cache_mode", "force_custom_plan"),
    ("gin_fuzzy_search_limit", "1"),
    ("xmlbinary", "hex"),
    ("lc_messages", "C"),
    ("plpgsql.variable_conflict", "use_column"),
    ("plpgsql.extra_warnings", "all"),
    ("plpgsql.print_strict_params", "on"),
    ("track_activities", "off"),
    ("default_toast_compression", "pglz"),
    ("parallel_setup_cost", "0"),
    ("enable_hashjoin", "off"),
    ("enable_hashagg", "off"),
    ("enable_sort", "off"),
    ("cursor_tuple_fraction", "0.01"),
    ("search_path", "pg_temp, public, pg_catalog"),
    ("opensearch_indexing.moving", "7"),
    ("opensearch_indexing.moving", "none"),
]


@pytest.fixture
def writers(database, opensearch_url, unique_name, tmp_path):
    """A database with triggers, and a role that may write its tables and idxctl's as an application does."""
    (tmp_path / "document.sql").write_text("SELECT id AS document_id, to_jsonb(e) AS document FROM ev e")
    (tmp_path / "mapping.json").write_text("{}")
    (tmp_path / "idxctl.toml").write_text(TOML.replace("NAME", unique_name))
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(SCHEMA)
    rig = Rig(database, opensearch_url, unique_name, tmp_path)
    migrate.up(rig.conn)
    rig.watch()
    role = sql.Identifier(unique_name)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            sql.SQL(
                """
                CREATE ROLE {0} LOGIN PASSWORD 'x';
                GRANT ALL ON cats, ev, logs, moves TO {0};
                GRANT ALL ON opensearch_indexing_dlq TO {0};
                GRANT EXECUTE ON FUNCTION opensearch_indexing_enqueue(text, text, text, int, timestamptz) TO {0};
                INSERT INTO opensearch_indexing_settings VALUES ('default_index', {1});
                """
            ).format(role, sql.Literal(unique_name))
        )
    yield rig
    rig.close()
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


def as_writer(rig: Rig, options: str = "") -> str:
    parts = urllib.parse.urlsplit(rig.database)
    where = f"{rig.index}:x@{parts.hostname}:{parts.port}"
    query = urllib.parse.urlencode({"options": options}, quote_via=urllib.parse.quote) if options else ""
    return parts._replace(netloc=where, query=query).geturl()


def left_behind(rig: Rig, url: str) -> dict[str, list[object]]:
    """Write as the application does over *url*; return all that idxctl's tables hold then, but for times and numbers."""
    with psycopg.connect(rig.database, autocommit=True) as admin:
        admin.execute(
            "SET default_transaction_read_only = off; SET standard_conforming_strings = on; SET search_path = public"
        )
        admin.execute(ROWS)
        with psycopg.connect(url, autocommit=True) as writer:
            for statement in filter(str.strip, WRITES.replace("NAME", rig.index).split(";\n")):
                writer.execute(statement)
        rows = {
            table: admin.execute(
                f"SELECT to_jsonb(t) - %s::text[] FROM opensearch_indexing_{table} t", (list(but),)
            ).fetchall()
            for table, but in (
                ("queue", ("id", "available_at", "enqueued_at")),
                ("dlq", ("id", "created_at", "last_attempt_at")),
                ("audit", ("id", "at")),
            )
        }
    return {table: sorted((_moments_alike(row[0]) for row in found), key=json.dumps) for table, found in rows.items()}


def _moments_alike(value: Any) -> Any:
    """Return a row with moments in one time zone: which one they are written in says nothing."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+[+-]\d\d:\d\d", value):
        return datetime.fromisoformat(value).astimezone(timezone.utc).isoformat()
    if isinstance(value, dict):
        return {name: _moments_alike(item) for name, item in value.items()}
    return [_moments_alike(item) for item in value] if isinstance(value, list) else value


def as_options(name: str, value: str) -> str:
    return f"-c {name}={value}".replace("\\", "\\\\").replace(" ", "\\ ").replace("-c\\ ", "-c ")


def setting_of(what: str, whom: str, name: str, value: str) -> sql.Composed:
    listed = sql.SQL(", ").join(map(sql.Literal, value.split(", "))) if name == "search_path" else sql.Literal(value)
    dotted = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
    return sql.SQL("ALTER {} {} SET {} = {}").format(sql.SQL(what), sql.Identifier(whom), dotted, listed)


@pytest.mark.parametrize("way", ["database", "role", "connection"])
def test_what_a_session_is_set_to_changes_nothing_that_its_writes_leave(writers, way: str):
    rig = writers
    plain = left_behind(rig, as_writer(rig))
    assert len(plain["queue"]) > 15
    assert len({row["fingerprint"] for row in plain["dlq"]}) == 2
    database = rig.application.info.dbname
    differ = {}
    with psycopg.connect(rig.database, autocommit=True) as admin:
        for name, value in SETTINGS + MORE:
            options = as_options(name, value) if way == "connection" else ""
            if way != "connection":
                whom = database if way == "database" else rig.index
                admin.execute(setting_of(way, whom, name, value))
            elif name.startswith("plpgsql.") or name in {"lc_messages", "track_activities", "lo_compat_privileges"}:
                continue  # a superuser's to set
            try:
                found = left_behind(rig, as_writer(rig, options))
            except psycopg.Error as error:
                differ[name, value] = f"{type(error).__name__}: {error}"
            else:
                if found != plain:
                    differ[name, value] = {
                        table: (
                            [row for row in plain[table] if row not in rows],
                            [row for row in rows if row not in plain[table]],
                        )
                        for table, rows in found.items()
                        if rows != plain[table]
                    }
            if way != "connection":
                admin.execute(sql.SQL("ALTER {} {} RESET ALL").format(sql.SQL(way), sql.Identifier(whom)))
    assert not differ, "\n".join(f"{name} = {value}: {what}" for (name, value), what in differ.items())


def test_a_function_of_ours_that_holds_a_backslash_says_how_it_is_read(writers):
    """Also those of releases to come: what such a body means would rest on the session that calls it."""
    found = writers.application.execute(
        """
        SELECT proname, proconfig FROM pg_proc
        WHERE proname LIKE 'opensearch\\_indexing\\_%' AND strpos(prosrc, chr(92)) > 0
        """
    ).fetchall()
    assert {name for name, _ in found} >= {"opensearch_indexing_dlq_group", "opensearch_indexing_audit_write"}
    assert [name for name, config in found if "standard_conforming_strings=on" not in config] == []
