"""How results look: on a terminal, in a pipe, for programs."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from idxctl.cli import render
from idxctl.cli.render import Column
from idxctl.cli.state import Output
from idxctl.cli.terminal import is_terminal
from idxctl.core.secret import Secret


@dataclass(frozen=True)
class Row:
    index: str
    queued: int
    oldest: float | None
    note: str


ROWS = [Row("products", 12_408, 0.18, "plain"), Row("[/x] [bold]a[/bold]", 3, None, "a|b\nc")]
COLUMNS = [
    Column("index"),
    Column("queued", kind="count"),
    Column("oldest", kind="age"),
    Column("note", "what it says"),
]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Make stdout and stderr terminals of a width, and return what was written to both, colour and all."""

    def make(width=80, *, encoding="utf-8", **environ):
        for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"TERM": "xterm-256color", "COLUMNS": str(width), **environ}.items():
            monkeypatch.setenv(name, value)
        out, err = Terminal(), Terminal()
        out.encoding = err.encoding = encoding
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        return out, err

    return make


def unstyled(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# --- shapes ------------------------------------------------------------------------------------------------------------


def test_a_plain_table_is_not_cut_and_its_figures_are_aligned(capsys):
    rows = [Row("x" * 300, 1, 61, "y"), Row("z", 12_408, None, "")]
    render.table(rows, COLUMNS, Output.PLAIN)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("x" * 300)
    assert "12,408" in lines[2]
    assert lines[1].index("     1") == lines[2].index("12,408")
    assert "1 min" in lines[1]
    assert lines[2].count("\N{EN DASH}") == 2


def test_ids_keep_their_zeros(capsys):
    for output in (Output.PLAIN, Output.MARKDOWN, Output.CSV, Output.JSON):
        render.table([{"document_id": "0012"}, {"document_id": "1e5"}], ["document_id"], output)
        out = capsys.readouterr().out
        assert "0012" in out
        assert "1e5" in out


def test_json_has_all_that_a_row_holds_and_nothing_else(capsys):
    render.table(ROWS, [Column("index")], Output.JSON)
    assert json.loads(capsys.readouterr().out)[0] == {
        "index": "products",
        "queued": 12_408,
        "oldest": 0.18,
        "note": "plain",
    }


def test_ndjson_is_a_document_a_line(capsys):
    render.table(ROWS, COLUMNS, Output.NDJSON)
    assert [json.loads(line)["queued"] for line in capsys.readouterr().out.splitlines()] == [12_408, 3]


def test_csv_has_values_as_they_are(capsys):
    render.table(ROWS, COLUMNS, Output.CSV)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == {"index": "products", "queued": "12408", "oldest": "0.18", "note": "plain"}
    assert rows[1]["note"] == "a|b\nc"
    assert rows[1]["oldest"] == ""


def test_markdown_survives_bars_and_line_ends(capsys):
    render.table(ROWS, COLUMNS, Output.MARKDOWN)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "a\\|b c" in lines[3]
    assert "-:" in lines[1]


def test_an_empty_table_is_an_answer(capsys):
    render.table([], COLUMNS, Output.PLAIN, empty="No dead letters.")
    assert capsys.readouterr().out == "No dead letters.\n"
    render.table([], COLUMNS, Output.JSON)
    assert json.loads(capsys.readouterr().out) == []
    render.table([], COLUMNS, Output.CSV)
    assert capsys.readouterr().out == "index,queued,oldest,note\n"


def test_json_of_every_kind_of_value(capsys):
    moment = datetime(2026, 11, 2, 14, 20, 3, tzinfo=timezone.utc)
    render.json(
        {
            "at": moment,
            "took": timedelta(seconds=1.5),
            "word": Secret("hunter2"),
            "path": Path("a/b"),
            "shape": Output.CSV,
            "rows": (ROWS[0],),
            "big": 2**53 + 1,
        }
    )
    read = json.loads(capsys.readouterr().out)
    assert read == {
        "at": "2026-11-02T14:20:03+00:00",
        "took": 1.5,
        "word": "***",
        "path": "a/b",
        "shape": "csv",
        "rows": [{"index": "products", "queued": 12_408, "oldest": 0.18, "note": "plain"}],
        "big": 2**53 + 1,
    }


def test_a_record_in_every_shape(capsys):
    fields = [Column("index"), Column("queued", kind="count")]
    render.record(ROWS[0], fields, Output.PLAIN)
    assert capsys.readouterr().out == " index   products\n queued  12,408\n"
    render.record(ROWS[0], fields, Output.JSON)
    assert json.loads(capsys.readouterr().out)["note"] == "plain"
    render.record(ROWS[0], fields, Output.CSV)
    assert capsys.readouterr().out == "index,queued\nproducts,12408\n"
    render.record(ROWS[0], fields, Output.MARKDOWN)
    assert "| queued" in capsys.readouterr().out


def test_a_headline_is_not_among_data(capsys):
    for output in (Output.JSON, Output.NDJSON, Output.CSV):
        render.headline("ok", "fine", output)
        render.blank(output)
    assert capsys.readouterr().out == ""
    render.headline("bad", "18,204 tasks waiting", Output.PLAIN)
    assert capsys.readouterr().out == "bad 18,204 tasks waiting\n"


def test_talk_goes_to_stderr(capsys):
    render.say("working")
    render.warn("look")
    render.error("first\nsecond", hint="do this")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "working\nwarning: look\nerror: first\n       second\nhint:  do this\n"


def test_data_cannot_steer_the_terminal(capsys):
    render.table([{"a": "\x1b[2Jgone\rx"}], ["a"], Output.PLAIN)
    render.error("bad \x1b]0;title\x07 value")
    render.out("one \x1b[1m")
    render.say("two \x9b1m")
    captured = capsys.readouterr()
    assert not {"\x1b", "\x9b", "\x07"} & set(captured.out + captured.err)
    assert "\\x1b[2Jgone\\rx" in captured.out


# --- on a terminal -----------------------------------------------------------------------------------------------------


def test_markup_in_data_is_data(terminal):
    out, _ = terminal(100)
    render.table(ROWS, COLUMNS)
    assert "[/x] [bold]a[/bold]" in unstyled(out.getvalue())


def test_a_mark_is_a_coloured_symbol(terminal):
    out, _ = terminal()
    render.headline("ok", "fine [b]")
    assert out.getvalue() == "\x1b[32m✓\x1b[0m fine [b]\n"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colour_marks_are_words(terminal, environ):
    out, err = terminal(**environ)
    render.headline("warn", "look")
    render.table(ROWS, [*COLUMNS, Column("index", kind="state")])
    render.error("x")
    render.next_step("do")
    assert "\x1b" not in out.getvalue() + err.getvalue()
    assert out.getvalue().startswith("warn look\n")


def test_a_terminal_without_utf8_gets_ascii(terminal):
    out, _ = terminal(encoding="iso-8859-1")
    render.headline("bad", "a → b · c")
    render.table([{"a": None}], ["a"])
    assert unstyled(out.getvalue()).isascii()
    assert "bad a -> b | c" in unstyled(out.getvalue())


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_broken(terminal, width):
    out, _ = terminal(width)
    row = Row("marketplace_listings", 123_456_789, 7300, "price: not a number, e.g. “12,50” (12345)")
    render.table([row], COLUMNS)
    text = unstyled(out.getvalue())
    assert max(map(len, text.splitlines())) <= width
    assert "123,456,789" in text
    assert "2 h" in text


def test_words_wrap_and_are_never_cut(terminal):
    out, _ = terminal(60)
    words = " ".join(f"word{number}" for number in range(40))
    render.table([Row("products", 1, 1, words)], COLUMNS)
    found = re.findall(r"word\d+", unstyled(out.getvalue()))
    assert found == words.split()


def test_a_word_wider_than_its_column_is_folded_and_never_cut(terminal):
    out, _ = terminal(60)
    render.table([Row("products", 1, 1, "z" * 100)], COLUMNS)
    assert unstyled(out.getvalue()).count("z") == 100


def test_more_figures_than_fit_are_set_out_one_below_the_other(terminal):
    out, _ = terminal(40)
    figures = {f"figure_{number}": 100_000_000 + number for number in range(6)}
    render.table([figures, figures], [Column(key, kind="count") for key in figures])
    text = unstyled(out.getvalue())
    assert text.count("100,000,005") == 2
    assert max(map(len, text.splitlines())) <= 40


def test_what_to_do_next_is_dim_and_only_for_who_looks(terminal, capsys):
    render.next_step("idxctl doctor says more.")
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
    out, err = terminal()
    render.next_step("idxctl doctor says more.")
    render.next_step("not below data", Output.JSON)
    assert out.getvalue() == ""
    assert err.getvalue() == "\n\x1b[2midxctl doctor says more.\x1b[0m\n"


def test_json_is_indented_for_people(terminal):
    out, _ = terminal()
    render.json({"a": 1})
    assert out.getvalue() == '{\n  "a": 1\n}\n'


def test_a_recording_holds_what_a_terminal_would_show(capsys):
    with render.recorded(width=80) as console:
        render.headline("ok", "fine")
        render.table(ROWS, COLUMNS)
        render.next_step("idxctl doctor")
    svg = console.export_svg(title="idxctl")
    assert "products" in svg
    assert "doctor" in svg
    assert capsys.readouterr().out == ""


# --- progress ----------------------------------------------------------------------------------------------------------


def test_in_a_pipe_progress_is_a_line_now_and_then(capsys):
    now = [0.0]
    with render.progress("backfill", 200_000, clock=lambda: now[0]) as bar:
        for second in range(1, 13):
            now[0] = float(second)
            bar.update(10_000 * second)
        bar.advance(80_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "backfill  25 %  50,000/200,000  10,000/s  15 s left",
        "backfill  50 %  100,000/200,000  10,000/s  10 s left",
    ]


def test_progress_without_a_total_still_tells(capsys):
    assert render.progress_line("scan", 1_234, None, 2.0, "refreshing") == "scan  1,234  617/s  refreshing"
    assert render.progress_line("scan", 0, 0, 0.0) == "scan  0  0/s"


def test_on_a_terminal_progress_is_a_bar(terminal):
    out, err = terminal()
    with render.progress("back [fill", 10) as bar:
        bar.update(5, note="[/x]")
    text = unstyled(err.getvalue())
    assert out.getvalue() == ""
    assert "back [fill" in text
    assert "5/10" in text
    assert "[/x]" in text


def test_quiet_progress_is_silent(capsys):
    with render.progress("x", 10, quiet=True) as bar:
        bar.advance(5)
    assert bar.done == 5
    assert capsys.readouterr().err == ""


def test_a_status_line_is_said_once_in_a_pipe(capsys):
    with render.status("waiting [/x]") as change:
        change("still waiting")
    assert capsys.readouterr().err == "waiting [/x]\nstill waiting\n"


def test_a_real_terminal_is_recognised():
    parent, child = pty.openpty()
    with os.fdopen(child, "w", encoding="utf-8") as stream:
        assert is_terminal(stream)
    os.close(parent)
    assert not is_terminal(stream)  # closed
    assert not is_terminal(None)


WIDE = [
    Column("id"), Column("index"), Column("document_id", "document"), Column("kind"), Column("attempts", kind="count"),
    Column("enqueued_at", "age", "text"), Column("origin"), Column("last_error", "last error"),
]  # fmt: skip


def test_rows_too_wide_for_80_columns_are_a_few_lines_each_and_lose_no_word(terminal):
    name, document = "marketplace_listings_of_the_south", "9b2f7c1e-6c1d-4a39-8a4e-0f6f2f4f9a11"
    error = "failed to parse field [weight_g] of type [float] in document with id '9b2f': NaN is no number that counts"
    row = {"id": 12345, "index": name, "document_id": document, "kind": "document", "attempts": 2, "origin": "trigger"}
    rows = [{**row, "enqueued_at": "3 min", "last_error": None}, {**row, "enqueued_at": "1 h", "last_error": error}]
    out, _ = terminal(80)
    render.table(rows, WIDE)
    lines = unstyled(out.getvalue()).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) <= 8
    assert [line[:2] for line in lines if not line.startswith("   ")] == [" 1", " 1"]
    text = " ".join(" ".join(lines).split())
    assert text.count(f"index {name}") == text.count(f"document {document}") == 2
    assert f"last error {error}" in text
    assert text.count("last error") == 1


def test_an_id_longer_than_the_terminal_stays_whole(terminal):
    out, _ = terminal(80)
    render.table(
        [{"document_id": "x" * 200, **dict.fromkeys("abcdefgh", "a word or two")}], ["document_id", *"abcdefgh"]
    )
    assert "x" * 200 in unstyled(out.getvalue())
