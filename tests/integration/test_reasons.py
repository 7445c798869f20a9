"""Why something waits is data: what programs do with it hangs on no word of what people read."""

from __future__ import annotations

import pytest
from psycopg.types.json import Jsonb

from idxctl.core import metrics
from idxctl.core.reasons import Kind, Reason
from idxctl.queue import pause
from idxctl.rebuild import stuck
from support.rig import Rig

WORDINGS = {
    "as it is": None,
    "reworded": lambda _: "Es geht gerade nicht.",
    "as another": lambda why: f"{'x' * 50} (ffffff), sql_42703: {why.kind.name}",
}


@pytest.fixture(params=WORDINGS)
def wording(request, monkeypatch):
    """What decides must not notice how a reason is worded."""
    wording = WORDINGS[request.param]
    if wording is not None:
        monkeypatch.setattr(Reason, "sentence", property(wording))
    return request.param


def let_it_probe(items: Rig) -> None:
    items.sql("UPDATE opensearch_indexing_pauses SET probe_at = clock_timestamp()")
    items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")


def refuse_every_document(items: Rig) -> None:
    items.sql("INSERT INTO items (id, name) SELECT i, 'item ' || i FROM generate_series(21, 60) i")
    items.sql("""UPDATE items SET extra = '{"unknown": 1}'""")


@pytest.mark.usefixtures("wording")
def test_an_error_that_all_share_keeps_its_index_paused_until_a_probe_passes(items):
    refuse_every_document(items)
    items.hand().step()
    (held,) = pause.pauses(items.conn)
    assert (held.why.kind, held.why.error_type) == (Kind.REFUSED_ALIKE, "strict_dynamic_mapping_exception")
    let_it_probe(items)
    items.hand().step()  # of another process, which knows what is stored and no more
    assert items.letters() == {}
    (held,) = pause.pauses(items.conn)
    assert held.probes == 1
    items.sql("UPDATE items SET extra = '{}'")
    let_it_probe(items)
    items.hand().step()
    assert pause.pauses(items.conn) == []


@pytest.mark.usefixtures("wording")
def test_a_reindex_does_not_wait_for_an_index_that_waits_for_it(items):
    items.sql("ALTER TABLE items RENAME COLUMN price TO cost")
    items.sql("UPDATE items SET cost = '9'")
    items.hand().step()
    assert stuck.unreadable(items.conn, items.generation())
    items.configure(document=items.query.replace("i.price", "i.cost"))
    assert items.reindex().swapped
    items.drain()
    assert items.differences() == []


@pytest.mark.usefixtures("wording")
def test_what_is_put_back_is_counted_for_what_it_is(items):
    hand = items.hand()
    items.ask("POST", f"/{items.generation().name}/_close")
    items.enqueue(1)
    hand.step()
    counted = hand.worker.tally.counters(metrics.RETRY)
    assert {labels[-1]: value for labels, value in counted.items() if value} == {"blocked": 1.0}


def test_what_a_worker_of_before_says_of_an_index_is_taken_for_no_more_than_a_sentence(items):
    """It rewrites the sentence, and leaves what a newer one has stored beside it."""
    ours = Reason(Kind.REFUSED_ALIKE, "no such field", "strict_dynamic_mapping_exception", fingerprint="abc123")
    pause.block(items.conn, items.index, why=ours, by="a newer one", probe_after_seconds=60)
    (held,) = pause.pauses(items.conn)
    assert (held.why, held.reason) == (ours, ours.sentence)
    items.sql("UPDATE opensearch_indexing_pauses SET reason = 'index_closed_exception: closed'")
    (held,) = pause.pauses(items.conn)
    assert (held.why.kind, held.reason) == (Kind.UNTOLD, "index_closed_exception: closed")


def test_a_kind_that_a_later_release_adds_is_shown_by_its_sentence(items):
    ours = Reason(Kind.REFUSED, "closed", "index_closed_exception")
    pause.block(items.conn, items.index, why=ours, by="a later one", probe_after_seconds=60)
    items.sql("UPDATE opensearch_indexing_pauses SET why = why || %s", Jsonb({"kind": "on_the_moon"}))
    (held,) = pause.pauses(items.conn)
    assert (held.why.kind, held.why.sentence) == (Kind.UNTOLD, ours.sentence)


def test_whether_the_live_query_is_broken_is_asked_of_postgresql_where_a_worker_of_before_said_so(items):
    items.sql("ALTER TABLE items RENAME COLUMN price TO cost")
    items.sql("UPDATE items SET cost = '9'")
    items.hand().step()
    items.sql("UPDATE opensearch_indexing_pauses SET why = NULL")
    assert stuck.unreadable(items.conn, items.generation())
    items.sql("ALTER TABLE items RENAME COLUMN cost TO price")
    assert stuck.unreadable(items.conn, items.generation()) is None
