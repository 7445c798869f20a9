"""T2: no token is drawn twice, also when PostgreSQL crashes a moment later."""

import pytest

from idxctl.embedded.postgres import Postgres
from idxctl.queue import claim
from idxctl.rebuild.backfill import Backfill
from idxctl.worker.written import Learnt, Limits
from support.rig import ITEMS_SCHEMA, Rig, write_items


@pytest.fixture
def fragile(tmp_path, migrate, opensearch_url, unique_name):
    """A PostgreSQL of the test's own whose commits are not durable unless somebody asks for it, and a rig on it."""
    settings = {"synchronous_commit": "off", "wal_writer_delay": "10s", "autovacuum": "off"}
    with Postgres(tmp_path / "postgres", settings=settings) as server:
        migrate(server.url)
        write_items(tmp_path / "items", unique_name)
        rig = Rig(server.url, opensearch_url, unique_name, tmp_path / "items")
        rig.sql(ITEMS_SCHEMA)
        rig.watch()
        rig.reindex()
        rig.sql("CHECKPOINT")
        yield server, rig
        rig.close()


def crash(server, rig):
    server.stop("immediate")
    server.start()
    again = Rig(rig.database, rig.opensearch, rig.index, rig.directory)
    rig.close()
    return again


def last_drawn(rig):
    return rig.one("SELECT last_value FROM opensearch_indexing_token")


def test_the_token_of_a_claim_survives_a_crash_of_the_server(fragile):
    server, rig = fragile
    rig.sql("SET synchronous_commit = on")
    for _ in range(40):  # beyond the 32 numbers that a sequence logs ahead
        rig.enqueue(1)
        taken = claim.claim(rig.conn, index=rig.index, priority=0, worker="h:1:x", limit=10, lease_seconds=30)
    again = crash(server, rig)
    assert last_drawn(again) >= taken.batch.token
    assert again.one("SELECT count(*) FROM opensearch_indexing_inflight WHERE token = %s", taken.batch.token) == 1
    again.close()


def test_the_token_of_a_chunk_survives_a_crash_of_the_server(fragile):
    server, rig = fragile
    run = rig.one(
        "INSERT INTO opensearch_indexing_reindex_runs (index_name, state, owner) VALUES (%s, 'backfilling', 'me') RETURNING id",
        rig.index,
    )
    rig.sql(
        "INSERT INTO opensearch_indexing_reindex_chunks (run, number) SELECT %s, i FROM generate_series(1, 40) i", run
    )
    fill = Backfill(rig.pool, rig.client, rig.register(), run, "me", limits=Limits(), learnt=Learnt(), readers=1)
    chunks = [fill._take() for _ in range(40)]
    again = crash(server, rig)
    assert last_drawn(again) >= chunks[-1].token
    again.close()
