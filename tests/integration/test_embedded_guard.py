"""A guarded process ends with its program, whichever of them is killed, and outlives it only when it is kept."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import idxctl as package
from idxctl.embedded.child import Child
from idxctl.embedded.servers import wait_for_end

PROGRAM = """
import os, signal, sys
from pathlib import Path
from idxctl.embedded.child import Child

child = Child([sys.executable, "-c", "import signal; signal.pause()"], log=Path(sys.argv[1]),
              stop=signal.SIGTERM, death=signal.SIGKILL)
if sys.argv[2] == "keep":
    child.keep()
if sys.argv[2] == "fork" and os.fork() == 0:
    signal.pause()  # a copy that holds the pipe open
print(child.pid, child.guard_pid, os.getpid(), flush=True)
sys.stdin.read()
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({file!r}, 'w').close(); signal.pause()"


@pytest.fixture
def program(tmp_path):
    """Start a program that has a guarded child: the program, the child's pid and the guard's."""
    started = []

    def start(how=""):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, tmp_path / "log", how],
            env={**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        started.append(process)
        child, guard, _ = map(int, process.stdout.readline().split())
        return process, child, guard

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            pass


@pytest.fixture
def child(tmp_path):
    children = []

    def start(code):
        child = Child([sys.executable, "-c", code], log=tmp_path / "log", stop=signal.SIGTERM, death=signal.SIGKILL)
        children.append(child)
        return child

    yield start
    for child in children:
        child.close()


def gone(pid):
    return wait_for_end(pid, seconds=20)


def test_killed_program_takes_its_child_along(program):
    process, child, guard = program()
    process.kill()
    assert gone(child)
    assert gone(guard)


def test_forked_copy_of_the_program_does_not_keep_the_child_alive(program):
    process, child, _ = program("fork")
    process.kill()
    process.wait()
    assert gone(child)


def test_killed_guard_takes_the_child_along(program):
    _, child, guard = program()
    os.kill(guard, signal.SIGKILL)
    assert gone(child)


def test_kept_child_outlives_the_program_until_its_guard_is_told(program):
    process, child, guard = program("keep")
    process.kill()
    process.wait()
    assert not wait_for_end(child, seconds=2)  # longer than the guard's look at its parent takes
    os.kill(guard, signal.SIGTERM)
    assert gone(child)


def test_interrupt_at_the_terminal_does_not_reach_the_child(program):
    process, child, guard = program()
    assert os.getsid(process.pid) not in {os.getsid(child), os.getsid(guard)}


def test_child_that_ignores_the_signal_is_killed(child, tmp_path):
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    deaf = child(DEAF.format(file=str(ready)))
    ready.read_bytes()  # it has come to ignore SIGTERM
    deaf.stop(signal.SIGTERM, seconds=0.2)
    assert gone(deaf.pid)


@pytest.mark.parametrize("_turn", range(5))
def test_signal_right_after_the_start_is_not_lost(child, _turn):
    pausing = child("import signal; signal.pause()")
    pausing.send(signal.SIGTERM)
    assert pausing.wait(5) == 128 + signal.SIGTERM


def test_status_is_the_childs(child):
    assert child("raise SystemExit(7)").wait(20) == 7
    assert child("import os; os.kill(os.getpid(), 9)").wait(20) == 128 + 9


def test_command_that_does_not_exist_is_logged(tmp_path):
    missing = Child([tmp_path / "missing"], log=tmp_path / "log", stop=signal.SIGTERM, death=signal.SIGKILL)
    assert missing.wait(20) == 97
    missing.close()
    assert "No such file" in (tmp_path / "log").read_text()
