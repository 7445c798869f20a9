"""Lists: people are told what they do not see, and programs get the whole of it in flat memory."""

from __future__ import annotations

import contextlib
import csv
import io
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def command_line(items, idxctl):
    items.sql(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error) "
        "SELECT %s, n::text, 'index', 1, 'boom' FROM generate_series(1, 70) n",
        items.index,
    )
    items.sql("SELECT opensearch_indexing_enqueue(%s, n::text) FROM generate_series(1, 70) n", items.index)
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


@pytest.mark.parametrize("noun", ["dlq", "queue"])
def test_programs_get_the_whole_list_and_people_are_told_of_the_rest(command_line, noun):
    assert len(command_line(noun, "list", "-o", "json").json) == 70
    assert len(command_line(noun, "list", "-o", "ndjson").stdout.splitlines()) == 70
    assert len(list(csv.DictReader(io.StringIO(command_line(noun, "list", "-o", "csv").stdout)))) == 70
    for shape in ("table", "plain", "markdown"):
        done = command_line(noun, "list", "-o", shape)
        assert "20 of 70" in done.stderr
        assert "--limit 70" in done.stderr
    assert command_line(noun, "list", "--limit", "70").stderr == ""


@pytest.mark.parametrize("noun", ["dlq", "queue"])
def test_a_limit_holds_in_every_shape(command_line, noun):
    assert len(command_line(noun, "list", "-o", "json", "--limit", "3").json) == 3
    assert len(command_line(noun, "list", "-o", "ndjson", "--limit", "3").stdout.splitlines()) == 3
    assert "3 of 70" in command_line(noun, "list", "--limit", "3").stderr
    assert command_line(noun, "list", "-o", "json", "--index", "stil").status == 2


@pytest.mark.parametrize("shape", ["json", "ndjson", "csv"])
def test_a_long_list_takes_no_more_memory_than_a_short_one(items, command_line, shape):
    def fill(beyond, upto):
        items.sql(
            "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error) "
            "SELECT %s, n::text, 'index', 1, 'boom ' || repeat('x', 200) FROM generate_series(%s + 1, %s) n",
            items.index,
            beyond,
            upto,
        )

    def peak():
        process = subprocess.Popen(
            command_line._command(("dlq", "list", "-o", shape)),
            env=command_line.environ,
            cwd=command_line.cwd,
            stdout=subprocess.PIPE,
        )
        told, most = [], 0
        for chunk in iter(lambda: process.stdout.read(1 << 16), b""):
            told.append(chunk)
            with contextlib.suppress(OSError, IndexError):  # it has ended, and its last words are in the pipe
                status = Path(f"/proc/{process.pid}/status").read_text()
                most = max(most, int(status.partition("VmHWM:")[2].split()[0]))
        assert process.wait(30) == 0
        return b"".join(told).count(b"boom"), most

    fill(70, 5_000)
    few, base = peak()
    fill(5_000, 50_000)
    many, most = peak()
    assert (few, many) == (5_000, 50_000)
    assert most < base + 8_000, f"{base} kB for 5,000 letters, {most} kB for 50,000"
    print(f"{shape}: {base} kB for 5,000 letters, {most} kB for 50,000")


@pytest.mark.parametrize("noun", ["dlq", "queue"])
def test_a_list_of_one_document_has_that_document_alone(command_line, noun):
    assert {one["document_id"] for one in command_line(noun, "list", "--document", "7", "-o", "json").json} == {"7"}
    both = command_line(noun, "list", "--document", "7", "--document", "70", "-o", "json").json
    assert {one["document_id"] for one in both} == {"7", "70"}
    assert "7 of" not in command_line(noun, "list", "--document", "7").stderr
    nothing = command_line(noun, "list", "--document", "71")
    assert (nothing.status, nothing.stdout.startswith("No such")) == (0, True)


def test_letters_of_one_document_are_retried_and_purged_alone(items, command_line):
    assert command_line("dlq", "purge", "--document", "7", "-o", "json").json["purged"] == 1
    assert command_line("dlq", "retry", "--document", "8", "--dry-run", "-o", "json").json["retried"] == 1
    assert items.one("SELECT count(*) FROM opensearch_indexing_dlq") == 69


def test_a_cancelled_document_stands_in_the_audit(command_line):
    assert command_line("queue", "cancel", "--document", "7", "--yes", "-o", "json").json["cancelled"] == 1
    (entry,) = command_line("audit", "list", "--action", "queue cancel", "-o", "json").json
    assert entry["detail"] == {"documents": ["7"]}
