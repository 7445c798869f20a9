"""``why-is-a-document-wrong.md``: what `idxctl explain` says of a document, from the verdicts themselves."""

from __future__ import annotations

from idxctl.core.conditions import State
from idxctl.doctor.words import MEANINGS, Kind
from making.markdown import MADE, cell, code_cell, page, table

_STATE = {State.OK: "ok", State.LOOK: "look", State.ACT: "act"}
_FROM_A_CONDITION = "the command that ends that condition: [conditions.md](../conditions.md)"
_OTHERWISE = {
    Kind.HELD_UP: _FROM_A_CONDITION,
    Kind.NOT_SEARCHED: _FROM_A_CONDITION,
    Kind.NOT_CAPTURED: f"{_FROM_A_CONDITION}, then `idxctl queue add ID`",
    Kind.UNREADABLE: "correct the row, or the document query; `idxctl config validate` tries the query",
    Kind.UNKNOWN: "the error beside it says what is missing",
}


def documents_page() -> str:
    """Return the page."""
    return page(
        "# Why is a document wrong, or missing?",
        MADE,
        "Someone says that a listing is not found, or shows an old price. One command looks at everything there is of it:",
        "```sh\nidxctl explain marketplace_listings 12345\n```",
        "The first line is the answer, `do` the command that helps. Below stand what each generation holds (with the fields that differ\n"
        "and the time between which its version was drawn), tasks queued and in flight, dead letters, what operators did to it and what a\n"
        "comparison found, and the watches that lead to it with their triggers. It reads only, and asks no server for longer than a few\n"
        "seconds: it can be run at any time. While OpenSearch is away it says so, and shows what PostgreSQL knows.",
        "The id is what the application has: `7`, a uuid in either case, `7:en` or `7 en` for a key of two columns. With one index configured its\n"
        "name can be left out. `-o json` has all of it, over HTTP `GET /api/v1/admin/documents/marketplace_listings/12345` the same\n"
        "([http.md](../http.md)). The document as it would be sent, byte for byte:",
        "```sh\nidxctl explain marketplace_listings 12345 --render\n```",
        "## What the first line says",
        "`kind` and `state` of `verdict` in the JSON. **ok**: it is as it should be. **look**: it is on its way, by itself. **act**: it stays\n"
        "as it is until someone does something; the exit status is 7.",
        table(
            ("kind", "state", "meaning", "what helps"),
            (
                (code_cell(kind.value), _STATE[one.state], cell(one.means), _help(kind))
                for kind, one in MEANINGS.items()
            ),
        ),
        "## What it cannot know",
        "- Who wrote a document that differs. A version above the sequence of tokens, in a gap of it, or of before the generation was\n"
        "  built is surely not of this database (`altered`). One that was changed in place may have the number of a token that another\n"
        "  document was written under: then it is `differs`, unless a standby generation, which the same tasks are written to, is right.\n"
        "- Whether a row that is not there was deleted, or never was.\n"
        "- When exactly a document was written. Tokens follow each other, and the times of some are known: the document's lies between.\n"
        "- How many others are like it: `idxctl verify` compares all of them, and `--repair` writes them again.",
    )


def _help(kind: Kind) -> str:
    fix = MEANINGS[kind].fix
    if kind in _OTHERWISE:
        return _OTHERWISE[kind]
    if not fix:
        return "nothing is needed"
    text = fix.format(index="NAME", add="idxctl queue add --index NAME ID", letter="NUMBER")
    return code_cell(text) if text.startswith("idxctl ") else cell(text)
