"""A read that takes too long is made smaller, and one document that is too slow by itself is a letter: nothing loops in silence."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from idxctl.postgres.connect import Pool
from support.rig import ITEMS_DOCUMENT, Rig

SLOW = ITEMS_DOCUMENT.replace("'name', i.name", "'name', slowly(i.name)")
SLOWLY = """
CREATE FUNCTION slowly(name text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM pg_sleep(CASE name WHEN 'slow' THEN 60 WHEN 'plain' THEN 0 ELSE 0.05 END);
    RETURN name;
END $$
"""


@pytest.fixture
def slow(untriggered: Rig) -> Rig:
    """Twenty documents whose definition sleeps 50 ms for each, in a database that ends statements after 300."""
    untriggered.sql(f"ALTER DATABASE {untriggered.application.info.dbname} SET statement_timeout = '300ms'")
    untriggered.sql(SLOWLY)
    untriggered.configure(document=SLOW)
    untriggered.sql(
        "UPDATE opensearch_indexing_generations SET definition = jsonb_set(definition, '{document}', to_jsonb(%s::text))", SLOW.strip()
    )  # fmt: skip
    untriggered.pool.drop()
    return untriggered


def test_the_limit_of_a_role_does_not_end_a_read(slow: Rig):
    slow.enqueue(*range(1, 21))
    slow.sql("SET statement_timeout = 0")
    slow.sql("UPDATE items SET price = '7'")
    slow.hand().step()
    assert (slow.queued(), slow.in_flight(), slow.letters()) == (0, 0, {})
    assert slow.document(20)["price"] == "7"


def test_a_batch_that_takes_too_long_is_read_in_smaller_parts_and_said(slow: Rig, caplog):
    slow.sql("SET statement_timeout = 0")
    slow.sql("UPDATE items SET price = '8'")
    slow.enqueue(*range(1, 21))
    with caplog.at_level(logging.INFO, logger="idxctl.worker"):
        slow.hand(age_limit_seconds=1.5).rest()
    assert (slow.letters(), {slow.document(one)["price"] for one in range(1, 21)}) == ({}, {"8"})
    assert "slow" in [getattr(record, "fact", "") for record in caplog.records]


def test_one_document_that_is_too_slow_is_a_letter_and_stops_no_other(slow: Rig):
    slow.sql("SET statement_timeout = 0")
    slow.sql("UPDATE items SET price = '9', name = CASE id WHEN 7 THEN 'slow' ELSE 'plain' END")
    slow.enqueue(*range(1, 21))
    slow.hand(age_limit_seconds=3.0, max_attempts=1).rest()
    assert list(slow.letters()) == ["7"]
    assert slow.letters()["7"][0] == "sql_57014"
    assert {slow.document(one)["price"] for one in range(1, 21) if one != 7} == {"9"}


def test_a_read_that_waits_for_a_lock_charges_no_document(slow: Rig):
    slow.sql("SET statement_timeout = 0")
    slow.enqueue(1, 2)
    slow.sql("UPDATE items SET name = 'plain'")
    with slow.application.transaction():
        slow.sql("LOCK TABLE items")
        slow.hand(age_limit_seconds=1.5).step()
    assert slow.letters() == {}
    assert slow.one("SELECT max(attempts) FROM opensearch_indexing_queue") == 0


def test_a_rebuild_reads_what_is_slow_in_smaller_parts(slow: Rig):
    slow.sql("SET statement_timeout = 0")
    slow.sql("UPDATE items SET name = CASE WHEN id = 7 THEN 'slow' WHEN id < 10 THEN name ELSE 'plain' END")
    slow.settings = replace(slow.settings, worker=replace(slow.settings.worker, age_limit_seconds=1.5))
    slow.pool = Pool(replace(slow.settings.database, read_timeout_seconds=0.5))
    done = slow.reindex(max_failures="1")
    assert (done.swapped, done.failed) == (True, 1)
    assert list(slow.letters()) == ["7"]
