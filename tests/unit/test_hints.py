"""What messages tell people to type next exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import idxctl
from idxctl.cli import app as shell

ROOT = Path(idxctl.__file__).parent
TYPED = re.compile(
    r"(?:^|[;:·,(]\s)idxctl ((?:[a-z]+|--[a-z-]+|[A-Z0-9]+|\d+\w)(?: (?:[a-z]+|--[a-z-]+|[A-Z0-9]+|\d+\w))*)"
)


def literals(file: Path) -> Iterator[str]:
    """Yield the strings of a module, with what is computed in them as X; docstrings speak of idxctl, not to people."""
    tree = ast.parse(file.read_text())
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            left_out.update(map(id, node.values))
            yield "".join(str(one.value) if isinstance(one, ast.Constant) else "X" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.value


MENTIONED = sorted(
    {(f.stem, m.group(1)) for f in ROOT.rglob("*.py") for one in literals(f) for m in TYPED.finditer(one)}
)


@pytest.mark.parametrize(("module", "typed"), MENTIONED, ids=[f"{module}: {typed}" for module, typed in MENTIONED])
def test_every_command_in_a_message_exists(module, typed):
    command = typer.main.get_command(shell.app)
    for word in typed.split():
        if word == "X":
            break
        if word.startswith("--"):
            known = {"--help", *(option for parameter in command.params for option in parameter.opts)}
            assert word in known, f"{module} names {word}"
        elif hasattr(command, "get_command"):
            found = command.get_command(None, word)
            assert found or command.invoke_without_command, f"{module} names idxctl {typed}"
            command = found or command


def test_the_messages_that_name_commands_are_found():
    assert len(MENTIONED) > 30
    assert ("watch", "watch status") in MENTIONED
