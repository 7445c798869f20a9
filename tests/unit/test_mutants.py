"""Mutants move along with the code: the text that each replaces is there."""

import shutil

import pytest

import mutants


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda one: one.name)
def test_mutant_can_be_made_and_its_tests_exist(mutant, tmp_path):
    for path in {edit.path for edit in mutant.edits}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mutants.ROOT / path, tmp_path / path)
    mutants.make(mutant, tmp_path)
    for test in mutant.tests:
        path, _, name = test.partition("::")
        text = (mutants.ROOT / path).read_text(encoding="utf-8")
        assert not name or f"def {name.partition('[')[0]}(" in text
