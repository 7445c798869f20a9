"""
No look-alike of a function or operator runs as idxctl's owner, its worker, an operator or the application: the whole life of
two indexes in a database whose schema public holds better matches for all that idxctl's SQL mentions.
"""

from __future__ import annotations

import json

import psycopg
import pytest

from idxctl import Indexer
from idxctl.config.settings import DatabaseSettings
from idxctl.core.secret import Secret
from idxctl.postgres import migrate, pinned
from idxctl.postgres.connect import connect
from support import lookalikes

SHOP = """
CREATE TABLE public.shops (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE public.goods (id bigint PRIMARY KEY, name text NOT NULL, shop bigint NOT NULL, ends timestamptz);
CREATE TABLE public.orders (tenant int, seq uuid, lines text NOT NULL, PRIMARY KEY (tenant, seq));
INSERT INTO public.shops SELECT i, i::text FROM generate_series(1, 3) i;
INSERT INTO public.goods SELECT i, 'good', i % 3 + 1, now() - interval '1 hour' FROM generate_series(1, 50) i;
INSERT INTO public.orders SELECT i % 3, md5(i::text)::uuid, '{}' FROM generate_series(1, 50) i;
CREATE INDEX ON public.goods (shop);
"""
# The application's own SQL sees the look-alikes, as any program of the application's would: it is careful here.
GOODS = """
SELECT g.id AS document_id, pg_catalog.jsonb_build_object('name', g.name, 'shop', s.name) AS document
FROM goods g JOIN shops s ON s.id OPERATOR(pg_catalog.=) g.shop
"""
ORDERS = "SELECT o.tenant, o.seq, o.lines::json AS document FROM orders o"
MAPPING = {"mappings": {"dynamic": "strict", "properties": {"name": {"type": "keyword"}, "shop": {"type": "integer"}}}}
CONFIG = """
[indexes.NAME]
document = "goods.sql"
mapping = "mapping.json"
[[indexes.NAME.watch]]
table = "goods"
key = "id"
at = "ends"
[[indexes.NAME.watch]]
table = "shops"
keys = "SELECT g.id FROM goods g JOIN changed c ON g.shop OPERATOR(pg_catalog.=) c.id"

[indexes.NAME_orders]
document = "orders.sql"
mapping = "mapping.json"
key = ["tenant", "seq"]
routing = "pg_catalog.left(document_id, 1)"
[[indexes.NAME_orders.watch]]
table = "orders"
key = ["tenant", "seq"]
"""


@pytest.fixture
def shop(database, unique_name, tmp_path):
    """The shop's tables, and a configuration for them; idxctl is not there yet."""
    (tmp_path / "goods.sql").write_text(GOODS)
    (tmp_path / "orders.sql").write_text(ORDERS)
    (tmp_path / "mapping.json").write_text(json.dumps(MAPPING))
    (tmp_path / "idxctl.toml").write_text(CONFIG.replace("NAME", unique_name))
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(SHOP)
    return tmp_path / "idxctl.toml"


@pytest.fixture
def application(database):
    """A session of the application's; its own statements name what they mean."""
    with psycopg.connect(database, autocommit=True, options="-c search_path=pg_catalog") as conn:
        yield conn


def test_a_look_alike_would_be_called_by_sql_that_is_not_pinned(database, shop):
    """That the others can fail."""
    lookalikes.plant(database)
    for careless in ("to_json('a'::text)", "sign(1)", "1.5 * 2", "array_agg('a'::text)", "2::numeric IN (1)"):
        with psycopg.connect(database) as conn, pytest.raises(psycopg.errors.RaiseException, match="look-alike"):
            conn.execute(f"SELECT {careless}".encode())
    assert lookalikes.fired(database)


def test_a_migration_into_another_schema_calls_none(database):
    lookalikes.plant(database)
    with connect(DatabaseSettings(url=Secret(database), schema="idxctl")) as conn:
        migrate.up(conn, default_index="goods")
        migrate.status(conn)
        migrate.up(conn, repair=True)
        migrate.down(conn, to=0)
    assert not lookalikes.fired(database)


def test_an_upgrade_over_them_calls_none(database):
    with connect(DatabaseSettings(url=Secret(database))) as conn:
        migrate.up(conn, to=2)
        lookalikes.plant(database)
        migrate.up(conn)
    assert not lookalikes.fired(database)


def test_no_statement_of_a_whole_life_calls_one(database, shop, application, idxctl, opensearch_url, unique_name):
    idxctl.use(database=database, opensearch=opensearch_url, config=shop)
    goods, orders = unique_name, f"{unique_name}_orders"

    def runs(*command: str, status: int = 0) -> str:
        done = idxctl(*command)
        assert "look-alike" not in done.stderr + done.stdout, command
        assert done.status == status, (command, done.stdout, done.stderr)
        assert not lookalikes.fired(database), command
        return done.stdout

    assert idxctl("migrate", "up").status == 0
    lookalikes.plant(database)
    runs("migrate", "status")
    runs("config", "validate")
    runs("watch", "install")
    runs("watch", "status")
    runs("watch", "sql")
    runs("reindex")
    application.execute("UPDATE public.goods SET name = 'new' WHERE id < 20; DELETE FROM public.goods WHERE id = 50")
    application.execute(
        "UPDATE public.shops SET name = '4' WHERE id = 1; UPDATE public.shops SET name = 'closed' WHERE id = 2"
    )
    application.execute(
        'UPDATE public.orders SET lines = \'{"name": "n"}\'; DELETE FROM public.orders WHERE tenant = 2'
    )
    application.execute("UPDATE public.goods SET ends = now() - interval '1 second' WHERE id = 3")
    application.execute(
        "SELECT public.opensearch_indexing_enqueue(%s, i::text) FROM generate_series(1, 60) i", (goods,)
    )
    assert json.loads(runs("queue", "stats", "-o", "json"))["queued"] > 0
    runs("queue", "list")
    runs("worker", "start", "--until-empty")
    (letter, *_) = json.loads(runs("dlq", "list", "-o", "json"))
    assert json.loads(runs("dlq", "stats", "-o", "json"))["total"] > 0
    runs("dlq", "show", str(letter["id"]))
    application.execute("UPDATE public.shops SET name = '5' WHERE id = 2")
    runs("dlq", "retry", "--limit", "100")
    application.execute("UPDATE public.shops SET name = 'closed' WHERE id = 2")
    runs("queue", "add", "--index", goods, "--where", "document_id OPERATOR(pg_catalog.<) 10::bigint")
    runs("queue", "add", "--index", goods, "1", "2", "no number")
    runs("queue", "add", "--index", orders, "--all")
    runs("worker", "start", "--until-empty")
    runs("dlq", "purge", "--older-than", "0s", "--yes")
    runs("pause", "--index", goods, "--reason", "a test")
    runs("worker", "list")
    runs("resume", "--index", goods)
    application.execute("UPDATE public.shops SET name = '6' WHERE id = 2; TRUNCATE public.orders")
    runs("worker", "start", "--until-empty")
    runs("reindex", "--index", goods)
    runs("watch", "remove", "--yes")
    runs("queue", "stats")


def test_an_application_that_indexes_in_its_own_transaction_calls_none(
    database, shop, idxctl, opensearch_url, unique_name, monkeypatch
):
    idxctl.use(database=database, opensearch=opensearch_url, config=shop)
    idxctl("migrate", "up")
    idxctl("reindex")
    lookalikes.plant(database)
    monkeypatch.setenv("IDXCTL_DATABASE_URL", database)
    monkeypatch.setenv("IDXCTL_OPENSEARCH_URL", opensearch_url)
    indexer = Indexer.from_config(shop)
    try:
        with psycopg.connect(database) as conn, indexer.transaction(conn):
            indexer.index(unique_name, "1", connection=conn)
            indexer.delete(unique_name, "no number", connection=conn)
        with psycopg.connect(database, autocommit=True) as conn:
            indexer.index_many(f"{unique_name}_orders", ["1:no uuid"], connection=conn)
        indexer.status()
    finally:
        indexer.shutdown()
    assert not lookalikes.fired(database)


def test_without_the_pin_they_would_have_been_called(database, monkeypatch):
    with connect(DatabaseSettings(url=Secret(database))) as conn:
        migrate.up(conn)
        lookalikes.plant(database)
        monkeypatch.setattr(pinned, "pin_single", lambda *_, **__: ("SELECT 1",))
        with pytest.raises(Exception, match="look-alike"):
            migrate.status(conn)
    assert lookalikes.fired(database)
