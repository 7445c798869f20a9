"""``how-to/drift.md``: every kind of drift, with what finds it and what does not. The test that makes each takes them from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from idxctl.verify.causes import Cause
from making.markdown import MADE, cell, page, table


@dataclass(frozen=True)
class Drift:
    """
    One kind of drift.

    ``counts`` are missing, stale and orphans that the test's three or so documents make; ``causes`` what a scrub may name.
    ``heals``: whether a repair ends it for good.
    """

    what: str
    says: str
    counts: tuple[int, int, int]
    causes: frozenset[Cause]
    repair: str
    unknown: str
    heals: bool = True


def _causes(*causes: Cause) -> frozenset[Cause]:
    return frozenset(causes)


DRIFTS: Mapping[str, Drift] = {
    "triggers_disabled": Drift(
        "Rows written while triggers are disabled",
        "missing, stale, orphan",
        (1, 1, 1),
        _causes(Cause.NOT_WRITTEN, Cause.NOT_CURRENT, Cause.NOT_DELETED),
        "writes and deletes the documents",
        "when, and by whom: `watch status` sees a disabled trigger only as long as it is one",
    ),
    "document_deleted": Drift(
        "A document deleted by something else",
        "missing",
        (1, 0, 0),
        _causes(Cause.NOT_WRITTEN),
        "writes it",
        "whether it was ever there",
    ),
    "document_altered": Drift(
        "A document altered by something else",
        "stale, with its fields",
        (0, 1, 0),
        _causes(Cause.FOREIGN, Cause.REWRITTEN),
        "writes it",
        "a change that was written as PostgreSQL writes JSON, under a version like idxctl's, looks like one that was not captured",
    ),
    "document_added": Drift(
        "A document added by something else",
        "orphan",
        (0, 0, 1),
        _causes(Cause.FOREIGN, Cause.NOT_DELETED),
        "deletes it; refused where a tenth of the index, and more than a hundred, are such",
        "whose it was",
    ),
    "greater_version": Drift(
        "A document written under a version above all of idxctl's",
        "stale",
        (0, 1, 0),
        _causes(Cause.FOREIGN),
        "moves the tokens past that version, and writes it",
        "who gives such versions; `audit list` and the log keep the jump",
    ),
    "other_routing": Drift(
        "A copy of a document under another routing",
        "orphan, with its routing",
        (0, 0, 1),
        _causes(Cause.ELSEWHERE),
        "deletes the copy where it stands",
        "a copy under a routing that leads to the document's own shard is the document: it is written again",
    ),
    "lost_tombstone": Drift(
        "A write that was held up for longer than OpenSearch remembers a deletion (`index.gc_deletes`)",
        "orphan",
        (0, 0, 1),
        _causes(Cause.NOT_DELETED),
        "deletes it",
        "that it was this, and no deletion past the triggers",
    ),
    "snapshot_restored": Drift(
        "An older snapshot of the index restored under its name",
        "missing, stale, orphan: all that changed since",
        (1, 1, 1),
        _causes(Cause.NOT_WRITTEN, Cause.NOT_CURRENT, Cause.NOT_DELETED),
        "writes and deletes what differs; more than half: refused, `reindex` builds it again",
        "that it was a snapshot: versions and bytes are idxctl's own",
    ),
    "backup_restored": Drift(
        "A backup of the database restored: the index has seen a future that is lost",
        "missing, stale, orphan: all that changed since",
        (1, 1, 1),
        _causes(Cause.NOT_WRITTEN, Cause.FOREIGN, Cause.NOT_CURRENT, Cause.NOT_DELETED),
        "writes the rows as they are now; the lost changes are lost",
        "what the lost rows were: the index shows some of it until the repair",
    ),
    "table_unwatched": Drift(
        "A table that documents show, and that no watch covers",
        "stale, with the fields that show it",
        (0, 7, 0),
        _causes(Cause.NOT_CURRENT),
        "writes them as they are now; the next change drifts again",
        "the table, from a document: `queue stats` names it, from the query (`unwatched`)",
    ),
    "reads_the_clock": Drift(
        "A document query that reads the clock (`now()`)",
        "stale, all of them, at each look",
        (0, 20, 0),
        _causes(Cause.NOT_CURRENT),
        "nothing for good: they differ a moment later, and `reindex` does not swap to such a query. Compute it when searching, or name the field in `verify_ignore`",
        "that the clock is why: the field that differs tells",
        heals=False,
    ),
    "dead_letter": Drift(
        "A document that OpenSearch refuses",
        "stale or missing, and dead",
        (0, 1, 0),
        _causes(Cause.REFUSED),
        "tries it again, and it is refused again; a scrub leaves it to `dlq retry`",
        "how to fix it: `dlq stats` has the error",
        heals=False,
    ),
}


def drift_page() -> str:
    """Return the page."""
    return page(
        "# Drift: what is found, repaired, and not known",
        MADE,
        "Documents and rows that disagree, with nothing on its way that changes that. `idxctl verify` counts them once, a scrub\n"
        "(`[scrub] every`, `idxctl worker start --scrub 24h`) again and again. Both compare every document with its row and every id of\n"
        "the index with the rows; what is queued or in flight is lagging, and no drift. A test makes each of these on real servers.",
        table(
            ("what happened", "`verify` says", "a repair", "not known"),
            [(cell(one.what), cell(one.says), cell(one.repair), cell(one.unknown)) for one in DRIFTS.values()],
        ),
        "A scrub logs some of what it finds with the cause, as far as row and document show it:",
        table(("cause", "what it says"), [(f"`{one.value}`", cell(one.sentence)) for one in Cause]),
        "A repair enqueues what differs: the row is read again when the task is claimed, and tokens and dead letters hold as for any\n"
        "change. It is refused where more than half of an index differ, or more than a tenth of it was written by something else: then it\n"
        "is the wrong database or the wrong index, or `idxctl reindex` is quicker.",
    )
