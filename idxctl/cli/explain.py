"""``idxctl explain``: one document in one look."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idxctl.cli import render
from idxctl.cli.render import Column, Mark
from idxctl.cli.state import Output, OutputOption, current
from idxctl.core.errors import CheckFailed, IdxctlError, Unreachable, UsageError

if TYPE_CHECKING:
    from idxctl.doctor.facts import Act, Difference, Facts, Held
    from idxctl.doctor.look import Explained
    from idxctl.postgres.connect import Connection

_MARKS: dict[str, Mark] = {"ok": "ok", "look": "warn", "act": "bad"}
_VALUE = 40  # characters of a value that are shown
_DIFFERENCES = 10
_FLAT = (
    "index",
    "document_id",
    "kind",
    "state",
    "reason",
    "fix",
    "row",
    "comparison",
    "version",
    "queued",
    "in_flight",
    "letters",
)


def explain(
    *,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[INDEX] ID...",
            show_default=False,
            help="The index, if there are several and --index names none, and the document's id: of a composite key as the "
            "index has it (7:en), or its values one by one.",
        ),
    ],
    index: Annotated[
        str | None, typer.Option("--index", metavar="INDEX", help="The index; then all else is the id.")
    ] = None,
    as_sent: Annotated[
        bool,
        typer.Option(
            "--render", help="Print the document as it would be sent, its line of the request and nothing else."
        ),
    ] = False,
    output: OutputOption,
) -> None:
    """
    Say of one document whether it is equal to its row, and if not, why, and what helps. It changes nothing.

    Below the answer: what each generation holds, tasks, dead letters, what was last done to it, and the triggers that lead to
    it. It ends with 7 when the document stays as it is until someone acts; with 0 when it is equal, or on its way; with 1 or 5
    when row or document cannot be looked at.
    """
    from idxctl.postgres import migrate

    state = current()
    with state.connect() as conn:
        migrate.require(conn)
        name, document_id = _meant(conn, index, words)
        if as_sent:
            _render(conn, name, document_id)
            return
        with contextlib.closing(state.opensearch()) as client:
            found = _explained(conn, client, name, document_id)
    _tell(found, output)
    _judge(found)


def _explained(conn: Connection, client: Any, name: str, document_id: str) -> Explained:
    from idxctl.doctor import look
    from idxctl.status.overview import Looks

    state = current()
    return look.explain(conn, client, state.settings, Looks(state.opensearch, keep=False), name, document_id)


def _meant(conn: Connection, index: str | None, words: Sequence[str]) -> tuple[str, str]:
    """Return the index and the document's id that the words of the command line are."""
    from idxctl.doctor import ids
    from idxctl.indexes import generations, names

    state = current()
    if index is None and len(words) > 1:
        index, words = words[0], words[1:]
    name = names.the_index(conn, state.settings, index)
    if not all(words):
        raise UsageError("an id is not empty")
    live = generations.live(conn, name)
    return name, ids.joined(name, live.definition if live is not None else None, words)


def _render(conn: Connection, name: str, document_id: str) -> None:
    from idxctl.doctor import ids
    from idxctl.doctor.facts import RowState
    from idxctl.doctor.rows import rendered
    from idxctl.indexes import generations

    active = [one for one in generations.of_index(conn, name) if one.active]
    chosen = next((one for one in active if one.state == "live"), active[0] if active else None)
    if chosen is None:
        raise IdxctlError(f"{name} has no generation yet, and so no document", hint=f"idxctl reindex --index {name}")
    known = ids.canonical(conn, chosen.definition, document_id)
    found = rendered(conn, chosen.definition, known or document_id, possible=known is not None)
    if found.row.state is RowState.NONE:
        raise IdxctlError(
            f"there is no row {document_id}: a delete would be sent", hint=f"idxctl explain --index {name} ID"
        )
    if found.row.state is not RowState.FOUND:
        raise IdxctlError(f"document {document_id} cannot be made: {found.row.error}")
    render.document(found.text)


# What is told --------------------------------------------------------------------------------------------------------
def _tell(found: Explained, output: Output) -> None:
    if output is Output.JSON:
        render.json(found.shown())
        return
    if output is Output.NDJSON:
        render.ndjson([found.shown()])
        return
    if output is Output.CSV:
        render.table([_flat(found)], list(_FLAT), output)
        return
    render.headline(_MARKS[found.verdict.state.value], found.verdict.reason, output)
    render.blank(output)
    lines = list(_lines(found))
    names = list(dict.fromkeys(name for name, _ in lines))
    told = {name: "\n".join(text for of, text in lines if of == name) for name in names}
    render.record(told, [Column(name) for name in names], output)


def _flat(found: Explained) -> dict[str, Any]:
    facts, verdict = found.facts, found.verdict
    lead = facts.generations[0] if facts.generations else None
    return {
        "index": facts.index, "document_id": facts.document_id, "kind": verdict.kind, "state": verdict.state,
        "reason": verdict.reason, "fix": verdict.fix or None, "row": facts.row.state,
        "comparison": lead and lead.comparison, "version": lead and lead.version, "queued": len(facts.queued),
        "in_flight": len(facts.in_flight), "letters": len(facts.letters),
    }  # fmt: skip


def _lines(found: Explained) -> Iterator[tuple[str, str]]:
    """Yield what people read below the answer: a heading, and one line of what stands beside it."""
    facts = found.facts
    if found.verdict.fix:
        yield "do", found.verdict.fix
    yield "document", f"{facts.document_id} of {facts.index}"
    yield "row", _row(facts)
    for held in facts.generations:
        yield "index", _held(held)
        for one in held.differences[:_DIFFERENCES]:
            yield "index", f"  {_difference(one)}"
        if len(held.differences) > _DIFFERENCES:
            yield "index", f"  and {len(held.differences) - _DIFFERENCES} more: -o json"
    yield from _tasks(facts)
    yield from _dead(facts)
    for act in facts.acts:
        yield "known", _act(act)
    for watch in facts.watches:
        detail = f": {'; '.join(watch.detail)}" if watch.detail else ""
        yield "captured", f"{watch.table} ({watch.key}): {watch.state}{detail}"
    if not facts.watches:
        yield "captured", "no watch is installed"
    for condition in facts.conditions:
        yield "index state", condition.reason
    workers = f"{facts.workers} that take this index's tasks" if facts.workers else "none runs for this index"
    yield "workers", workers
    for untold in facts.untold:
        yield "not told", untold


def _row(facts: Facts) -> str:
    row = facts.row
    routing = f", routing {row.routing}" if row.routing is not None else ""
    if row.state == "found":
        return f"{render.shown(row.bytes, 'bytes')}{routing}; idxctl explain --render prints it"
    if row.state != "none":
        return f"cannot be read: {row.error}"
    return f"none; {row.table} has it, the document query leaves it out" if row.in_table else f"none{routing}"


def _held(held: Held) -> str:
    if held.error and held.comparison == "unknown":
        return f"{held.generation}, {held.state}: {held.error}"
    version = "" if held.version is None else f", version {held.version}{_drawn(held)}"
    refused = f"; it refused it: {held.refused.error}" if held.refused is not None else ""
    copies = f"; also under {', '.join(one or 'no routing' for one in held.elsewhere)}" if held.elsewhere else ""
    return f"{held.generation}, {held.state}: {held.comparison.value}{version}{refused}{copies}"


def _drawn(held: Held) -> str:
    if held.foreign:
        return ", which this database did not draw"
    after, before = held.token_after, held.token_before
    if before is not None:
        return f", drawn between {render.shown(after, 'time')} and {render.shown(before, 'time')}"
    return "" if after is None else f", drawn after {render.shown(after, 'time')}"


def _difference(one: Difference) -> str:
    row, index = _value(one.row, there=one.in_row), _value(one.index, there=one.in_index)
    return f"{one.path}: {row} in the row, {index} in the index"


def _value(value: Any, *, there: bool) -> str:
    if not there:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}… ({len(text):,} characters)"


def _tasks(facts: Facts) -> Iterator[tuple[str, str]]:
    from idxctl.core.durations import format_age

    for one in facts.queued:
        when = "due" if one.due else f"due in {format_age(one.wait_seconds)}"
        tried = f", attempt {one.attempts} failed" if one.attempts else ""
        why = f": {one.last_error}" if one.last_error else ""
        yield "queued", f"task {one.id}, {format_age(one.age_seconds)} old, by {one.origin}, {when}{tried}{why}"
    for held in facts.in_flight:
        alive = "" if held.alive else ", which is not heard of"
        yield "in flight", f"token {held.token}, {format_age(held.age_seconds)} old, with {held.worker}{alive}"
    if facts.fan_outs.waiting:
        yield "lookups", f"{facts.fan_outs.waiting:,} under way that may be about it"
    if not facts.under_way:
        yield "queued", "nothing"


def _dead(facts: Facts) -> Iterator[tuple[str, str]]:
    for one in facts.letters:
        retried = f", retried {one.retries} times" if one.retries else ""
        since = render.shown(one.created_at, "since")
        why = " ".join((one.last_error or one.error_type).split())
        yield "dead letter", f"{one.id}, {since} old, {one.attempts} attempts{retried}: {why}"
        for past in one.history[-3:-1]:
            yield "dead letter", f"  {past.get('at', '')} {past.get('error_type', '')}"
    if not facts.letters:
        yield "dead letter", "none"


def _act(act: Act) -> str:
    when = f"{render.shown(act.at, 'since')} ago"
    if act.found is not None:
        return f"{when} a comparison found it {act.found}{', and enqueued it' if act.action == 'verify repair' else ''}"
    by = f" by {act.by}" if act.by else ""
    why = f": {act.reason}" if act.reason else ""
    return f"{when} {act.action}{'' if act.named else ' (of the index)'}{by}{why}"


def _judge(found: Explained) -> None:
    """End with what the verdict says."""
    facts, verdict = found.facts, found.verdict
    if verdict.kind == "impossible":
        raise UsageError(verdict.reason, hint=f"idxctl queue list --index {facts.index} shows how ids look")
    if verdict.kind == "unknown":
        raise Unreachable(facts.opensearch) if facts.opensearch else IdxctlError(verdict.reason)
    if verdict.state == "act":
        raise CheckFailed(
            f"document {facts.document_id} of {facts.index} is not as its row says", hint=verdict.fix or None
        )
