"""A terminal of so many columns, on which a command writes; and what stands on it at the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

_STEERS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


def on_terminal(
    command: Sequence[str], *, environ: Mapping[str, str], cwd: Path, columns: int = 80, seconds: float = 120
) -> tuple[int, list[str]]:
    """Run *command* with stdout and stderr on a terminal; returns its status and the lines, without colour."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {**environ, "TERM": "xterm-256color"}
    environ.pop("COLUMNS", None)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environ, cwd=cwd)
    os.close(theirs)
    written = bytearray()
    with contextlib.suppress(OSError):  # EIO: nobody has it open any more
        while chunk := os.read(ours, 65536):
            written += chunk
    os.close(ours)
    status = process.wait(seconds)
    text = _STEERS.sub("", written.decode())
    return status, [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
