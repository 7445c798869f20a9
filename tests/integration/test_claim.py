"""Claims: what is taken, in which order, under which token; T1, G2 and the floor, on real servers."""

from idxctl.queue import claim


def rename(rig, item, name):
    rig.sql("UPDATE items SET name = %s WHERE id = %s", name, item)


def test_a_token_is_drawn_by_the_statement_that_takes_the_tasks(items, stops):
    """T1: another worker draws and writes the old row while the first stands before its claim."""
    rename(items, 1, "before")
    stop = stops.at("claim.locked")
    with items.hand().stepping():
        stop.wait()
        items.hand().step()
        rename(items, 1, "after")
        stop.release()
    assert items.at_rest()
    assert items.document(1)["name"] == "after"


def test_documents_are_read_after_the_commit_of_the_claim(items, stops):
    """T1: a read with the claim's own snapshot would put the first name under a token that is greater than the second's."""
    rename(items, 1, "first")
    stop = stops.at("claim.locked")
    with items.hand().stepping():
        stop.wait()
        rename(items, 1, "second")
        items.sql(
            "UPDATE opensearch_indexing_queue SET priority = 1 WHERE id = (SELECT max(id) FROM opensearch_indexing_queue)"
        )
        items.hand().step()
        stop.release()
    assert items.at_rest()
    assert items.document(1)["name"] == "second"


def test_tasks_that_somebody_holds_locked_keep_no_others_waiting(items):
    """A process that stands still in its claim, or an operator in a transaction, holds all that is due of the first band."""
    items.enqueue(1, priority=1)
    items.enqueue(2, priority=0)
    items.enqueue(3, priority=-1)
    with items.connect() as other, other.raw.transaction():
        other.execute("SELECT FROM opensearch_indexing_queue WHERE priority = 1 FOR UPDATE")
        hand = items.hand()
        taken = [hand.worker.poll() for _ in range(2)]
        assert [batch.tasks[0].document_id for batch, _ in filter(None, taken)] == ["2", "3"]
        for one in taken:
            hand.carry(one)
    hand.steps()
    assert items.at_rest()


def test_a_claim_takes_no_more_than_it_can_hold(items):
    """Eleven hundred ids of a megabyte would be more than an array may hold; a task before and behind them is served."""
    items.enqueue(1)
    items.sql(
        "INSERT INTO opensearch_indexing_queue (index_name, document_id) "
        "SELECT %s, i || repeat(md5(i::text), 32768) FROM generate_series(1, 12) i",
        items.index,
    )
    items.sql(
        "INSERT INTO opensearch_indexing_queue (index_name, document_id) VALUES (%s, repeat('x', 9000000))", items.index
    )
    items.enqueue(2)
    taken, held = [], 0
    while items.due():
        (head, *_) = claim.heads(items.conn)
        got = claim.claim(
            items.conn, index=head.index, priority=head.priority, worker="test:1:a", limit=1000, lease_seconds=30
        )
        sizes = [len(task.document_id) for task in got.batch.tasks]
        assert sum(sizes) <= claim.MOST_BYTES or len(sizes) == 1
        taken += sizes
        held += 1
    assert len(taken) == 15
    assert held < 10
