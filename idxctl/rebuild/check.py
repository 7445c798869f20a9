"""
The check before the swap: every document of the new generation is as its row.

By *content*, each document is read once and compared with what was sent (`verify.proof`), and only what differs with its row;
so are some rows of the index, which shows documents that change by themselves. By *versions*, ids and tokens are compared
with those that were sent. Where what is sent is not what the index holds (a pipeline), every row is read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from idxctl.core.errors import IdxctlError
from idxctl.core.failpoints import reach
from idxctl.indexes import ids
from idxctl.indexes.generations import Generation
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import aliases, index_settings, scan
from idxctl.opensearch.answer_parts import number
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue.enqueue import enqueue
from idxctl.rebuild import SQL, stuck
from idxctl.rebuild.aim import Allowed
from idxctl.rebuild.catch_up import now
from idxctl.rebuild.chunks import blame
from idxctl.rebuild.steps import Steps
from idxctl.verify import compare, proof
from idxctl.verify.compare import Compared
from idxctl.verify.proof import Built, NotAsSent, Proof, Range

WAYS = ("content", "versions")

_ROUNDS = 5  # of comparing again what differed
_READERS = 4  # at the most: each asks OpenSearch for pages of documents
_NAMED = 3  # kinds of errors
_LOOKED_AT = 2  # chunks whose first rows are compared, whatever agrees ...
_ROWS_OF_EACH = 500
_CHANGES_SOURCES = ("default_pipeline", "final_pipeline", "derived_source.enabled")
_OFF = {"", "_none", "false"}


@dataclass(frozen=True)
class Checked:
    """What a check has proved, in documents: so many are as their rows, so many were refused, so many rows were read for it."""

    documents: int
    failed: int
    rows_read: int = 0


@dataclass(frozen=True)
class _Found:
    """What differs, and of how many documents; ``doubtful`` are those among them that may be refused ones."""

    documents: int
    rows_read: int
    compared: Compared
    doubtful: frozenset[str] = frozenset()


def check(
    pool: Pool,
    client: Client,
    generation: Generation,
    run: int,
    *,
    way: str,
    live: Generation | None,
    total: int,
    readers: int,
    allowed: Allowed,
    sizes: Sizes,
    passed: Callable[[datetime], bool],
    steps: Steps,
) -> Checked:
    """
    Prove that every document is as its row, in one of `WAYS`; what differs is compared again once the queue has *passed* it.

    *live* is the generation in service, *total* about how many documents there are, *allowed* how many of them may be
    refused. *passed* waits until the queue has passed a moment, and returns False where that
    never comes before the swap. Raises when the generation is not fit for service.
    """
    conn = pool.mine()
    aliases.refresh(client, generation.name)
    steps.begin("check", total)
    before = _refused(conn, generation)
    readers = min(readers, _READERS)
    found = _found(pool, client, generation, run, way=way, readers=readers, sizes=sizes, steps=steps)
    if found.compared.unanswered:  # nobody can tell whether they are equal: their letters say so
        blame(conn, generation, 0, found.compared.unanswered)
    compared = _compare_again(conn, client, generation, found.compared, sizes=sizes, passed=passed)
    refused = _refused(conn, generation)
    drift = [one for one in compared.differing if one not in refused]
    if drift and stuck.unreadable(conn, live):  # what a waiting task will mend after the swap
        drift = stuck.not_waiting(conn, generation.index, drift)
    if drift:
        _refuse_drift(compared, drift)
    counted = (refused & found.doubtful) | (refused - before)  # refused only now: each was there, and was counted
    checked = Checked(max(found.documents - len(counted), 0), len(refused), found.rows_read)
    _judge_failures(conn, generation, checked.documents + checked.failed, checked.failed, allowed)
    steps.end(_summary(checked, way))
    reach("reindex.checked")
    return checked


def _summary(checked: Checked, way: str) -> str:
    said = {
        "content": f"{checked.documents:,} documents equal, {checked.rows_read:,} of them compared with their rows",
        "versions": f"{checked.documents:,} documents there, by their versions",
    }[way]
    return said + (f"; {checked.failed:,} refused" if checked.failed else "")


def _found(
    pool: Pool, client: Client, generation: Generation, run: int, *, way: str, readers: int, sizes: Sizes, steps: Steps
) -> _Found:
    """Look for what differs, in one of `WAYS`."""
    settings = index_settings.held(client, generation.name)
    if way == "content" and _changes_sources(generation, settings):
        return _by_rows(pool, client, generation, run, readers=readers, sizes=sizes, steps=steps)
    conn = pool.mine()
    ranges = {token: Range(after, upto) for token, after, upto in conn.run(SQL["tokens_sent"], run=run)}
    if not _all_kept(conn, run):
        return _by_rows(pool, client, generation, run, readers=readers, sizes=sizes, steps=steps)
    built = Built(
        generation,
        number(settings.get("number_of_shards"), default=1),
        number(settings.get("max_result_window"), default=10_000),
        ranges,
    )

    def load(token: int) -> bytes:
        row = pool.mine().run(SQL["digests"], run=run, token=token).fetchone()
        return bytes(row[0]) if row else b""

    try:
        proved = proof.prove(
            pool, client, built, load, contents=way == "content", readers=readers, sizes=sizes, tick=steps.move
        )
    except NotAsSent:
        return _by_rows(pool, client, generation, run, readers=readers, sizes=sizes, steps=steps)
    looked_at = _look_at_some(pool, client, generation, ranges, sizes) if way == "content" else Compared()
    return _together(proved, looked_at)


def _together(proved: Proof, looked_at: Compared) -> _Found:
    """Put what a proof and a look at some rows found in one list; a document may be in both."""
    rows_read = proved.compared.checked + looked_at.checked
    known, doubtful = set(proved.compared.differing), _doubtful(proved.compared)
    compared = proved.compared
    compared.add(
        Compared(
            missing=[one for one in looked_at.missing if one not in known],
            stale={one: fields for one, fields in looked_at.stale.items() if one not in known},
            unreadable=[one for one in looked_at.unreadable if one not in compared.unreadable],
            unanswered=looked_at.unanswered,
        )
    )
    return _Found(proved.documents, rows_read, compared, doubtful)


def _doubtful(compared: Compared) -> frozenset[str]:
    return frozenset([*compared.differing, *compared.unreadable, *compared.unanswered])


def _changes_sources(generation: Generation, settings: Mapping[str, str]) -> bool:
    """Whether documents are not held as they are sent: by a pipeline, or since sources are cut, or made up when they are read."""
    definition = generation.definition
    source = definition.mappings.get("_source")
    if definition.pipeline or definition.verify_ignore or (isinstance(source, Mapping) and source):
        return True
    return any(settings.get(name, "") not in _OFF for name in _CHANGES_SOURCES)


def _all_kept(conn: Connection, run: int) -> bool:
    """Whether it is known of every chunk what was sent."""
    row = conn.run(SQL["chunks_unknown"], run=run).fetchone()
    return row is not None and not row[0]


def _look_at_some(
    pool: Pool, client: Client, generation: Generation, ranges: Mapping[int, Range], sizes: Sizes
) -> Compared:
    """Compare some rows with their documents: one that changes by itself, or behind every watch, is seldom the only one."""
    conn, found = pool.mine(), Compared()
    for where in random.sample(sorted(ranges.values(), key=str), min(_LOOKED_AT, len(ranges))):
        upto = ids.next_boundary(conn, generation.definition, where.after, _ROWS_OF_EACH, upto=where.upto)
        for page in compare.compare_range(conn, client, generation, where.after, upto or where.upto, sizes=sizes):
            found.add(page)
    return found


def _by_rows(
    pool: Pool, client: Client, generation: Generation, run: int, *, readers: int, sizes: Sizes, steps: Steps
) -> _Found:
    """Compare the ranges of a run with several readers, then look for documents without a row where the count says so."""
    total = Compared()

    def compare_chunk(keys: tuple[list[str] | None, list[str] | None]) -> Compared:
        found = Compared()
        for page in compare.compare_range(pool.mine(), client, generation, *keys, sizes=sizes):
            found.add(page)
        return found

    chunks = pool.mine().run(SQL["chunks"], run=run).fetchall()
    with ThreadPoolExecutor(readers, "check") as threads:
        for part in threads.map(compare_chunk, [(after, upto) for after, upto in chunks]):
            total.add(part)
            steps.move(total.checked, "")
    expected = total.checked - len(total.missing) - len(total.unreadable)
    if scan.count(client, generation.name) != expected:  # rows that came or went meanwhile, or orphans
        for page in compare.orphans(pool.mine(), client, generation):
            total.orphans.extend(page)
    return _Found(total.checked, total.checked, total, _doubtful(total))


def _compare_again(
    conn: Connection,
    client: Client,
    generation: Generation,
    compared: Compared,
    *,
    sizes: Sizes,
    passed: Callable[[datetime], bool],
) -> Compared:
    """Compare what differs until it does not: after the queue has passed it, then after it was written again."""
    for tried in range(_ROUNDS):
        refused = _refused(conn, generation)
        doubtful = [one for one in compared.differing if one not in refused]
        if not doubtful:
            break
        if tried > 0:  # still different once the queue had passed it: not lag, so write it again
            enqueue(conn, index=generation.index, ids=doubtful, origin="verify")
        if not passed(now(conn)):
            break
        again = compare.compare_ids(conn, client, generation, doubtful, sizes=sizes)
        compared = Compared(compared.checked, again.missing, again.stale, again.orphans, again.unreadable)
    return compared


def _refused(conn: Connection, generation: Generation) -> set[str]:
    return {row[0] for row in conn.run(SQL["generation_failures"], generation=generation.id)}


def _refuse_drift(compared: Compared, drift: Sequence[str]) -> None:
    kinds = f"{len(compared.missing)} missing, {len(compared.stale)} stale, {len(compared.orphans)} without a row"
    fields = sorted({name for names in compared.stale.values() for name in names})
    example = f"for example {drift[0]}" + (f", in {', '.join(fields[:5])}" if drift[0] in compared.stale else "")
    raise IdxctlError(
        f"{len(drift):,} documents of the new generation still differ from their rows ({kinds}), {example}; nothing was swapped",
        hint="does every table the document reads have a watch, and does the document hold something that changes by itself, such as now()?",
    )


def _judge_failures(conn: Connection, generation: Generation, checked: int, failed: int, allowed: Allowed) -> None:
    most = allowed.most(checked)
    if not failed or (failed <= most and failed < checked):
        return
    kinds = conn.run(SQL["failures_by_type"], generation=generation.id).fetchall()
    named = "; ".join(f"{count:,} {kind}, for example {name}: {said}" for kind, count, name, said in kinds[:_NAMED])
    more = f"; and {len(kinds) - _NAMED:,} more kinds" if len(kinds) > _NAMED else ""
    raise IdxctlError(
        f"{failed:,} of {checked:,} documents were refused (at most {most:,} may be), nothing was swapped"
        f"{'; ' if named else ''}{named}{more}",
        hint="fix the rows or the mapping, or allow it: idxctl reindex --max-failures N",
    )
