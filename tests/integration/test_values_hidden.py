"""[log] values = false and [dlq] store = "none": what a letter, the queue and the log keep of people's data."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from idxctl.cli import log
from idxctl.core.reasons import Kind, Reason
from idxctl.postgres.connect import Pool
from idxctl.queue import rescue
from idxctl.worker.options import fact
from idxctl.worker.pool import Worker
from support.pages import take
from support.rig import until

SECRET = "jane.doe@example.com"


def everything(rig):
    """All that idxctl's own tables hold, but for definitions."""
    names = ("queue", "dlq", "inflight", "pauses", "generation_failures", "reindex_runs", "workers", "audit")
    return json.dumps(
        [rig.sql(f"SELECT to_jsonb(t)::text FROM opensearch_indexing_{name} t") for name in names], default=str
    )


@pytest.fixture
def hidden(items):
    items.settings = replace(
        items.settings, database=replace(items.settings.database, keep_values=False, keep_data=False)
    )
    items.pool.close()
    items.pool = Pool(items.settings.database)
    return items


def test_values_are_in_the_letter_by_default(items):
    items.sql("UPDATE items SET price = %s WHERE id = 1", SECRET)
    items.hand().rest()
    assert SECRET in everything(items)


def test_no_table_of_ours_holds_a_value_that_an_error_quotes(hidden, items):
    items.sql("UPDATE items SET price = %s WHERE id = 1", SECRET)
    hidden.hand().rest()
    ((reason, fingerprint),) = items.sql("SELECT last_error, fingerprint FROM opensearch_indexing_dlq")
    assert SECRET not in everything(items)
    assert "[price] of type" in reason
    items.sql("UPDATE items SET price = %s WHERE id = 2", SECRET + "x")
    hidden.hand().rest()
    assert {row[0] for row in items.sql("SELECT fingerprint FROM opensearch_indexing_dlq")} == {fingerprint}


def test_the_log_holds_none_either(items, idxctl):
    items.sql("UPDATE items SET price = %s WHERE id = 1", SECRET)
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    for shape in ("human", "json"):
        done = idxctl("worker", "start", "--until-empty", "--log-format", shape, env={"IDXCTL_LOG_VALUES": "false"})
        assert done.status == 0, done.stderr
        assert SECRET not in done.stderr
        items.enqueue(1)
    assert SECRET not in everything(items)


def test_a_heartbeat_holds_none_that_a_gateway_has_quoted(hidden, items):
    worker = Worker(items.pool, items.client, items.worker_options())
    worker.breaker.failed(Reason(Kind.UNREACHABLE, f'status 502, which says "{SECRET}"'))
    worker.keeper.beat(items.pool.mine(), "running")
    ((breaker,),) = items.sql("SELECT breaker->>'reason' FROM opensearch_indexing_workers")
    assert breaker == "status 502, which says …"


def test_what_keeps_a_batch_from_being_taken_back_is_kept_without_any(hidden, items):
    items.enqueue(1)
    take(items)
    items.sql("UPDATE opensearch_indexing_inflight SET lease_until = '-infinity'")
    items.sql(
        f"CREATE FUNCTION grudge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no {SECRET}'; END $$"
    )
    for table in ("queue", "dlq"):
        items.sql(
            f"CREATE TRIGGER grudge BEFORE INSERT ON opensearch_indexing_{table} FOR EACH ROW EXECUTE FUNCTION grudge()"
        )
    (held,) = until(lambda: rescue.rescue(items.pool.mine(), max_attempts=3), "nothing lapsed")
    assert held.stuck.sentence == "… [P0001]"
    assert SECRET not in everything(items)


def test_a_fact_of_any_name_holds_none(capsys):
    log.configure(log.LogFormat.JSON, values=False)
    for name in ("stuck", "repeats", "settings", "one that comes later"):
        fact(name, f'it is refused: "{SECRET}"', reason=f'refused: "{SECRET}"')
    told = capsys.readouterr().err
    assert SECRET not in told
    assert told.count("it is refused: …") == 4


def test_data_of_an_older_program_is_not_kept_beyond_a_retry(hidden, items, idxctl):
    items.sql("UPDATE items SET price = 'dear' WHERE id = 1")
    hidden.hand().rest()
    items.sql("UPDATE opensearch_indexing_dlq SET data = %s::jsonb", json.dumps({"email": SECRET}))
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    done = idxctl("dlq", "retry", env={"IDXCTL_DLQ_STORE": "none"})
    assert done.status == 3, done.stderr
    assert items.sql("SELECT data FROM opensearch_indexing_dlq") == [(None,)]
