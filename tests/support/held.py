"""
Run the command line and hold it at the first arrival at a named point: held.py POINT DIRECTORY ARGS...

DIRECTORY/reached is made on arrival; the process goes on once DIRECTORY/released is there.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import small

from idxctl.cli.app import run
from idxctl.core import failpoints


def main() -> None:
    point, directory = sys.argv[1], Path(sys.argv[2])
    first = threading.Lock()
    pause = threading.Event()

    def arrive(name: str) -> None:
        if name == point and first.acquire(blocking=False):
            (directory / "reached").touch()
            while not (directory / "released").exists():
                pause.wait(0.02)

    small.chunks_as_asked()
    failpoints.install(arrive)
    run(sys.argv[3:])


if __name__ == "__main__":
    main()
