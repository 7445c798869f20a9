"""Retire: take a generation out of service, and its index away once no zombie can write to it any more (G2, G3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def sweep_up(
    conn: Connection,
    client: Client,
    *,
    age_limit: timedelta,
    kept: Callable[[str, Sequence[str]], None] = lambda _name, _aliases: None,
) -> list[str]:
    """
    Retire standby generations whose keep period is over, and delete the indexes of those retired long enough ago.

    G2: no batch with the old set may be in flight. G3: one age limit more, for zombies. G5: an index that an alias stands on
    is searched, so it stays, and a standby stays current; *kept* is told of each. Returns the indexes deleted.
    """
    for one in generations.to_retire(conn):
        if standing := aliases.standing(client, one.name):
            kept(one.name, sorted(standing))
        else:
            generations.expire(conn, one)
    gone = []
    for one in generations.to_delete(conn, age_limit):
        if generations.in_flight_with(conn, one.id):
            continue
        if held := aliases.delete_unless_searched(client, one.name):
            kept(one.name, held)
            continue
        with conn.transaction():
            generations.deleted(conn, one.id)
            audit.record(conn, action="index delete", what=one.index, detail={"generation": one.name})
        gone.append(one.name)
    return gone


def still_searched(name: str, held: Sequence[str]) -> str:
    """Say why an index stays, and the way out."""
    several = "aliases" if len(held) > 1 else "alias"
    return (
        f"index {name} has served its time and is not deleted, since {several} {', '.join(held)} "
        f"stand{'' if len(held) > 1 else 's'} on it; once nobody searches it: DELETE /{name}/_alias/{','.join(held)}"
    )
