"""Retire: take a generation out of service, and its index away once no zombie can write to it any more (G2, G3)."""

from __future__ import annotations

from datetime import timedelta

from idxctl.indexes import generations
from idxctl.opensearch import aliases
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection


def retire(conn: Connection, generation: int) -> None:
    """Take a generation out of the set that claims write to; batches under way still may (G3)."""
    with conn.transaction():
        generations.lock_set(conn, exclusive=True)
        generations.set_state(conn, generation, "retired", expected=("building", "standby"))


def sweep_up(conn: Connection, client: Client, *, age_limit: timedelta) -> list[str]:
    """
    Retire standby generations whose keep period is over, and delete the indexes of those retired long enough ago.

    G2: no batch with the old set may be in flight. G3: one age limit more, for zombies. Returns the indexes deleted.
    """
    for one in generations.to_retire(conn):
        retire(conn, one.id)
    gone = []
    for one in generations.to_delete(conn, age_limit):
        if generations.in_flight_with(conn, one.id):
            continue
        if one.name in aliases.targets(client, one.index):
            continue  # somebody put the alias back on it; that is theirs to undo
        aliases.delete(client, one.name)
        with conn.transaction():
            generations.deleted(conn, one.id)
            audit.record(conn, action="index delete", what=one.index, detail={"generation": one.name})
        gone.append(one.name)
    return gone
