"""Whatever a database, a role or a connection string sets: every command works, and documents are what the application sees."""

from __future__ import annotations

import urllib.parse
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from idxctl import dlq
from idxctl.capture.status import status
from idxctl.postgres import migrate
from idxctl.queue import stats
from idxctl.queue.add import add_documents
from idxctl.status import gauges
from support import judge
from support.rig import Rig
from support.settings import SETTINGS

pytestmark = pytest.mark.sampled

SCHEMA = """
CREATE TABLE cats (id int PRIMARY KEY, name text, since timestamptz);
CREATE TABLE ev (id bigint PRIMARY KEY, at timestamptz, span interval, raw bytea, f float8, price money, day date, cat int, n int, tags text[]);
INSERT INTO cats VALUES (1, 'c', '2020-01-01'), (2, 'd', NULL);
INSERT INTO ev SELECT i, '2024-01-31 10:00+00'::timestamptz + i * interval '1 day', '1 day 2 hours', '\\xdeadbeef', 0.1::float8 + 0.2, 12.5,
    '2024-01-31', 1, NULL, ARRAY['a', NULL] FROM generate_series(1, 20) i;
"""
DOCUMENT = """
SELECT e.id AS document_id, to_jsonb(e) || jsonb_build_object('cat', (SELECT to_jsonb(c) FROM cats c WHERE c.id = e.cat),
    'label', e.at::text, 'span2', e.span::text, 'day2', e.day::text, 'price2', e.price::text, 'raw2', e.raw::text, 'f2', e.f::text,
    'unset', e.n = NULL, 'esc', 'a\\tb', 'lex', to_tsvector('running houses')::text, 'tags2', e.tags::text,
    'list', '{a,NULL}'::text[], 'month', to_char(e.at, 'TMMonth'), 'named', quote_ident('plain')) AS document FROM ev e
"""
TOML = """
[indexes.NAME]
document = "document.sql"
mapping = "mapping.json"
[[indexes.NAME.watch]]
table = "ev"
key = "id"
ignore = ["n"]
[[indexes.NAME.watch]]
table = "cats"
keys = "SELECT e.id FROM ev e JOIN changed c ON e.cat = c.id WHERE c.since IS NOT NULL"
"""


@pytest.fixture
def rig(database, opensearch_url, unique_name, tmp_path):
    """A function that makes everything over a URL that says how to connect."""
    made = []

    def make(url: str = database) -> Rig:
        directory = tmp_path / f"at{len(made)}"
        directory.mkdir()
        (directory / "document.sql").write_text(DOCUMENT)
        (directory / "mapping.json").write_text('{"mappings": {"dynamic": false}}')
        (directory / "idxctl.toml").write_text(TOML.replace("NAME", unique_name))
        made.append(Rig(url, opensearch_url, unique_name, directory))
        return made[-1]

    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(SCHEMA)
    yield make
    for one in made:
        one.close()


def unhurried(url: str) -> str:
    """The same database, for a judge that may take its time."""
    parts = urllib.parse.urlsplit(url)
    more = urllib.parse.urlencode({"options": "-c statement_timeout=0"}, quote_via=urllib.parse.quote)
    return parts._replace(query="&".join(filter(None, [parts.query, more]))).geturl() if "options" not in url else url


def set_for_database(url: str, name: str, value: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        listed = (
            sql.SQL(", ").join(map(sql.Literal, value.split(", "))) if name == "search_path" else sql.Literal(value)
        )
        admin.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(sql.Identifier(admin.info.dbname), sql.SQL(name), listed)
        )


def a_whole_life(rig: Rig) -> None:
    """Migrate, capture, build, write, work, retry, list, rebuild; then every document is its row."""
    migrate.up(rig.conn)
    rig.watch()
    rig.reindex()
    rig.application.execute(
        "BEGIN READ WRITE; UPDATE ev SET day = '2024-02-01', f = f / 3 WHERE id < 10; UPDATE cats SET name = 'changed'; "
        f"SELECT opensearch_indexing_enqueue('{rig.index}', '15'); "
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, last_error, created_at) "
        f"VALUES ('{rig.index}', '3', 'index', 'a ''number'' 17 [x]', '2024-02-01 00:00+00'); COMMIT"
    )
    assert {task.document_id for task in stats.every_task(rig.conn)} >= {"1", "9", "15"}
    assert stats.stats(rig.conn).queued >= 10
    (letter,) = dlq.letters(rig.conn, dlq.Selection(), limit=5)
    assert (letter.created_at.timestamp(), dlq.stats(rig.conn).total) == (1706745600, 1)
    gauges.read(rig.conn, rig.settings)
    assert {one.state for one in status(rig.conn, rig.settings.indexes)} == {"ok"}
    done = dlq.retry(
        rig.pool, lambda: rig.client, rig.settings, dlq.Selection(), limit=5, wait=True, timeout=timedelta(seconds=30)
    )
    assert done.retried == 1
    assert (
        add_documents(
            rig.conn, rig.settings, rig.index, ids=None, where="document_id = 4", priority="normal", dry_run=False
        )
        == 1
    )
    rig.drain()
    assert rig.letters() == {}
    assert differences(rig) == []
    assert rig.reindex().swapped


def differences(rig: Rig) -> list[str]:
    return judge.differences(unhurried(rig.database), rig.query, rig.opensearch, rig.index)


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_any_setting_of_the_database_is_lived_with(rig, database, name: str, value: str):
    set_for_database(database, name, value)
    a_whole_life(rig())
