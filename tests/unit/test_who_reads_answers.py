"""What OpenSearch, or whatever stands in its place, sent is read by `opensearch.answers`, `bulk_answers` and `hits`, and by nobody else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import idxctl

ROOT = Path(idxctl.__file__).parent
MODULES = {str(one.relative_to(ROOT)): ast.parse(one.read_text()) for one in sorted(ROOT.rglob("*.py"))}
INSIDE = "opensearch/"
READERS = {"answers", "bulk_answers", "answer_parts", "hits"}
RAW = {"opensearch/client.py", "opensearch/hosts.py", "opensearch/exchange.py"}  # bytes pass through these
SENDS = {
    "ask": INSIDE,
    "exchange": RAW,
    "perform_request": RAW,
    "_sent": RAW,
}  # what makes a request: where it may be called


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [
        one
        for one in ast.walk(tree)
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == name
    ]


def _reader(call: ast.Call) -> ast.expr | None:
    """Return what reads the answer of an ``ask``: its third argument, or that of the name."""
    named = [one.value for one in call.keywords if one.arg == "read"]
    return named[0] if named else call.args[2] if len(call.args) > 2 else None


def _is_of_answers(reader: ast.expr | None) -> bool:
    if isinstance(reader, ast.Lambda):  # one that is told what was asked for
        reader = reader.body.func if isinstance(reader.body, ast.Call) else None
    return isinstance(reader, ast.Attribute) and isinstance(reader.value, ast.Name) and reader.value.id in READERS


@pytest.mark.parametrize("name", SENDS)
def test_requests_are_made_in_one_room(name):
    callers = {module for module, tree in MODULES.items() if _calls(tree, name)}
    where = SENDS[name]
    strangers = {one for one in callers if not (one.startswith(where) if isinstance(where, str) else one in where)}
    assert strangers == set(), f"a request made with .{name}( outside {where}: add a function to idxctl/opensearch/"
    assert callers, f"nobody calls .{name}( any more: what is this test to look at?"


def test_each_answer_is_read_by_one_function_of_answers():
    asked = [(module, call) for module, tree in MODULES.items() for call in _calls(tree, "ask")]
    wrong = [
        f"{module}:{call.lineno}"
        for module, call in asked
        if module.startswith(INSIDE) and not _is_of_answers(_reader(call))
    ]
    assert len(asked) > 20
    assert wrong == []


def test_a_reader_of_ones_own_would_be_seen():
    def found(source: str) -> bool:
        (call,) = _calls(ast.parse(source), "ask")
        return _is_of_answers(_reader(call))

    assert found('client.ask("GET", "/", answers.info)')
    assert found('client.ask("GET", "/", read=lambda text: answers.listed(text, "x"))')
    assert not found('client.ask("GET", "/", json.loads)')
    assert not found('client.ask("GET", "/", lambda text: json.loads(text))')
    assert not found('client.ask("GET", "/", bytes)')


@pytest.mark.parametrize("library", ["json", "orjson"])
def test_nobody_else_in_the_room_parses_json(library):
    parsing = {
        module
        for module, tree in MODULES.items()
        if module.startswith(INSIDE)
        for call in _calls(tree, "loads")
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == library
    }
    assert parsing <= {"opensearch/answer_parts.py"}


@pytest.mark.parametrize(
    ("library", "importer"), [("opensearchpy", "opensearch/hosts.py"), ("msgspec", "opensearch/hits.py")]
)
def test_one_module_imports_it(library, importer):
    importing = {
        module
        for module, tree in MODULES.items()
        for one in ast.walk(tree)
        if (isinstance(one, ast.Import) and any(each.name.split(".")[0] == library for each in one.names))
        or (isinstance(one, ast.ImportFrom) and (one.module or "").split(".")[0] == library)
    }
    assert importing == {importer}
