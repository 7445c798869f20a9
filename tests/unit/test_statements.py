"""Every named statement: its comment, and the parameters it asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import idxctl
from idxctl.postgres.statements import Statement, load

ROOT = Path(idxctl.__file__).parent
FILES = sorted(ROOT.rglob("*.sql"))
OURS = [one for one in FILES if "-- name: " in one.read_text()]


@pytest.mark.parametrize("file", OURS, ids=lambda one: one.stem)
def test_comments_name_no_parameters(file):
    """psycopg reads placeholders in comments too: the statement would ask for a value that nobody gives."""
    package = ".".join(("idxctl", *file.parent.relative_to(ROOT).parts))
    for statement in load(package, file.name).values():
        comments = re.findall(r"--.*", statement.text)
        assert not [one for one in comments if "%" in one], statement.name


@pytest.mark.parametrize("file", OURS, ids=lambda one: one.stem)
def test_statements_say_what_they_are_for(file):
    package = ".".join(("idxctl", *file.parent.relative_to(ROOT).parts))
    assert [one.name for one in load(package, file.name).values() if not one.text.startswith("-- ")] == []


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ("public", 'SELECT nextval(\'"public".opensearch_indexing_token\') FROM "public".opensearch_indexing_queue'),
        ("o'k", "SELECT nextval('\"o''k\".opensearch_indexing_token') FROM \"o'k\".opensearch_indexing_queue"),
        (
            'a "b" %',
            'SELECT nextval(\'"a ""b"" %%".opensearch_indexing_token\') FROM "a ""b"" %%".opensearch_indexing_queue',
        ),
    ],
)
def test_tables_are_qualified_with_any_schema(schema, found):
    statement = Statement("x", "SELECT nextval('opensearch_indexing_token') FROM opensearch_indexing_queue")
    assert statement.qualified(schema).decode() == found
