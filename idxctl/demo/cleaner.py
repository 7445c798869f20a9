"""
Take a demo's things away when it ends, however it ends: a process of its own that waits for the demo's last breath.

    python -m idxctl.demo.cleaner DIRECTORY [keep-directory]

Standard input is a pipe from the demo. Its end is the demo's end, or its wish: then the database and the indexes on given
servers go, and the directory. A byte before that means that the demo is kept, and nothing is done. What could not be taken
away is told on standard output.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

KEEP = b"k"


class Cleaner:
    """The demo's side: started before anything is made, so that nothing is ever there that nobody takes away."""

    def __init__(self, directory: Path, *, was_there: bool) -> None:
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, directory, *(["keep-directory"] if was_there else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is not for it
            cwd="/",
        )

    def keep(self) -> None:
        """Leave everything as it is."""
        self._process.communicate(KEEP)

    def clean(self) -> str:
        """Have everything taken away, and wait until it is; returns what could not be, in a sentence, or ""."""
        told, _ = self._process.communicate()
        return told.decode(errors="replace").strip()


def main(directory: Path, *, was_there: bool) -> None:
    """Wait, and clean."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    if sys.stdin.buffer.read(1) == KEEP:
        return
    # Imported now: most of the time this process is one that waits, and its start must not slow the demo's.
    from idxctl.core.errors import IdxctlError
    from idxctl.demo import home
    from idxctl.embedded.servers import stop_kept

    troubles = []
    for step in (
        lambda: stop_kept(directory),  # an end between keeping the servers and saying so
        lambda: home.take_away_given(directory, os.environ),
        lambda: home.empty(directory),
    ):
        try:
            step()
        except IdxctlError as error:
            troubles.append(error.message)
    if not was_there:
        with contextlib.suppress(OSError):
            directory.rmdir()
    if troubles:
        with contextlib.suppress(BrokenPipeError):
            os.write(1, "; ".join(troubles).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), was_there="keep-directory" in sys.argv[2:])
