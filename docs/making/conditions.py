"""``conditions.md``: everything that idxctl can find wrong, from the one list."""

from __future__ import annotations

from idxctl.core.conditions import MEANINGS, Group, Kind, State
from making.markdown import MADE, cell, code_cell, page, table

_QUESTION = {
    Group.CAPTURED: "Captured: does every change leave a task?",
    Group.CLAIMED: "Claimed: do workers take the tasks?",
    Group.WRITTEN: "Written: do documents reach OpenSearch?",
    Group.SEARCHED: "Searched: do clients read what is written?",
}
_STATE = {State.ACT: "act", State.LOOK: "look"}


def conditions_page() -> str:
    """Return the page."""
    return page(
        "# Conditions",
        MADE,
        "One list of what can be wrong. `idxctl queue stats` begins with the worst that holds and ends with the command that fixes it; `-o json`\n"
        "has all of them (`kind`, `index`, `group`, `state`, `reason`, `since`, `fix`). `/readyz`, the metric\n"
        "`opensearch_indexing_condition{kind,index}` with its alert, the worker's log and `idxctl watch status` are made from the same list.",
        "**act**: documents stay wrong, or are late, until someone does something. **look**: look at it when there is time.",
        *(part for group, question in _QUESTION.items() for part in (f"## {question}", _table(group))),
    )


def _table(group: Group) -> list[str]:
    rows = [(kind, MEANINGS[kind]) for kind in Kind if MEANINGS[kind].group is group]
    return table(
        ("kind", "state", "meaning", "fix"),
        ((code_cell(kind.value), _STATE[one.state], cell(one.means), _fix(one.fix)) for kind, one in rows),
    )


def _fix(fix: str) -> str:
    """Return a fix with its commands as code."""
    text = fix.format(index="NAME")
    if not text:
        return "ends by itself"
    return (
        code_cell(text)
        if text.startswith("idxctl ") and "," not in text and " or " not in text and " purges" not in text
        else cell(text)
    )
