"""
The one path of a batch of documents, after its claim: read, write, sort, settle, count.

Two drive it: a worker's threads (`carry`), and the library in its caller's thread (`library.inline`). What they do
differently they hand in: how they insist on PostgreSQL, how long a read may take, what they make of an index's trouble.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from idxctl.indexes import generations as generations_
from idxctl.indexes.generations import Generation
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.queue import settle, tokens
from idxctl.queue.claim import Batch
from idxctl.queue.outcomes import Settled
from idxctl.worker.accounting import Ledger
from idxctl.worker.batch import read_and_write
from idxctl.worker.index_identity import Identity
from idxctl.worker.sort import Sorted, sort, versions_met
from idxctl.worker.written import Learnt, Limits, Written

T = TypeVar("T")
Reading = Callable[[Connection], contextlib.AbstractContextManager[object]]


class Insist(Protocol):
    """Does something on a connection that works, perhaps more than once."""

    def __call__(self, act: Callable[[Connection], T], /) -> T:
        """Return what *act* returned."""


class Judge(Protocol):
    """Has the last word on a batch's outcomes, by the states of its generations as they are now."""

    def __call__(self, sorted_: Sorted, states: Mapping[int, str], /) -> Sorted:
        """Return them as they are to be settled."""


@dataclass(frozen=True)
class Carried:
    """What became of a batch; ``in_a_row``: how many of its index were put back whole, one after the other."""

    written: Written
    sorted: Sorted
    settled: Settled
    in_a_row: int


class Path:
    """What the batches of one process share on their way."""

    def __init__(self, client: Client, limits: Limits, learnt: Learnt, ledger: Ledger, *, max_attempts: int) -> None:
        self.limits = limits
        self._learnt = learnt
        self._identity = Identity()
        self.ledger = ledger
        self._client = client
        self._max_attempts = max_attempts
        self._known = generations_.Cache()

    def generations(self, conn: Connection, batch: Batch) -> Sequence[Generation]:
        """Return the generations that the claim has read (G2)."""
        return self._known.get(conn, list(batch.generations))

    def take(
        self,
        conn: Connection,
        batch: Batch,
        *,
        insist: Insist,
        judge: Judge,
        reading: Reading = contextlib.nullcontext,
    ) -> Carried:
        """Take a batch to its settle; raises what PostgreSQL refuses, and then the batch is as it was."""
        generations = self.generations(conn, batch)
        with reading(conn):
            strangers = self._identity.strangers(self._client, generations)
            written = read_and_write(
                conn,
                self._client,
                batch,
                generations,
                limits=self.limits,
                learnt=self._learnt,
                strangers=strangers,
            )

        def sorted_now(conn: Connection) -> tuple[Sorted, Mapping[int, str]]:
            states = generations_.states(conn, list(batch.generations))
            foreign = tokens.not_ours(conn, versions_met(written))
            found = sort(batch, generations, written, states, foreign)
            if found.jumped_past is not None:
                why = "OpenSearch holds a version that this sequence did not draw"
                tokens.advance(conn, found.jumped_past, why)
            return found, states

        sorted_ = judge(*insist(sorted_now))
        settled = insist(lambda conn: settle.settle(conn, batch, sorted_.outcomes, max_attempts=self._max_attempts))
        in_a_row = self.ledger.settled(
            batch, sorted_.outcomes, settled, superseded=sorted_.superseded, sent_bytes=written.sent_bytes
        )
        return Carried(written, sorted_, settled, in_a_row)
