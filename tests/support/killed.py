"""Run the command line and kill the process, as ``kill -9`` does, at the nth arrival at a named point: killed.py POINT NTH ARGS..."""

from __future__ import annotations

import os
import signal
import sys
import threading

import small

from idxctl.cli.app import run
from idxctl.core import failpoints


def main() -> None:
    point, left = sys.argv[1], [int(sys.argv[2])]
    lock = threading.Lock()

    def arrive(name: str) -> None:
        with lock:
            if name == point:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    small.chunks_as_asked()
    failpoints.install(arrive)
    run(sys.argv[3:])


if __name__ == "__main__":
    main()
