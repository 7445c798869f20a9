"""Mutants are found wherever the code is that they change, and their tests exist."""

from __future__ import annotations

import functools

import pytest

import mutants
from mutants.anchors import ROOT, Code, NotThereError, Tree, Words, changed

CODE = """
class Carrier:
    def carry(self, batch):
        if self.late(batch) and batch.size > 1:  # a reason
            return split(batch, by=2, why="late")
        try:
            send(batch)
        except OSError:
            return False
        return True
"""
SQL = """-- name: take
DELETE FROM queue
WHERE id = 1
-- name: look
SELECT * FROM queue WHERE id = 1
"""


@functools.cache
def tree():
    return Tree(ROOT)


@pytest.fixture
def small(tmp_path):
    (tmp_path / "idxctl/room").mkdir(parents=True)
    (tmp_path / "idxctl/room/moved.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "idxctl/room/moved.sql").write_text(SQL, encoding="utf-8")
    return Tree(tmp_path)


@pytest.mark.parametrize("mutant", mutants.ALL, ids=lambda one: one.name)
def test_mutant_can_be_made_and_its_tests_exist(mutant):
    for path, text in changed(mutant.edits, tree()).items():
        assert text != tree().files[path]
    for test in mutant.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or f"def {name.partition('[')[0]}(" in text


def test_no_two_mutants_have_one_name():
    assert len({one.name for one in mutants.ALL}) == len(mutants.ALL)


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (Code("self.late(batch) and (batch.size > 1)", "False"), "self.late(batch) and batch.size > 1", "False"),
        (Code("__size.size > 1", "__size.size > 2"), "batch.size > 1", "batch.size > 2"),
        (Code('split(..., why=here("late"))', "None"), '"late"', "None"),
        (Code("if here(__):\n    return split(...)", "True"), "self.late(batch) and batch.size > 1", "True"),
        (Code("try:\n    ...\nexcept OSError:\n    return here(False)", "True"), "return False", "return True"),
        (Code("send(batch)", ""), "send(batch)", "pass"),
        (Code("send(__what)", "first()\nsend(__what)"), "send(batch)", "first()\n            send(batch)"),
        (Code("batch.size", "3", within="Carrier.carry"), "batch.size", "3"),
    ],
)
def test_code_is_found_by_what_it_is(small, edit, before, after):
    assert changed([edit], small) == {"idxctl/room/moved.py": CODE.replace(before, after).encode()}


def test_words_are_found_whatever_white_space_is_between_them(small):
    made = changed([Words("queue WHERE id = 1", "queue", within="take")], small)
    assert made == {"idxctl/room/moved.sql": SQL.replace("queue\nWHERE id = 1", "queue").encode()}


@pytest.mark.parametrize(
    "edit",
    [Code("send(other)", ""), Code("batch", "None"), Words("WHERE id = 1", ""), Code("send(batch)", "", within="x")],
)
def test_what_is_not_there_or_too_often_is_refused(small, edit):
    with pytest.raises(NotThereError):
        changed([edit], small)
