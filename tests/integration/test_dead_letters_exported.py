"""`dlq export`, and `dlq purge --export`: letters are in a file, whole, before any of them is gone."""

from __future__ import annotations

import contextlib
import json
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from idxctl import dlq
from idxctl.core import failpoints
from idxctl.core.errors import IdxctlError
from support.rig import Rig, until

ALL = dlq.Selection()
ODD = 'a "quoted" line\nand \u202e\u2028 more'


@pytest.fixture
def cli(items: Rig, idxctl):
    fill(items, 5)
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


def fill(items: Rig, count: int, *, error: str = "boom") -> None:
    items.sql("TRUNCATE opensearch_indexing_dlq")
    items.sql(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error, data, history) "
        "SELECT %s, n::text, 'index', 1, %s, '{\"n\": 12345678901234567890.10}', '[{\"reason\": \"x\"}]' FROM generate_series(1, %s) n",
        items.index,
        error,
        count,
    )


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def left(items: Rig) -> int:
    return items.one("SELECT count(*) FROM opensearch_indexing_dlq")


def beside(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir() if one.name.startswith(".idxctl"))


def test_a_letter_is_written_as_it_is_shown_with_every_digit_of_its_data(items, cli, tmp_path):
    fill(items, 2, error=ODD)
    path = tmp_path / "letters.ndjson"
    done = cli("dlq", "export", str(path))
    assert (done.status, done.stdout) == (0, "")
    assert "2 dead letters written" in done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert '"n": 12345678901234567890.10}' in path.read_text()
    first, second = read(path)
    assert first == cli("dlq", "show", str(first["id"]), "-o", "json").json
    assert (first["last_error"], second["document_id"], left(items)) == (ODD, "2", 2)
    assert cli("dlq", "export").stdout == path.read_text()


@pytest.mark.parametrize(("selector", "count"), [(("--id", "ID"), 1), (("--document", "3"), 1), (("--older-than", "1h"), 0), (("--error", "GROUP"), 5), (("--index", "INDEX"), 5)])  # fmt: skip
def test_letters_are_selected_as_elsewhere(items, cli, tmp_path, selector, count):
    number, group = items.sql("SELECT min(id), min(fingerprint) FROM opensearch_indexing_dlq")[0]
    named = {"ID": str(number), "GROUP": group, "INDEX": items.index}
    words = [named.get(word, word) for word in selector]
    assert len(cli("dlq", "export", *words).stdout.splitlines()) == count
    if words[0] == "--id":
        words = words[1:]
    done = cli("dlq", "purge", *words, "--export", str(tmp_path / "x"), "-o", "json").json
    assert (done["purged"], left(items)) == (count, 5 - count)
    assert (tmp_path / "x").exists() is bool(count)


def test_what_is_purged_is_in_the_file_and_the_audit_names_it(items, cli, tmp_path):
    path = tmp_path / "letters.ndjson"
    before = cli("dlq", "export").stdout
    done = cli("dlq", "purge", "--all", "--yes", "--export", str(path))
    assert (done.status, left(items)) == (0, 0)
    assert "5 dead letters purged" in done.stdout
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (before, 0o600)
    assert items.one("SELECT detail ->> 'file' FROM opensearch_indexing_audit WHERE action = 'dlq purge'") == str(path)
    assert beside(path) == []


def test_a_dry_run_writes_nothing(items, cli, tmp_path):
    assert cli("dlq", "purge", "--all", "--dry-run", "--export", str(tmp_path / "x"), "-o", "json").json["purged"] == 5
    assert (left(items), (tmp_path / "x").exists()) == (5, False)


@pytest.mark.parametrize("what", ["file", "link", "directory", "-"])
@pytest.mark.parametrize("words", [("export",), ("purge", "--all", "--yes", "--export")], ids=["export", "purge"])
def test_nothing_is_written_over_and_nothing_purged(items, cli, tmp_path, what, words):
    path = tmp_path / "there"
    if what == "file":
        path.write_text("mine")
    elif what == "link":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "directory":
        path.mkdir()
    elif words == ("export",):
        pytest.skip("stdout")
    done = cli("dlq", *words, "-" if what == "-" else str(path))
    assert (done.status, left(items)) == (2, 5)
    assert "stdout" in done.stderr if what == "-" else "exists already" in done.stderr
    assert not (tmp_path / "nowhere").exists()
    assert what != "file" or path.read_text() == "mine"


def in_shell(cli, words: str) -> subprocess.Popen[str]:
    """Run a shell line in which `idxctl` stands for the command line."""
    command = " ".join(cli._command(()))
    return subprocess.Popen(
        ["bash", "-c", words.replace("idxctl", f"exec {command}")],
        env=cli.environ, cwd=cli.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_where_the_file_cannot_be_written_nothing_is_purged(items, cli, tmp_path):
    path = tmp_path / "no" / "letters"
    done = cli("dlq", "purge", "--all", "--yes", "--export", str(path))
    assert (done.status, left(items)) == (1, 5)
    assert f"{path} cannot be written: No such file or directory" in done.stderr


def test_where_the_room_ends_nothing_is_purged_and_nothing_left(items, cli, tmp_path):
    fill(items, 1_000)
    path = tmp_path / "letters"
    process = in_shell(
        cli, f"ulimit -f 100; idxctl dlq purge --all --yes --export {path}"
    )  # kilobytes: as on a full disk
    _, told = process.communicate(timeout=60)
    assert (process.returncode, left(items)) == (1, 1_000), told
    assert f"{path} cannot be written: File too large" in told
    assert (path.exists(), beside(path)) == (False, [])


def test_what_becomes_of_a_letter_after_it_was_written_keeps_it(items, cli, tmp_path):
    """Retried, failed again, or come back with its own age: what is deleted is what the file shows."""

    def meanwhile(name: str) -> None:
        if name == "dlq.exported":
            items.sql("UPDATE opensearch_indexing_dlq SET attempts = 2 WHERE document_id = '1'")
            items.sql("DELETE FROM opensearch_indexing_dlq WHERE document_id = '2'")
            items.sql(
                "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, created_at) "
                "SELECT index_name, 'back', action, created_at - interval '1 day' FROM opensearch_indexing_dlq LIMIT 1"
            )

    failpoints.install(meanwhile)
    try:
        done = dlq.purge(items.conn, ALL, everything=True, file=tmp_path / "letters")
    finally:
        failpoints.install(None)
    assert (done.purged, done.stayed) == (3, 2)
    assert items.sql("SELECT document_id, attempts FROM opensearch_indexing_dlq ORDER BY 1") == [("1", 2), ("back", 0)]
    assert len(read(tmp_path / "letters")) == 5


def test_a_deletion_that_fails_leaves_the_file_and_the_letters(items, cli, tmp_path):
    items.sql("CREATE RULE keep AS ON DELETE TO opensearch_indexing_dlq DO INSTEAD SELECT 1 / 0")
    with pytest.raises(IdxctlError):
        dlq.purge(items.conn, ALL, everything=True, file=tmp_path / "letters")
    assert (left(items), len(read(tmp_path / "letters"))) == (5, 5)


def test_two_hundred_thousand_letters_go_through_in_flat_memory(items, cli, tmp_path):
    def peak(path: Path) -> int:
        process = in_shell(cli, f"idxctl dlq purge --all --yes --export {path}")
        most = 0
        while process.poll() is None:
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                most = max(most, int(status.partition("VmHWM:")[2].split()[0]))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        assert process.returncode == 0, process.stderr.read()
        return most

    fill(items, 5_000)
    base = peak(tmp_path / "few")
    fill(items, 200_000)
    most = peak(tmp_path / "many")
    with (tmp_path / "many").open() as lines:
        assert sum(1 for _ in lines) == 200_000
    assert left(items) == 0
    assert most < base + 16_000, f"{base} kB for 5,000 letters, {most} kB for 200,000"
    print(f"{base} kB for 5,000 letters, {most} kB for 200,000")


@pytest.mark.parametrize("words", ["export", "purge --all --yes --export"])
def test_an_interrupted_export_leaves_the_letters_and_no_file(items, cli, tmp_path, words):
    fill(items, 200_000)
    path = tmp_path / "letters"
    process = in_shell(cli, f"idxctl dlq {words} {path}")
    until(lambda: beside(path), "the export did not begin")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert (process.returncode, left(items)) == (130, 200_000)
    assert (path.exists(), beside(path)) == (False, [])
