"""Modules can be read in one sitting, functions seen whole, and none imports in a circle: what is longer says why in ARCHITECTURE."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from house import measures
from house.measures import Module

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def modules():
    return measures.read(ROOT / "idxctl")


def longer_for_a_reason() -> set[str]:
    """Return the places that the table of ARCHITECTURE names."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    section = text.split("## Longer than the rest\n", 1)[1].split("\n## ", 1)[0]
    return {
        place for row in re.findall(r"^\|(.+?)\|", section, re.MULTILINE) for place in re.findall(r"`([^`]+)`", row)
    }


def test_no_module_is_longer_than_can_be_read_in_one_sitting(modules):
    long = {module.place for module in modules if module.lines > measures.MODULE_LINES}
    assert not long - longer_for_a_reason(), "divide it by duty, or name it with the reason in docs/ARCHITECTURE.md"


def test_no_function_is_longer_than_a_screen(modules):
    long = {one.place for one in measures.functions(modules) if one.lines > measures.FUNCTION_LINES}
    assert not long - longer_for_a_reason(), "divide it, or name it with the reason in docs/ARCHITECTURE.md"


def test_no_modules_import_each_other_in_a_circle(modules):
    assert not measures.circles(modules)


def parsed(**texts: str) -> list[Module]:
    return [Module(f"p.{name}", text, ast.parse(text)) for name, text in texts.items()]


def test_a_circle_is_found_where_an_import_stands_in_a_function_or_is_for_types_alone():
    assert measures.circles(
        parsed(a="def f():\n    from p import b\n", b="if TYPE_CHECKING:\n    from p.a import x\n")
    ) == [["p.a", "p.b"]]
    assert not measures.circles(parsed(a="from p import b", b="import p.c", c=""))


def test_the_length_of_a_function_counts_what_stands_in_it_below_its_signature():
    found = measures.functions(
        parsed(a="class A:\n    def f(self):\n        def g():\n            pass\n        return g\n")
    )
    assert [(one.place, one.lines) for one in found] == [("a.py A.f", 3), ("a.py A.f.g", 1)]


def test_attributes_are_fields_and_what_is_set_on_self():
    text = "class A:\n    a: int\n    def f(self):\n        self.b, self.c = 1, 2\n        self.b += 1\n        x.d = self.e\n"
    assert measures.attributes(parsed(a=text)) == [("a.py A", 3)]


def test_lines_that_stand_twice_are_found_whatever_comments_and_blanks_stand_between():
    some = [f"x{number} = {number}" for number in range(8)]
    (found,) = measures.shared(parsed(a="\n".join(some), b="y = 1\n" + "\n\n# why\n".join(some)))
    assert (found.here, found.there, found.lines) == ("a.py:1", "b.py:2", 8)
