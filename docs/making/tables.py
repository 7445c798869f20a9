"""``tables.md``: idxctl's tables as a database has them, with what each is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from making.markdown import MADE, cell, code_cell, page, table

PREFIX = "opensearch_indexing_"

# In the order of the page. Tables whose columns people use have a text for each.
TABLES: Mapping[str, str] = {
    "queue": "One row per captured change that waits. Writers only append; workers merge duplicates when they claim.",
    "inflight": "One row per claimed batch, its tasks in arrays; its key is the batch's token.",
    "dlq": "Dead letters: one per index, document and action.",
    "workers": "Heartbeats of worker processes.",
    "pauses": "Indexes from which nothing is claimed, and why.",
    "generations": "The numbered indexes behind each alias, with the definition each was made from.",
    "generation_failures": "Documents that a generation lacks which is not live. They become dead letters if it goes live.",
    "reindex_runs": "Runs of `reindex`, with their state.",
    "reindex_chunks": "The key ranges of a run.",
    "reindex_digests": "What a run has sent, as sixteen bytes a document, until it ends: the new index is checked by it.",
    "verify_runs": "Runs of `verify`, with their state and, once they are over, their counts.",
    "verify_ranges": "The key ranges of a run of `verify`.",
    "verify_differences": "Documents that a run of `verify` found to differ. Removed when the next run begins.",
    "watches": "Watches as installed; rows are replaced, never changed.",
    "audit": "Who did what, when, from where and why.",
    "token_jumps": "Gaps in the sequence of tokens, after a restore or failover.",
    "settings": "What idxctl keeps about this database.",
    "migrations": "Migrations that were applied.",
    "barrier": "No rows: its lock keeps claims and changes of the set of generations apart.",
}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "queue": {
        "id": "Number of the task, in the order of enqueuing.",
        "index_name": "The index (alias).",
        "document_id": "The document.",
        "action": "`index` or `delete`; a hint, since the row decides when it is read.",
        "priority": "Higher is claimed earlier.",
        "attempts": "Attempts spent.",
        "available_at": "Not claimed before.",
        "enqueued_at": "When the change was made.",
        "last_error": "Why it is tried again.",
        "origin": "What enqueued it: a trigger, `api`, `dlq`, ...",
        "kind": "`document`, or a task that stands for many: `keys` (a lookup), `sweep`, `coarse`.",
        "payload": "Of a lookup: the changed rows' join columns.",
        "split_group": "Keeps the halves of a rescued batch apart.",
    },
    "dlq": {
        "id": "Number of the letter; it stays through a retry.",
        "index_name": "The index (alias).",
        "document_id": "The document.",
        "listing_id": "`document_id` as a number, for older programs.",
        "action": "`index` or `delete`.",
        "data": "What an older program stored; idxctl itself stores nothing here.",
        "attempts": "Attempts spent.",
        "last_error": "The error, in words.",
        "created_at": "When the document first became a letter.",
        "last_attempt_at": "When it last failed.",
        "error_type": "The name of the error: [errors.md](errors.md#why-a-document-became-a-dead-letter).",
        "fingerprint": "The same for errors of one kind, whatever their values.",
        "token": "Of the write that failed; a later success with a greater one clears the letter.",
        "retryable": "Whether a retry can help while the row stays as it is.",
        "retries": "How often it was retried.",
        "not_before": "Not retried before, unless it is named.",
        "origin": "What enqueued its task.",
        "history": "Its failed attempts, with their time.",
        "duplicate": "A second letter of one document and action in an adopted table without its unique constraint.",
        "whole_id": "The whole id, where `document_id` is a short name for one that PostgreSQL could not index.",
    },
    "audit": {
        "id": "Number of the row.",
        "at": "When, by the database's clock.",
        "action": "What was done, such as `dlq purge`.",
        "actor": "Who, as programs of before the next columns wrote it.",
        "subject": "To what.",
        "count": "To how many.",
        "database_user": "The role that logged in.",
        "address": "Where it connected from.",
        "operator": "Who, as the program says.",
        "channel": "`cli`, `cron`, `http`, `library` or `worker`.",
        "reason": "`--reason`.",
        "detail": "More, as the action has it.",
    },
}

_SQL = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'p') AND n.nspname = %s AND starts_with(c.relname, %s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""

Found = Mapping[str, list[tuple[str, str, bool]]]


def found_in(connection: psycopg.Connection[Any], schema: str = "public") -> Found:
    """Return each of our tables with name, type and NOT NULL of its columns."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for name, column, kind, needed in connection.execute(_SQL, (schema, PREFIX)):
        found.setdefault(name.removeprefix(PREFIX), []).append((column, kind, needed))
    return found


def tables_page(found: Found) -> str:
    """Return the page."""
    return page(
        "# Tables",
        MADE,
        "All in one schema: `[database] schema`, or else the first of the search path. Read them as you like; write to them only\n"
        "through idxctl, by the function `opensearch_indexing_enqueue(index, document_id, action, priority, available_at)`, or, in the table\n"
        "of dead letters, by the statements of [an older program](how-to/coming-from-an-older-indexer.md). Which role may do what:\n"
        "[security.md](security.md#roles-and-rights). Columns without a text may change with any release.",
        *(part for name in TABLES for part in _section(name, found[name])),
    )


def _section(name: str, columns: list[tuple[str, str, bool]]) -> tuple[str, str, list[str]]:
    texts = COLUMNS.get(name, {})
    rows = [
        (code_cell(column), cell(kind + ("" if needed else ", may be NULL")), cell(texts.get(column, "")))
        for column, kind, needed in columns
    ]
    return f"## {PREFIX}{name}", TABLES[name], table(("column", "type", ""), rows)
