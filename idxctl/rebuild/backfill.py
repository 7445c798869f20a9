"""
Backfill: every document of an index into a new generation, by ranges of keys.

Each chunk is a row: its token is drawn and committed before it is read (T2), it is read in one short statement, and it is
done once OpenSearch has answered for it. Readers take chunks side by side, in any number of processes: a lease, renewed while
its reader is at it, says whose a chunk is; one whose lease has lapsed is taken by another reader, under a token of its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone

from idxctl.core import backoff
from idxctl.core.errors import IdxctlError, OpenSearchRefused, PostgresRefused, PostgresUnreachable
from idxctl.core.failpoints import reach
from idxctl.indexes import ranges, reading, render
from idxctl.indexes.generations import Generation
from idxctl.indexes.ids import next_boundary
from idxctl.indexes.key_sql import between
from idxctl.opensearch import bulk
from idxctl.opensearch.bulk import Body
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.postgres.statements import Statement
from idxctl.queue.claim import Batch
from idxctl.rebuild import SQL, outages, preflight, runs
from idxctl.rebuild.chunks import Chunk, Done, Progress, TooSlow, blame, cut_apart
from idxctl.verify.digests import Sent
from idxctl.worker.batch import unreadable
from idxctl.worker.outcomes import Kind
from idxctl.worker.send import refused_for_overload, send
from idxctl.worker.written import Learnt, Limits, Written

_FIRST_CHUNK = 500  # documents
_LARGEST_CHUNK = 5_000
_CHUNK_BYTES = 5 * 1024 * 1024  # aimed at
_AHEAD = 16  # chunks planned before they are read
_RENEW_SECONDS = 5.0  # leases are for thirty
_LOOK_SECONDS = 0.5  # for a chunk to take, or for room to plan one


class Backfill:
    """One process's part in a backfill: a planner, P readers and a keeper of their leases, as threads."""

    def __init__(
        self,
        pool: Pool,
        client: Client,
        generation: Generation,
        run: int,
        owner: str,
        *,
        limits: Limits,
        learnt: Learnt,
        readers: int,
    ) -> None:
        self.progress = Progress()
        self._pool = pool
        self._client = client
        self._generation = generation
        self._run = run
        self._owner = owner
        self._limits = limits
        self._learnt = learnt
        self._readers = readers
        self._stop = threading.Event()
        self._over = threading.Event()
        self._changed = threading.Condition()  # a chunk was planned, or taken
        self._held: set[int] = set()  # chunks that a reader is at; under _changed
        self._rate: float | None = None  # documents a second, of all processes
        self._error: BaseException | None = None

    def run(self, *, tick: Callable[[], None]) -> None:
        """
        Read and write chunks until none is left, here and in other processes; *tick* is called about twice a second.

        Raises what stopped a thread; PostgreSQL and OpenSearch are waited for while they are away.
        """
        threads = [
            threading.Thread(target=self._guarded, args=(act,), name=name, daemon=True) for act, name in self._acts()
        ]
        keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        for thread in (keeper, *threads):
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                for thread in threads:
                    thread.join(timeout=0.5 / len(threads))
                tick()
        except BaseException:
            self._halt()
            for thread in threads:
                thread.join(timeout=5)
            raise
        finally:
            self._over.set()
            keeper.join(timeout=5)
        if self._error is not None:
            raise self._error
        tick()

    def _acts(self) -> Iterator[tuple[Callable[[], None], str]]:
        yield self._plan, "planner"
        for number in range(self._readers):
            yield self._read, f"reader-{number}"

    def _halt(self) -> None:
        self._stop.set()
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do *act* until it ends, again after an outage of PostgreSQL; what else it raises stops all threads."""
        failed = 0
        while not self._stop.is_set():
            try:
                act()
            except (PostgresUnreachable, PostgresRefused) as error:
                if isinstance(error, PostgresRefused) and not error.passing:
                    self._failed(error)
                    return
                self.progress.waiting = error.message
                self._stop.wait(backoff.before_probe(failed))
                failed += 1
            except BaseException as error:  # noqa: BLE001 - raised again by run(), in the thread that waits
                self._failed(error)
                return
            else:
                return

    def _failed(self, error: BaseException) -> None:
        self._error = self._error or error
        self._halt()

    def _keep(self) -> None:
        """Renew the leases of what readers are at."""
        while not self._over.wait(_RENEW_SECONDS):
            with self._changed:
                held = sorted(self._held)
            if held:
                with contextlib.suppress(IdxctlError):  # Postgres is away; who needs it says so
                    self._pool.mine().run(SQL["renew_chunks"], run=self._run, owner=self._owner, numbers=held)

    # --- planning ---------------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Walk the keys and write chunks as rows, a few ahead of the readers; the last one is open to the end."""
        while not self._stop.is_set():
            row = self._pool.mine().run(SQL["plan_chunks"], run=self._run, most=_AHEAD).fetchone()
            if row is None:  # the readers say why
                return
            after, planned_all, waiting, self._rate = row
            if planned_all:
                return
            if waiting >= _AHEAD:
                with self._changed:
                    self._changed.wait(timeout=_LOOK_SECONDS)
                continue
            self._add(after, self._next_boundary(after))
            self._notify()

    def _add(self, after: list[str] | None, upto: list[str] | None) -> None:
        """Write a chunk's row, unless another process has planned beyond *after* meanwhile."""
        conn = self._pool.mine()
        with conn.transaction():
            planned = conn.run(SQL["planned"], run=self._run, before=after, upto=upto, all=upto is None).fetchone()
            if planned is not None:
                conn.run(SQL["add_chunk"], run=self._run, after=after, upto=upto)

    def _next_boundary(self, after: list[str] | None) -> list[str] | None:
        definition = self._generation.definition
        try:
            return next_boundary(self._pool.mine(), definition, after, self._chunk_size())
        except PostgresRefused as error:  # a volatile function is called although nobody asks for the document
            raise preflight.unreadable(self._generation.index, error) from error

    def _chunk_size(self) -> int:
        """Aim at a body of a few megabytes, by the size of the documents seen so far."""
        seen, size = self.progress.documents, self.progress.size
        wanted = min(_CHUNK_BYTES * seen // size, _LARGEST_CHUNK) if seen and size else _FIRST_CHUNK
        if self._rate is not None:  # a second's worth: what is read at once is not spread out any more
            wanted = min(wanted, int(self._rate))
        return max(wanted, 1)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        while not self._stop.is_set():
            chunk = self._take()
            if chunk is None:
                if not self._left():
                    return
                with self._changed:
                    self._changed.wait(timeout=_LOOK_SECONDS)
                continue
            with self._changed:
                self._held.add(chunk.number)
                self._changed.notify_all()
            try:
                self._carry(chunk)
            finally:
                with self._changed:
                    self._held.discard(chunk.number)

    def _left(self) -> bool:
        """Whether chunks are still to be filled, here or by others. Raises if this run was ended meanwhile."""
        conn = self._pool.mine()
        row = conn.run(SQL["chunks_left"], run=self._run).fetchone()
        if row is None or not row[0]:
            return False
        if not runs.is_filling(conn, self._run):
            raise runs.taken_over(self._generation.index)
        return True

    def _take(self) -> Chunk | None:
        return self._drawn(SQL["take_chunk"], run=self._run, owner=self._owner)

    def _drawn(self, statement: Statement, **parameters: object) -> Chunk | None:
        """T2: draw a token in a transaction that commits the chunk's row, durably, before anything is read."""
        conn = self._pool.mine()
        reach("chunk.before")
        born = time.monotonic()  # before the draw: bytes may seem older than they are, never younger (T3)
        with conn.transaction():
            conn.run(SQL["durable"])
            row = conn.run(statement, **parameters).fetchone()
        reach("chunk.committed")
        if row is None:
            return None
        number, after, upto, token = row
        return Chunk(number, after, upto, token, born)

    def _carry(self, chunk: Chunk) -> None:
        """Bring one chunk into the index, however often an outage or its age makes that start again."""
        failed = 0
        apart: dict[str, frozenset[str]] = {}  # what the way failed on, as far as it was narrowed down
        done = Done(chunk.after)
        while not self._stop.is_set():
            again: str | None
            try:
                part = self._part(replace(chunk, after=done.upto))
                again = self._attempt(part, apart, done)
                if again is None:
                    if part.upto == chunk.upto:
                        self._finish(chunk, done)
                        return
                    done.upto = part.upto
            except PostgresUnreachable as error:
                again = error.message
            except TooSlow:
                again = "the document query is slow; it is read in smaller parts"
            if again is not None:
                self.progress.waiting = again
                self._stop.wait(backoff.before_probe(failed))
                failed += 1
            try:
                retaken = self._drawn(SQL["retake_chunk"], run=self._run, number=chunk.number, owner=self._owner)
            except PostgresUnreachable:
                continue
            if retaken is None:
                if runs.is_filling(self._pool.mine(), self._run):  # the lease had lapsed: the chunk is another's
                    return
                raise runs.taken_over(self._generation.index)
            chunk = retaken

    def _part(self, chunk: Chunk) -> Chunk:
        """Return as much of a chunk as is read in time; all of it unless documents are slow."""
        definition = self._generation.definition
        most = self._learnt.sizes.most_in_time(definition)
        if most is None:
            return chunk
        try:
            upto = next_boundary(self._pool.mine(), definition, chunk.after, most, upto=chunk.upto)
        except PostgresRefused as error:
            raise preflight.unreadable(self._generation.index, error) from error
        return chunk if upto is None else replace(chunk, upto=upto)

    def _finish(self, chunk: Chunk, done: Done) -> None:
        conn = self._pool.mine()
        with conn.transaction():
            ours = conn.run(
                SQL["chunk_done"], run=self._run, number=chunk.number, owner=self._owner, documents=done.documents, failed=done.failed
            ).fetchone()  # fmt: skip
            if ours is not None and done.sent:
                tokens, digests = list(done.sent), list(done.sent.values())
                conn.run(SQL["keep_digests"], run=self._run, number=chunk.number, tokens=tokens, digests=digests)
        reach("chunk.done")

    def _attempt(self, chunk: Chunk, apart: dict[str, frozenset[str]], done: Done) -> str | None:
        """
        Read and write a chunk once; returns why it must be read again, None when it is done.

        The documents of *apart* are sent with those of their group alone; it is filled with what is to be sent so next time.
        """
        now = datetime.now(timezone.utc)
        batch = Batch(chunk.token, self._generation.index, "document", (self._generation.id,), (), now, chunk.born)
        written, sent = Written(), Sent()
        documents = size = 0
        bodies = bulk.gather(self._pieces(chunk, written), max_bytes=self._learnt.body_bytes(self._limits))
        for body in (part for whole in bodies for part in cut_apart(whole, apart)):
            self._send(batch, body, written)
            sent.add(body.ids, body.text)
            documents += len(body.ids)
            size += len(body.text)
            if not written.apart and (verdict := self._cannot_go_on(written)):
                return verdict
        apart.update(written.apart)
        if again := self._judge(written):
            return again
        failed = self._blame(self._pool.mine(), chunk, written)
        sent.leave_out(name for name, _ in written.verdicts)
        if documents:
            done.sent[chunk.token] = sent.packed()
        done.documents += documents
        done.failed += failed
        self._learnt.sizes.note(self._generation.definition, documents, size)
        self.progress.add(max(documents - failed, 0), failed, size)
        return None

    def _send(self, batch: Batch, body: Body, written: Written) -> None:
        """
        Send a body, and again what was refused for overload, for as long as some of it passes each time.

        A chunk begun anew is sent whole: where every large body is refused in part, it would never end.
        """
        refused, passed = body, True
        while passed and refused.ids and not self._stop.is_set():
            sent = len(refused.ids)
            send(self._client, batch, self._generation, refused, self._limits, self._learnt, written)
            left = refused_for_overload(written, self._generation, refused.ids)
            passed = 0 < len(left) < sent
            if passed:
                self._stop.wait(backoff.before_probe(0, shortest=0.1))
                refused = refused.without(set(refused.ids) - left)
                written.forget(left, self._generation)

    def _pieces(self, chunk: Chunk, written: Written) -> Iterator[Body]:
        """Yield the documents of a chunk as bulk lines; an id that comes twice is a broken query."""
        seen: set[str] = set()
        count = 0
        for lines in self._read_chunk(chunk, written):
            repeated = seen.intersection(lines.ids)
            seen.update(lines.ids)
            count += len(lines.ids)
            if len(seen) != count:
                twice = repeated or {one for one, times in Counter(lines.ids).items() if times > 1}
                raise preflight.duplicate(self._generation.index, min(twice))
            yield Body(lines.ids, lines.text)

    def _read_chunk(self, chunk: Chunk, written: Written) -> Iterator[render.Lines]:
        """Read a chunk in one statement; a row whose values break the query becomes a verdict and stops nothing (P3)."""
        conn, generation = self._pool.mine(), self._generation
        definition, sizes = generation.definition, self._learnt.sizes
        condition = between(definition, chunk.after, chunk.upto)
        failures: dict[str, PostgresRefused] = {}
        try:
            with conn.reading_within(self._limits.age_limit_seconds / 3):
                yield from ranges.readable(
                    conn, definition, condition, token=chunk.token, max_bytes=self._learnt.body_bytes(self._limits), sizes=sizes,
                    failures=failures,
                )  # fmt: skip
        except PostgresRefused as error:
            if reading.is_too_slow(error):
                raise TooSlow from error
            raise preflight.unreadable(generation.index, error) from error
        for one, cause in failures.items():
            written.note([one], [generation], unreadable(conn, cause))

    @staticmethod
    def _cannot_go_on(written: Written) -> str | None:
        """Return why the rest of the chunk need not be sent: the server is away, or the bytes are too old."""
        for verdict in written.verdicts.values():
            if verdict.kind is Kind.TRANSIENT:
                return f"{verdict.error_type}: {verdict.reason}"
        return None

    def _judge(self, written: Written) -> str | None:
        """Raise for what no waiting fixes; return why to try again."""
        for verdict in written.verdicts.values():
            if verdict.error_type == outages.BLOCK:  # a full disk is cleared, and then it goes on
                return f"{verdict.error_type}: {verdict.reason}"
            if verdict.kind in (Kind.BLOCKED, Kind.GONE):
                raise OpenSearchRefused(
                    f"OpenSearch refuses writes to {self._generation.name}: {verdict.error_type}: {verdict.reason}",
                    status=403,
                    error_type=verdict.error_type,
                    reason=verdict.reason,
                )
        return self._cannot_go_on(written)

    def _blame(self, conn: Connection, chunk: Chunk, written: Written) -> int:
        """Note the documents that the generation refused; they become dead letters at the swap."""
        refused = {
            name: verdict
            for (name, _), verdict in written.verdicts.items()
            if verdict.kind in (Kind.PERMANENT, Kind.DOUBTFUL)
        }
        if refused:
            blame(conn, self._generation, chunk.token, refused)
        return len(refused)
