"""What the programs of a soak share: a scene for as long as they work on it, and what is said at the end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from soak.scene import Scene


def carried_out(
    name: str,
    work: Callable[[Scene], list[str]],
    *,
    workers: int,
    listings: int,
    times: str,
    again: str = "",
) -> int:
    """
    Do *work* on a scene of its own; returns the exit status: 1 when *work* returns what is not as promised.

    The workers' logs are kept then, and it is said how to have it *again*.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the finally below: nothing is left running
    directory = Path(tempfile.mkdtemp(prefix=f"idxctl-{name}-"))
    print(f"load of the machine: {_load()}", flush=True)
    scene = Scene(directory, workers=workers, listings=listings, times=times)
    try:
        problems = [*work(scene), *(f"a bug in {log}" for log in scene.tracebacks())]
    finally:
        scene.close()
    print(f"load of the machine: {_load()}")
    for one in problems:
        print(f"FAILED: {one}")
    if problems:
        print(f"the workers' logs are in {directory}" + (f"; {again}" if again else ""))
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0


def _load() -> str:
    return f"{os.getloadavg()[1]:.1f} on {os.cpu_count()} cores"
