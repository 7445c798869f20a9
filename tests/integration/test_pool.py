"""Connections of a pool: one a thread, and none of threads that are over."""

import threading

from support.rig import until


def sessions(rig):
    return rig.one(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'idxctl'"
    )


def test_connections_of_threads_that_have_ended_are_closed(items):
    before = sessions(items)
    for _ in range(10):
        thread = threading.Thread(target=items.pool.mine)
        thread.start()
        thread.join()
    until(lambda: sessions(items) <= before + 1, "they stay open")


def test_a_reindex_leaves_no_pile_of_connections(items):
    """Readers, checkers and a worker of its own: with an index after the other, and none closed, a server runs out of them."""
    items.reindex()
    after_one = sessions(items)
    for _ in range(3):
        items.reindex()
    items.pool.drop()
    items.pool.mine()
    until(lambda: sessions(items) <= after_one, "they stay open")
