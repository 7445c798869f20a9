"""The check before the swap: every document of the new generation against its row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from idxctl.core.errors import IdxctlError
from idxctl.core.failpoints import reach
from idxctl.indexes.generations import Generation
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import aliases, scan
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue.enqueue import enqueue
from idxctl.rebuild import SQL, stuck
from idxctl.rebuild.aim import Allowed
from idxctl.rebuild.catch_up import now
from idxctl.rebuild.chunks import blame
from idxctl.rebuild.steps import Steps
from idxctl.verify import compare
from idxctl.verify.compare import Compared

_ROUNDS = 5  # of comparing again what differed
_READERS = 4  # at the most: each asks OpenSearch for pages of documents
_NAMED = 3  # kinds of errors


@dataclass(frozen=True)
class Checked:
    """What a check has proved, in documents: so many are as their rows, so many were refused."""

    documents: int
    failed: int


def check(
    pool: Pool,
    client: Client,
    generation: Generation,
    run: int,
    *,
    live: Generation | None,
    total: int,
    readers: int,
    allowed: Allowed,
    sizes: Sizes,
    passed: Callable[[datetime], bool],
    steps: Steps,
) -> Checked:
    """
    Compare every document with its row; what differs is compared again once the queue has *passed* it.

    *live* is the generation in service, *total* about how many documents there are, *allowed* how many of them may be
    refused. *passed* waits until the queue has passed a moment, and returns False where that
    never comes before the swap. Raises when the generation is not fit for service.
    """
    conn = pool.mine()
    aliases.refresh(client, generation.name)
    steps.begin("check", total)
    compared = _compare_all(pool, client, generation, run, readers=readers, sizes=sizes, steps=steps)
    if compared.unanswered:  # nobody can tell whether they are equal: their letters say so
        blame(conn, generation, 0, compared.unanswered)
    compared = _compare_again(conn, client, generation, compared, sizes=sizes, passed=passed)
    refused = _refused(conn, generation)
    drift = [one for one in compared.differing if one not in refused]
    if drift and stuck.unreadable(conn, live):  # what a waiting task will mend after the swap
        drift = stuck.not_waiting(conn, generation.index, drift)
    if drift:
        _refuse_drift(compared, drift)
    checked = Checked(max(compared.checked - len(refused), 0), len(refused))
    _judge_failures(conn, generation, compared.checked, checked.failed, allowed)
    steps.end(f"{checked.documents:,} documents equal" + (f", {checked.failed:,} refused" if checked.failed else ""))
    reach("reindex.checked")
    return checked


def _compare_all(
    pool: Pool, client: Client, generation: Generation, run: int, *, readers: int, sizes: Sizes, steps: Steps
) -> Compared:
    """Compare the ranges of a run with several readers, then look for documents without a row where the count says so."""
    total = Compared()

    def compare_chunk(keys: tuple[list[str] | None, list[str] | None]) -> Compared:
        found = Compared()
        for page in compare.compare_range(pool.mine(), client, generation, *keys, sizes=sizes):
            found.add(page)
        return found

    chunks = pool.mine().run(SQL["chunks"], run=run).fetchall()
    with ThreadPoolExecutor(min(readers, _READERS), "check") as threads:
        for part in threads.map(compare_chunk, [(after, upto) for after, upto in chunks]):
            total.add(part)
            steps.move(total.checked, "")
    expected = total.checked - len(total.missing) - len(total.unreadable)
    if scan.count(client, generation.name) != expected:  # rows that came or went meanwhile, or orphans
        for ids in compare.orphans(pool.mine(), client, generation):
            total.orphans.extend(ids)
    return total


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
