"""The completion scripts: what is in the repository is what the program prints, and completing is light."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from idxctl.cli.app import NOUNS

ROOT = Path(__file__).parents[2]
FILES = {"bash": "idxctl.bash", "zsh": "_idxctl", "fish": "idxctl.fish"}


def idxctl(*arguments, python=(), **environment):
    argv = [sys.executable, *python, "-m", "idxctl", *arguments]
    return subprocess.run(
        argv, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def complete(line, *, python=(), shell="bash"):
    """Return what the program offers for the word that *line* ends with."""
    words = line.split(" ")
    if shell != "bash":
        variables = {"_IDXCTL_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
        return idxctl(python=python, _TYPER_COMPLETE_FISH_ACTION="get-args", **variables)
    variables = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1), "_IDXCTL_COMPLETE": "complete_bash"}
    return idxctl(python=python, **variables)


@pytest.mark.parametrize(("shell", "file"), FILES.items())
def test_the_file_is_what_the_program_prints(shell, file):
    printed = idxctl("completion", shell)
    assert printed.returncode == 0
    stored = (ROOT / "completions" / file).read_text()
    assert stored == printed.stdout, f"python -m idxctl completion {shell} > completions/{file}"


@pytest.mark.parametrize("file", FILES.values())
def test_the_scripts_name_no_place(file):
    script = (ROOT / "completions" / file).read_text()
    assert "/" not in script
    assert sys.prefix not in script


def test_an_unknown_shell_is_a_usage_error_that_names_the_known_ones():
    done = idxctl("completion", "tcsh")
    assert done.returncode == 2
    assert all(shell in done.stderr for shell in FILES)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("idxctl cro", {"cron"}),
        ("idxctl cron ", {"install", "remove", "show"}),
        ("idxctl cron install --lo", {"--log", "--logger"}),
        ("idxctl --config x cron show -o ", {"table", "plain", "json", "ndjson", "csv", "markdown"}),
        ("idxctl completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_commands_options_and_values_are_offered(line, offered):
    done = complete(line)
    assert set(done.stdout.split()) == offered
    assert done.stderr == ""


def test_all_nouns_are_offered():
    assert set(complete("idxctl ").stdout.split()) == {name for name, noun in NOUNS.items() if not noun.hidden}


@pytest.mark.parametrize("shell", FILES)
def test_help_is_offered_as_written_not_as_markup(shell):
    done = complete("idxctl --conf", shell=shell)
    assert "--config" in done.stdout
    assert shell == "bash" or "[default" in done.stdout


@pytest.mark.parametrize("shell", FILES)
@pytest.mark.parametrize("noun", NOUNS)
def test_completing_imports_no_driver(noun, shell):
    done = complete(f"idxctl {noun} -", python=("-X", "importtime"), shell=shell)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "idxctl" in imported
    assert not imported & {"psycopg", "opensearchpy", "crontab", "rich", "tabulate"}
