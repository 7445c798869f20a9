"""The program's side of a guarded server: start it, signal it, wait for it, keep it. `guard` is the other side."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from idxctl.embedded import guard

LOG_LINES = 25


class Child:
    """
    A server process that ends with this one, however this one ends.

    It has a session of its own, so that Ctrl-C at a terminal reaches only the program, which then stops it in order.
    """

    def __init__(self, command: Sequence[object], *, log: Path, stop: int, death: int, identity: str = "same") -> None:
        script = [sys.executable, "-S", "-E", guard.__file__, str(int(stop)), str(int(death)), identity]
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                [*script, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                bufsize=0,
                start_new_session=True,
                cwd="/",
            )
        try:
            assert self._guard.stdout is not None
            with self._guard.stdout as line:
                self.pid = int(line.readline() or 0)
        except BaseException:
            self.close()
            raise

    @property
    def guard_pid(self) -> int:
        """The guard's process id: SIGTERM to it stops the server in order."""
        return self._guard.pid

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._guard.poll() is None

    def wait(self, seconds: float) -> int | None:
        """Return the server's exit status, or None when it still runs after *seconds*."""
        try:
            return self._guard.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def send(self, number: int) -> None:
        """Send the server a signal; one that has ended gets none."""
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._guard.stdin.write(bytes([number]))

    def stop(self, number: int, *, seconds: float) -> None:
        """End the server with signal *number*, with SIGKILL if it has not ended after *seconds*; wait until it has."""
        try:
            self.send(number)
            if self.wait(seconds) is None:
                self.send(signal.SIGKILL)
        finally:
            self.close()

    def keep(self) -> None:
        """Let the server outlive this process; SIGTERM to `guard_pid` ends it then."""
        self.send(guard.KEEP)
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.returncode = 0  # no longer ours to wait for, nor to be warned about

    def close(self) -> None:
        """Let go of the server: unless it is kept, the guard ends it. Wait for that."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()


def last_lines(log: Path, count: int = LOG_LINES) -> str:
    """Return the end of a log, for an error message."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65536))
        lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-count:])
    return ""
