"""What a refusal of PostgreSQL's says of the right that is missing."""

from __future__ import annotations

import pytest

from idxctl.postgres import rights
from idxctl.postgres.statements import load

QUEUE = load("idxctl.queue", "queue.sql")
AUDIT = load("idxctl.postgres", "audit.sql")


@pytest.mark.parametrize(
    ("statement", "table", "privileges"),
    [
        (QUEUE["enqueue"], "opensearch_indexing_queue", ("SELECT", "INSERT")),
        (QUEUE["claim"], "opensearch_indexing_queue", ("SELECT", "UPDATE", "DELETE")),
        (QUEUE["pauses"], "opensearch_indexing_pauses", ("SELECT",)),
        (QUEUE["resume"], "opensearch_indexing_pauses", ("SELECT", "DELETE")),
        (QUEUE["move_watermark"], "opensearch_indexing_watches", ("SELECT", "UPDATE")),
        (AUDIT["entries"], "opensearch_indexing_audit", ("SELECT",)),
    ],
)
def test_what_a_statement_takes_is_read_from_it(statement, table, privileges):
    assert rights.needed(statement.text, table) == privileges


@pytest.mark.parametrize(
    ("sentence", "statement", "says"),
    [
        (
            "permission denied for table opensearch_indexing_queue",
            QUEUE["enqueue"].text,
            "SELECT, INSERT on it: idxctl grants --worker ROLE, or --operator ROLE",
        ),
        (
            "permission denied for table opensearch_indexing_audit",
            AUDIT["entries"].text,
            "SELECT on it: idxctl grants --viewer ROLE",
        ),
        (
            "permission denied for function opensearch_indexing_enqueue",
            "",
            "EXECUTE on it: idxctl grants --application ROLE",
        ),
        ("permission denied for schema idxctl", "", "USAGE on it: idxctl grants"),
        ("permission denied for sequence opensearch_indexing_token", "", "USAGE on it: idxctl grants --worker ROLE"),
        ("permission denied for table listings", "", "SELECT on it: idxctl grants --worker ROLE"),
        ("permission denied for materialized view totals", "", "SELECT on it"),
    ],
)
def test_a_refusal_names_the_right_and_who_gives_it(sentence, statement, says):
    assert says in (rights.hint(sentence, statement) or "")


def test_other_sentences_are_left_alone():
    assert rights.hint("must be owner of table listings") is None


def test_a_worker_and_a_viewer_have_no_way_to_change_what_was_noted():
    for kind in rights.KINDS:
        for right in rights.TABLES[kind].get("audit", ()):
            assert right.privileges == ("SELECT",)


def test_a_worker_updates_no_definition():
    for table in ("generations", "watches"):
        for kind in ("worker", "operator"):
            changing = [one for one in rights.TABLES[kind][table] if "UPDATE" in one.privileges]
            assert changing
            assert all(one.columns and "definition" not in one.columns for one in changing)
