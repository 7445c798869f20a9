"""The shell around every command: help, the error boundary, questions."""

from __future__ import annotations

import io
import json
import os
import pty
import resource
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from idxctl.cli import app as shell
from idxctl.cli.state import NothingChanged, State
from idxctl.config.settings import DatabaseSettings, Settings
from idxctl.core import errors
from idxctl.core.errors import UsageError
from idxctl.core.secret import Secret

ENGINES = (
    "psycopg", "opensearchpy", "pydantic", "rich", "tabulate", "orjson", "msgspec", "xxhash", "botocore", "starlette", "uvicorn", "prometheus_client",
)  # fmt: skip

# Runs the command line with one more noun, whose commands end in every way there is.
TROUBLE = """
import sys
from idxctl.cli import app as shell, render
from idxctl.cli.app import plain_app
from idxctl.core import errors

module = type(sys)("trouble")
module.app = plain_app()

@module.app.command()
def known() -> None:
    raise errors.PartlyDone("97 of 100 done\\nthe rest is in the queue", hint="idxctl dlq stats")

@module.app.command()
def bug() -> None:
    raise ZeroDivisionError("division by zero")

@module.app.command()
def leaky() -> None:
    raise ValueError("postgresql://u:hunter2@h")

@module.app.command()
def interrupted() -> None:
    raise KeyboardInterrupt

@module.app.command()
def lines() -> None:
    for number in range(100_000):
        render.out(str(number))

@module.app.command()
def file() -> None:
    open("/no/such/file")

sys.modules["trouble"] = module
shell.NOUNS["trouble"] = shell.Noun("trouble", "Ends badly.")
shell.run()
"""


@pytest.fixture
def run(tmp_path):
    """Run the command line in a process of its own, in an empty directory."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("IDXCTL_", "PG"))}
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)

    def run(*arguments, code=None, env=None, **more):
        command = [sys.executable, *(["-c", code] if code else ["-m", "idxctl"]), *arguments]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.run(
            command, cwd=tmp_path, env={**environ, **(env or {})}, text=True, check=False, timeout=60, **options
        )

    return run


@pytest.fixture
def trouble(run):
    return lambda *arguments, **more: run(*arguments, code=TROUBLE, **more)


# --- help --------------------------------------------------------------------------------------------------------------


def test_help_lists_every_noun_with_its_whole_line(run):
    done = run("--help", env={"COLUMNS": "80"})
    assert done.returncode == 0
    for name, noun in shell.NOUNS.items():
        assert name in done.stdout
        assert noun.help in done.stdout
    assert "Exit status: 0 done" in done.stdout


def test_help_imports_no_engine_and_no_noun(run):
    code = "import atexit, sys; from idxctl.cli.app import run; atexit.register(lambda: print(*sys.modules)); run()"
    loaded = run("--help", code=code).stdout.split()
    assert "idxctl.cli.app" in loaded
    assert not [name for name in ENGINES if name in loaded]
    assert not [noun.module for noun in shell.NOUNS.values() if noun.module in loaded]


def test_no_module_of_the_command_line_imports_an_engine_at_its_top(run):
    modules = [noun.module for noun in shell.NOUNS.values()]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}]; print(*sys.modules)"
    loaded = run(code=code).stdout.split()
    assert modules[0] in loaded
    assert not [name for name in ENGINES if name in loaded]


def test_help_is_quick(run):
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize("name", sorted(shell.NOUNS))
def test_every_command_has_help_that_ends_with_its_exit_statuses(name):
    import typer

    command = shell._imported(name, shell.NOUNS[name])
    leaves = list(getattr(command, "commands", {}).values())
    if not hasattr(command, "commands") or command.invoke_without_command:
        leaves.append(command)
    assert leaves
    for leaf in leaves:
        assert leaf.help, leaf.name
        assert "Exit status: 0 done" in (leaf.epilog or ""), leaf.name
    assert isinstance(shell.app, typer.Typer)


def test_a_bare_call_shows_help_and_is_a_usage_error(run):
    done = run()
    assert done.returncode == 2
    assert "Usage: idxctl" in done.stderr
    assert done.stdout == ""


def test_version(run):
    from idxctl import __version__

    assert run("--version").stdout == f"idxctl {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("cnfig",), "error: No such command 'cnfig'. Did you mean 'config'?\nhint:  idxctl --help\n"),
        (("config", "shw"), "error: No such command 'shw'. Did you mean 'show'?\nhint:  idxctl config --help\n"),
        (("config", "show", "-o", "jsn"), "error: Invalid value for '--output' / '-o': 'jsn' is not one of"),
        (("config", "show", "more"), "error: Got unexpected extra argument"),
        (("--confg", "x"), "error: No such option: --confg"),
    ],
)
def test_what_cannot_be_understood_is_a_usage_error(run, arguments, wanted):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(wanted)
    assert done.stdout == ""


# --- the boundary ------------------------------------------------------------------------------------------------------


def test_a_known_error_is_told_with_its_hint_and_status(trouble):
    done = trouble("trouble", "known")
    assert done.returncode == 3
    assert done.stderr == "error: 97 of 100 done\n       the rest is in the queue\nhint:  idxctl dlq stats\n"
    assert done.stdout == ""


def test_a_known_error_has_its_traceback_only_on_request(trouble):
    done = trouble("--debug", "trouble", "known")
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert "error: 97 of 100 done" in done.stderr


def test_a_bug_is_one_line_and_with_debug_a_traceback(trouble):
    done = trouble("trouble", "bug")
    assert done.returncode == 1
    assert done.stderr.startswith("error: internal error: ZeroDivisionError: division by zero\nhint:  ")
    assert "Traceback" not in done.stderr
    assert "Traceback" in trouble("--debug", "trouble", "bug").stderr


def test_a_bug_shows_no_connection_string(trouble):
    done = trouble("trouble", "leaky")
    assert "internal error: ValueError" in done.stderr
    assert "hunter2" not in done.stderr


def test_ctrl_c_ends_quietly_with_130(trouble):
    done = trouble("trouble", "interrupted")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_what_the_system_refuses_is_no_bug(trouble):
    done = trouble("trouble", "file")
    assert (done.returncode, done.stderr) == (1, "error: /no/such/file: No such file or directory\n")


def test_a_reader_that_leaves_is_no_error(trouble, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = trouble("trouble", "lines", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("trouble", "lines"), ("--version",)], ids=["much", "little"])
def test_a_full_disk_is_told_once(trouble, arguments):
    with Path("/dev/full").open("w") as full:
        done = trouble(*arguments, stdout=full)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def closed(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-m", "idxctl", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)


def test_a_closed_stdout_is_told_once():
    done = closed("--version")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: standard output is closed")


def test_a_closed_stdout_that_nothing_was_to_be_written_to_is_no_error():
    done = closed("queue", "statz")
    assert done.returncode == 2
    assert "closed" not in done.stderr


def test_every_error_has_a_status_that_help_knows():
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.IdxctlError)]
    assert len(found) > 10
    assert {kind.exit_status for kind in found} <= set(shell.STATUSES)


def test_a_terminal_that_lacks_a_character_gets_it_escaped(run, tmp_path):
    (tmp_path / "ž.toml").write_text('[indexes.x]\ndocument = "SELECT 1"\n')
    done = run(
        "--config", "ž.toml", "config", "validate", "--offline", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok \\u017e.toml: 1 index")


# --- config ------------------------------------------------------------------------------------------------------------


def test_config_show_has_every_setting_its_source_and_no_secret(run, tmp_path):
    (tmp_path / "idxctl.toml").write_text('[opensearch]\nusername = "u"\npassword = "hunter2"\n')
    done = run("config", "show", "-o", "json", env={"IDXCTL_DATABASE_URL": "postgresql://u:hunter2@h/d"})
    assert done.returncode == 0
    assert "hunter2" not in done.stdout + done.stderr
    shown = json.loads(done.stdout)["settings"]
    assert shown["database.url"] == {"value": "***", "source": "IDXCTL_DATABASE_URL"}
    assert shown["opensearch.username"] == {"value": "u", "source": "idxctl.toml line 2"}
    assert shown["worker.lease"] == {"value": 30.0, "source": "default"}


def test_config_validate_tells_every_problem_on_stdout(run, tmp_path):
    (tmp_path / "idxctl.toml").write_text("[worker]\nworkers = true\n[wrker]\n")
    done = run("config", "validate", "--offline")
    assert (done.returncode, done.stderr) == (4, "")
    assert done.stdout.startswith("bad 2 problems in the configuration\n")
    found = json.loads(run("config", "validate", "--offline", "-o", "json").stdout)
    assert found["valid"] is False
    assert [problem["source"] for problem in found["problems"]] == ["idxctl.toml line 2", "idxctl.toml line 3"]


def test_config_validate_says_when_all_is_well(run, tmp_path):
    (tmp_path / "idxctl.toml").write_text('[indexes.x]\ndocument = "SELECT 1"\n')
    done = run("config", "validate", "--offline")
    assert (done.returncode, done.stdout) == (0, "ok idxctl.toml: 1 index, 0 watches, no problems\n")


# --- questions ---------------------------------------------------------------------------------------------------------


def test_without_a_terminal_a_question_is_a_usage_error_that_names_the_flag(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageError) as caught:
        State().confirm("Purge 128 dead letters?", yes=False)
    assert "Purge 128 dead letters?" in str(caught.value)
    assert caught.value.hint == "add --yes"
    State().confirm("Purge?", yes=True)
    State().confirm("Purge?", yes=False, unattended=True)


@pytest.mark.parametrize(
    ("answer", "goes_on"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("\x04", False)]
)
def test_on_a_terminal_the_answer_decides(monkeypatch, answer, goes_on):
    parent, child = pty.openpty()
    modes = termios.tcgetattr(child)
    modes[3] &= ~termios.ECHO  # what is typed would come back before the question
    termios.tcsetattr(child, termios.TCSANOW, modes)
    monkeypatch.setattr(sys, "stdin", os.fdopen(child, "r"))
    monkeypatch.setattr(sys, "stderr", os.fdopen(os.dup(child), "w"))
    os.write(parent, answer.encode())
    try:
        if goes_on:
            State().confirm("Purge?", yes=False, unattended=True)
        else:
            with pytest.raises(NothingChanged) as caught:
                State().confirm("Purge?", yes=False, unattended=True)
            assert (str(caught.value), caught.value.exit_status) == ("nothing was changed", 1)
        assert "Purge? [y/N]" in os.read(parent, 1000).decode()
    finally:
        sys.stdin.close()
        sys.stderr.close()
        os.close(parent)


def test_a_question_and_config_show_name_the_database_and_no_password(run):
    url = "postgresql://app:hunter2@db7:6543/shop"
    state = State()
    state.__dict__["settings"] = Settings(database=DatabaseSettings(url=Secret(url)))
    with pytest.raises(UsageError) as caught:
        state.confirm("Cancel 3 tasks?", yes=False)
    assert "Cancel 3 tasks? (PostgreSQL at db7:6543, database shop)" in str(caught.value)
    shown = run("config", "show", "-o", "json", env={"IDXCTL_DATABASE_URL": url})
    assert "PostgreSQL at db7:6543, database shop" in shown.stdout
    assert "hunter2" not in shown.stdout
