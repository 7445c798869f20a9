"""
Lists on a terminal of 80 columns, and in a pipe, with what real tables hold: long names, ids and errors.

No line is wider than the terminal, no word is broken, and nothing is left out without being said: what stands in the pipe stands
on the terminal too, word by word.
"""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from support.rig import Rig
from support.terminals import on_terminal

LONG = "marketplace_listings_of_the_north_and_south_2026"
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
ERROR = (
    "mapper_parsing_exception: failed to parse field [attributes.price_including_taxes] of type [scaled_float] in document "
    f"with id '{UUID}'. Preview of field's value: 'twelve euros and fifty cents'"
)
REASON = "the mapping of prices is changed, which takes the whole of this afternoon and perhaps the evening too"
LETTERS = """
    INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error, error_type, fingerprint, retryable)
    SELECT %s, %s || ':' || n, 'index', 3, %s, 'mapper_parsing_exception', 'a1b2c' || (n %% 7)::text, true
    FROM generate_series(1, 35) n"""
TASKS = """
    INSERT INTO opensearch_indexing_queue (index_name, document_id, action, attempts, last_error, origin, available_at)
    SELECT %s, %s || ':' || n, 'index', 1, %s, 'trigger', clock_timestamp() + interval '1 hour' FROM generate_series(1, 35) n"""
ACTS = """
    INSERT INTO opensearch_indexing_audit (actor, action, subject, count, operator, reason)
    SELECT '', 'dlq purge', %s, n, 'somebody.with.a.long.name@example.com', %s FROM generate_series(1, 69) n"""
ROLE = "a_role_with_a_rather_long_name_for_the_workers"


@pytest.fixture
def command_line(items: Rig, idxctl):
    for index in (LONG, items.index):
        items.sql(LETTERS, index, UUID, ERROR)
        items.sql(TASKS, index, UUID, ERROR)
    items.sql(ACTS, LONG, REASON)
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    assert idxctl("pause", "--index", items.index, "--reason", REASON).status == 0
    return idxctl


def shown(command_line, *arguments) -> tuple[int, list[str]]:
    return on_terminal(command_line._command(arguments), environ=command_line.environ, cwd=command_line.cwd)


def words(text: str) -> set[str]:
    """Words that do not depend on when it was asked: no figures, and no units, which are short."""
    return {
        word for word in text.split() if len(word) > 3 and (not re.search(r"\d", word) or "-" in word or "_" in word)
    }


LISTS = {
    "queue stats": (0, 7),
    "queue list": (0,),
    "dlq list": (0,),
    "dlq stats": (0,),
    "dlq show 1": (0,),
    "worker list": (0,),
    "watch status": (0,),
    "migrate status": (0,),
    "audit list": (0,),
    "verify": (0, 7),
    "reindex --dry-run": (0,),
    "index plan": (0,),
    "config show": (0,),
    "config validate": (0,),
}
CUT_AND_SAID = {"dlq list", "dlq stats"}  # the cause alone, with an ellipsis; dlq show has it whole
FIRST = {"error", "id", "name", "at"}  # headings of a first column, which a row of several lines leaves out
MARKS = {"✓", "!", "✗", "ok", "warn", "bad", "·", "\N{EN DASH}", "each:"}


def test_lists_fit_80_columns_with_every_word_whole(command_line):
    for name in LISTS:
        fits(command_line, name)


def fits(command_line, name: str) -> None:
    arguments = name.split()
    status, lines = shown(command_line, *arguments)
    assert status in LISTS[name], lines
    assert [line for line in lines if len(line) > 80 and len(line.split()) > 1] == []  # a path of its own length alone
    piped = command_line(*arguments)
    seen = "\n".join(lines)
    missing = words(piped.stdout) - words(seen) - MARKS - FIRST
    if name in CUT_AND_SAID:
        assert "…" in seen
        missing -= words(ERROR)
        for whole in ("mapper_parsing_exception:", "a1b2c0", *([LONG] if name == "dlq stats" else [f"{UUID}:35"])):
            assert {whole, f"{whole},"} & set(seen.split()), whole
    assert missing == set(), name


@pytest.mark.parametrize("shape", ["plain", "markdown"])
def test_a_pipe_gets_errors_whole(command_line, shape):
    for name in ("queue list", "dlq list", "dlq stats"):
        done = command_line(*name.split(), "-o", shape)
        assert "…" not in done.stdout
        assert done.stdout.replace("\\", "").count(ERROR) >= 7, name


@pytest.mark.parametrize(
    ("name", "table", "listed"),
    [
        ("queue list", "opensearch_indexing_queue", 20),
        ("dlq list", "opensearch_indexing_dlq", 20),
        ("audit list", "opensearch_indexing_audit", 50),
    ],
)
def test_a_list_that_is_cut_says_so_and_programs_get_the_whole(command_line, items, name, table, listed):
    arguments = name.split()
    total = items.one(f"SELECT count(*) FROM {table}")
    for extra in ([], ["-o", "plain"], ["-o", "markdown"]):
        told = command_line(*arguments, *extra).stderr
        assert told.startswith(f"{listed} of {total} "), told
        assert f"--limit {total} shows all" in told
    assert command_line(*arguments, "--limit", str(total)).stderr == ""
    assert command_line(*arguments, "--limit", "3").stderr.startswith(f"3 of {total} ")
    assert len(command_line(*arguments, "-o", "json").json) == total
    assert len([json.loads(line) for line in command_line(*arguments, "-o", "ndjson").stdout.splitlines()]) == total
    assert len(list(csv.DictReader(io.StringIO(command_line(*arguments, "-o", "csv").stdout)))) == total


def test_what_the_letters_of_a_list_have_in_common_is_said_above_it(command_line, items):
    for index in (LONG, items.index):
        status, lines = shown(command_line, "dlq", "list", "--limit", "7", *(["--index", index] if index == items.index else []))  # fmt: skip
        assert status == 0
        assert lines[0].startswith(f"each: index {items.index} · action index")


def test_rights_of_a_role_with_a_long_name(command_line, items):
    items.sql(f"CREATE ROLE {ROLE}")
    try:
        status, lines = shown(command_line, "grants", "--worker", ROLE)
        assert status == 0
        assert command_line("grants", "--worker", ROLE).stdout.splitlines() == [
            line for line in lines if line
        ]  # SQL is not wrapped
    finally:
        items.sql(f"DROP ROLE {ROLE}")


def test_queue_stats_keep_their_parts_for_programs(command_line, items):
    """Totals alone were what csv had, and ndjson was one object."""
    stats = command_line("queue", "stats", "-o", "json").json
    assert [one["index"] for one in stats["by_index"]] == [items.index]
    assert stats["other"]["queued"] == 35
    by_line = [json.loads(line) for line in command_line("queue", "stats", "-o", "ndjson").stdout.splitlines()]
    table = list(csv.DictReader(io.StringIO(command_line("queue", "stats", "-o", "csv").stdout)))
    for rows in (by_line, table):
        assert [one["index"] for one in rows] == [items.index, "other"]
        assert [int(one["queued"]) for one in rows] == [35, 35]
        assert rows[0]["state"] == f"paused: {REASON}"
        assert (rows[0]["pause"], rows[0]["pause_reason"]) == ("operator", REASON)
