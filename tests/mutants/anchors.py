"""
Where a mutant differs, found by what the code is and not by where or how it is written: wherever a function has moved to.

Code is compared as a syntax tree, in all modules of the tree: formatting, comments and files do not matter. In a pattern

- `__` stands for any expression, and `__name` for any that is put where `__name` stands in the replacement;
- `...` stands for whatever else there is: statements of a block, arguments of a call;
- `here(x)` marks the part that is replaced, where the rest is there to find it.

Words (SQL, texts within a literal) are compared with any white space for white space, in all modules and all SQL.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HISTORIES = "tests/faults/test_histories.py"
WHERE = ("idxctl/**/*.py", "idxctl/**/*.sql", "migrations/*.sql")
_ANY = re.compile(r"__[a-z]*")
_UNLIKE = {"ctx", "kind", "type_comment", "type_ignores"}  # fields that say nothing of what the code does


class NotThereError(LookupError):
    """What a mutant replaces is not in the tree, or not as often as it should be."""


@dataclasses.dataclass(frozen=True)
class Span:
    """The bytes of a file that are replaced, and what by."""

    path: str
    begin: int
    end: int
    new: str


@dataclasses.dataclass(frozen=True)
class Code:
    """*old* stands *times* in the modules (within the function or class *within*, if named) and becomes *new*."""

    old: str
    new: str
    times: int = 1
    within: str = ""

    def spans(self, tree: Tree) -> list[Span]:
        """Return the places in *tree*."""
        pattern, new = _parsed(self.old), textwrap.dedent(self.new).strip()
        found = []
        for module in tree.modules:
            if all(word in module.text for word in _words_of(self.old)):
                found += [_replaced(module, match, new) for match in _matches(module, pattern, new, self.within)]
        return _as_often(found, self.times, self.old)


@dataclasses.dataclass(frozen=True)
class Words:
    """*old* stands *times* in SQL or in texts of the code (of the SQL statement *within*, if named) and becomes *new*."""

    old: str
    new: str
    times: int = 1
    within: str = ""

    def spans(self, tree: Tree) -> list[Span]:
        """Return the places in *tree*."""
        wanted = re.compile(r"\s+".join(re.escape(word) for word in self.old.split()).encode())
        found = []
        for path, text in tree.files.items():
            for begin, end in _sections(text, self.within):
                places = wanted.finditer(text, begin, end)
                found += [Span(path, place.start(), place.end(), self.new) for place in places]
        return _as_often(found, self.times, self.old)


Edit = Code | Words


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A rule left out, and the tests that must notice: a deterministic one, random histories, or both."""

    name: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


@dataclasses.dataclass(frozen=True)
class Module:
    """One Python file: its bytes, its syntax tree and where its lines begin."""

    path: str
    text: bytes
    nodes: ast.Module
    lines: tuple[int, ...]

    def offset(self, line: int, column: int) -> int:
        """Return the byte at which *column* of *line* is."""
        return self.lines[line - 1] + column


class Tree:
    """All files in which a mutant may differ, as they were read."""

    def __init__(self, root: Path) -> None:
        paths = sorted(path for pattern in WHERE for path in root.glob(pattern))
        self.root = root
        self.files = {str(path.relative_to(root)): path.read_bytes() for path in paths}

    @functools.cached_property
    def modules(self) -> tuple[Module, ...]:
        """The Python files among them."""
        made = []
        for path, text in self.files.items():
            if path.endswith(".py"):
                starts = [0, *(place.end() for place in re.finditer(b"\n", text))]
                made.append(Module(path, text, ast.parse(text), tuple(starts)))
        return tuple(made)


def changed(edits: Sequence[Edit], tree: Tree) -> dict[str, bytes]:
    """Return the files that differ once *edits* are made in *tree*."""
    spans: dict[str, list[Span]] = {}
    for edit in edits:
        for span in edit.spans(tree):
            spans.setdefault(span.path, []).append(span)
    texts = {}
    for path, each in spans.items():
        text = tree.files[path]
        for span in sorted(each, key=lambda one: one.begin, reverse=True):
            text = text[: span.begin] + span.new.encode() + text[span.end :]
        if path.endswith(".py"):
            ast.parse(text)
        texts[path] = text
    return texts


def _as_often(found: list[Span], times: int, old: str) -> list[Span]:
    if len(found) != times:
        places = ", ".join(one.path for one in found) or "nowhere"
        raise NotThereError(f"{len(found)} times, wanted {times} ({places}):\n{textwrap.dedent(old).strip()}")
    return found


def _parsed(pattern: str) -> list[ast.stmt]:
    return ast.parse(textwrap.dedent(pattern).strip()).body


@functools.cache
def _words_of(pattern: str) -> tuple[bytes, ...]:
    """Return the names that any file with a match holds: what spares most files the comparison."""
    nodes = [node for one in _parsed(pattern) for node in ast.walk(one)]
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    names += [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    return tuple({name.encode() for name in names if name != "here" and not _ANY.fullmatch(name)})


def _sections(text: bytes, name: str) -> list[tuple[int, int]]:
    if not name:
        return [(0, len(text))]
    place = re.search(rb"(?m)^-- name: " + re.escape(name.encode()) + rb"\b(?s:.*?)(?=^-- name: |\Z)", text)
    return [place.span()] if place else []


@dataclasses.dataclass
class _Match:
    first: ast.AST
    last: ast.AST
    held: dict[str, ast.AST]
    here: ast.AST | None = None


def _matches(module: Module, pattern: list[ast.stmt], new: str, within: str) -> Iterator[_Match]:
    alone = pattern[0].value if len(pattern) == 1 and isinstance(pattern[0], ast.Expr) else None
    marked = any(isinstance(node, ast.Name) and node.id == "here" for one in pattern for node in ast.walk(one))
    for root in _roots(module.nodes, within):
        if alone is not None and (marked or _is_expression(new)):
            for node in ast.walk(root):
                match = _Match(node, node, {})
                if isinstance(node, ast.expr) and _same(alone, node, match):
                    yield match
        else:
            for block in _blocks(root):
                for place in range(len(block) - len(pattern) + 1):
                    run = block[place : place + len(pattern)]
                    match = _Match(run[0], run[-1], {})
                    if all(_same(one, node, match) for one, node in zip(pattern, run, strict=True)):
                        yield match


def _is_expression(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    return True


def _roots(node: ast.AST, within: str, path: str = "") -> Iterator[ast.AST]:
    if not within or f".{path}".endswith(f".{within}"):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.FunctionDef | ast.ClassDef)
        yield from _roots(child, within, f"{path}.{child.name}" if named else path)


def _blocks(root: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(root):
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield value


def _same(pattern: object, node: object, match: _Match) -> bool:
    if isinstance(pattern, ast.Name) and _ANY.fullmatch(pattern.id):
        known = match.held.setdefault(pattern.id, node) if pattern.id != "__" else node
        return isinstance(node, ast.expr) and (known is node or ast.dump(known) == ast.dump(node))
    if isinstance(pattern, ast.Call) and isinstance(pattern.func, ast.Name) and pattern.func.id == "here":
        match.here = node
        return _same(pattern.args[0], node, match)
    if isinstance(pattern, list):
        return isinstance(node, list) and _same_list(pattern, node, match)
    if not isinstance(pattern, ast.AST):
        return type(pattern) is type(node) and pattern == node
    if type(pattern) is not type(node):
        return False
    if isinstance(pattern, ast.Call) and any(_is_rest(one) for one in pattern.args):
        return _same(pattern.func, node.func, match) and _same_arguments(pattern, node, match)
    fields = [name for name in pattern._fields if name not in _UNLIKE]
    return all(_same(getattr(pattern, name, None), getattr(node, name, None), match) for name in fields)


def _same_list(pattern: list, nodes: list, match: _Match) -> bool:
    """Whether they are alike one by one, `...` in a pattern being any number of them: the fewest that will do."""
    if not pattern:
        return not nodes
    if _is_rest(pattern[0]):
        for skipped in range(len(nodes) + 1):
            held = dict(match.held)
            if _same_list(pattern[1:], nodes[skipped:], match):
                return True
            match.held = held
        return False
    return bool(nodes) and _same(pattern[0], nodes[0], match) and _same_list(pattern[1:], nodes[1:], match)


def _same_arguments(pattern: ast.Call, node: ast.Call, match: _Match) -> bool:
    """Whether the arguments are alike, where any others may stand for `...`: the named ones in any order."""
    return _same_list(pattern.args, node.args, match) and all(
        any(one.arg == other.arg and _same(one.value, other.value, match) for other in node.keywords)
        for one in pattern.keywords
    )


def _is_rest(node: object) -> bool:
    node = node.value if isinstance(node, ast.Expr) else node
    return isinstance(node, ast.Constant) and node.value is ...


def _replaced(module: Module, match: _Match, new: str) -> Span:
    first, last = (match.here, match.here) if match.here is not None else (match.first, match.last)
    begin, end = module.offset(first.lineno, first.col_offset), module.offset(last.end_lineno, last.end_col_offset)
    for name, node in match.held.items():
        source = module.text[
            module.offset(node.lineno, node.col_offset) : module.offset(node.end_lineno, node.end_col_offset)
        ]
        new = re.sub(rf"\b{name}\b", lambda _, source=source: source.decode(), new)
    if isinstance(first, ast.stmt):
        new = textwrap.indent(new or "pass", " " * first.col_offset).strip()
    return Span(module.path, begin, end, new)
