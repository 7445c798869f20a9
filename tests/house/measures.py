"""The measures, each a pure function over the parsed modules of a package."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MODULE_LINES = 400
FUNCTION_LINES = 60
SHARED_LINES = 6


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str  # "idxctl.queue.claim"
    text: str
    tree: ast.Module

    @property
    def place(self) -> str:
        """Its path below the package: "queue/claim.py"."""
        return "/".join(self.name.split(".")[1:]) + ".py"

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return self.text.count("\n")


@dataclass(frozen=True)
class Function:
    """One function, with all that stands in it; its signature aside, where a command has its options, a line each."""

    place: str  # "queue/claim.py claim", "worker/pool.py Worker.run"
    lines: int


@dataclass(frozen=True)
class Shared:
    """Lines that two places have in common, blank lines, comments and imports aside."""

    here: str  # "queue/claim.py:10"
    there: str
    lines: int


def read(package: Path) -> list[Module]:
    """Return the modules of a package, in order of their names."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        if parts[-1] in {"__init__", "__main__"}:
            continue
        text = path.read_text(encoding="utf-8")
        found.append(Module(".".join(parts), text, ast.parse(text)))
    return found


def functions(modules: Sequence[Module]) -> list[Function]:
    """Return every function, methods and inner ones too, the longest first."""
    found = [
        Function(f"{module.place} {name}", _below_signature(node))
        for module in modules
        for name, node in _defined(module.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return sorted(found, key=lambda one: -one.lines)


def attributes(modules: Sequence[Module]) -> list[tuple[str, int]]:
    """Return every class with how many attributes its instances have, the largest first: fields, and what is set on self."""
    found = []
    for module in modules:
        for name, node in _defined(module.tree):
            if isinstance(node, ast.ClassDef) and not any(_called(base) == "Enum" for base in node.bases):
                fields = {
                    one.target.id
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                }
                found.append((f"{module.place} {name}", len(fields | _set_on_self(node))))
    return sorted(found, key=lambda one: -one[1])


def circles(modules: Sequence[Module]) -> list[list[str]]:
    """Return the sets of modules that import each other, in functions and for types too."""
    names = {module.name for module in modules}
    graph = {module.name: set(_imported(module, names)) for module in modules}
    return sorted(sorted(group) for group in _strongly_connected(graph) if len(group) > 1)


def shared(modules: Sequence[Module], at_least: int = SHARED_LINES) -> list[Shared]:
    """Return pairs of places that have *at_least* lines in common, the longest first."""
    lines = {module.place: _counted(module) for module in modules}
    windows: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for place, texts in lines.items():
        for start in range(len(texts) - at_least + 1):
            windows[tuple(text for _, text in texts[start : start + at_least])].append((place, start))
    found: dict[tuple[str, str, int], list[int]] = defaultdict(list)  # two places and their distance: where they agree
    for spots in windows.values():
        for position, (place, start) in enumerate(spots):
            for other, begins in spots[position + 1 :]:
                found[place, other, begins - start].append(start)
    pairs = []
    for (place, other, distance), starts in found.items():
        for first, length in _runs(sorted(starts)):
            here, there = lines[place][first][0], lines[other][first + distance][0]
            pairs.append(Shared(f"{place}:{here}", f"{other}:{there}", length + at_least - 1))
    return sorted(pairs, key=lambda one: (-one.lines, one.here))


def _defined(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield prefix + node.name, node
            yield from _defined(node, f"{prefix}{node.name}.")
        else:
            yield from _defined(node, prefix)


def _below_signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0].lineno
    return (node.end_lineno or first) - first + 1


def _called(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _set_on_self(node: ast.ClassDef) -> set[str]:
    return {
        one.attr
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute)
        and isinstance(one.ctx, ast.Store)
        and isinstance(one.value, ast.Name)
        and one.value.id == "self"
    }


def _imported(module: Module, names: set[str]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:  # a module of a package, or a name of a module
                yield from (name for name in (f"{node.module}.{alias.name}", node.module) if name in names)


def _strongly_connected(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the groups in which each leads to each (Kosaraju)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str, edges: Mapping[str, set[str]], into: list[str]) -> None:
        seen.add(name)
        waiting = [(name, iter(sorted(edges[name])))]
        while waiting:
            here, rest = waiting[-1]
            following = next((one for one in rest if one not in seen), None)
            if following is None:
                into.append(here)
                waiting.pop()
            else:
                seen.add(following)
                waiting.append((following, iter(sorted(edges[following]))))

    for name in graph:
        if name not in seen:
            visit(name, graph, order)
    back: dict[str, set[str]] = {name: set() for name in graph}
    for name, to in graph.items():
        for one in to:
            back[one].add(name)
    seen.clear()
    groups = []
    for name in reversed(order):
        if name not in seen:
            group: list[str] = []
            visit(name, back, group)
            groups.append(set(group))
    return groups


def _counted(module: Module) -> list[tuple[int, str]]:
    """Return the lines that count, each with its number: no blank ones, comments, imports, or lone punctuation."""
    imports = {
        number
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = ((number, line.strip()) for number, line in enumerate(module.text.split("\n"), 1) if number not in imports)
    return [(number, line) for number, line in lines if any(map(str.isalnum, line)) and not line.startswith("#")]


def _runs(starts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield each run of numbers that follow one another: its first, and how many."""
    first = previous = None
    for start in starts:
        if previous is not None and start == previous + 1:
            previous = start
            continue
        if first is not None and previous is not None:
            yield first, previous - first + 1
        first = previous = start
    if first is not None and previous is not None:
        yield first, previous - first + 1
