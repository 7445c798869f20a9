"""Real worker processes of a rig: held at a named point, killed there, stopped by signals."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import idxctl as package
from support.rig import Rig, until

HERE = Path(__file__).parent
PATIENCE = 60


def environment(rig: Rig) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("IDXCTL_", "PG"))}
    ours = {
        "IDXCTL_DATABASE_URL": rig.database,
        "IDXCTL_OPENSEARCH_URL": rig.opensearch,
        "PYTHONPATH": str(Path(package.__file__).parents[1]),  # the code under test, also where another is installed
    }
    return {**kept, **ours}


class Process:
    """``idxctl`` as a process, held at the first arrival at *point* if one is given; killed at the end of the block."""

    def __init__(
        self, rig: Rig, *arguments: object, point: str | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self._rig = rig
        self._place = rig.directory / f"held-{point}-{len(list(rig.directory.iterdir()))}"
        self._place.mkdir()
        program = ["-m", "idxctl"] if point is None else [str(HERE / "held.py"), point, str(self._place)]
        self._errors = (self._place / "stderr").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, *program, "--config", str(rig.config), *map(str, arguments)],
            env={**environment(rig), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )

    def __enter__(self) -> Process:  # noqa: PYI034 - Self is 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()

    @property
    def said(self) -> str:
        """What it has logged so far."""
        return (self._place / "stderr").read_text()

    def wait_for(self, text: str) -> None:
        """Return once it has logged *text*."""
        until(lambda: text in self.said or self._ended(), f"{text!r} is not logged", seconds=PATIENCE)
        assert text in self.said, self.said

    def wait_until_held(self) -> None:
        """Return once it stands at its point."""
        reached = self._place / "reached"
        until(lambda: reached.exists() or self._ended(), "the point is not reached", seconds=PATIENCE)
        assert reached.exists(), self.said

    def release(self) -> None:
        """Let it go on from its point."""
        (self._place / "released").touch()

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def status(self) -> int:
        """Wait until it has ended; negative after a signal that it did not handle."""
        return self._process.wait(PATIENCE)

    def _ended(self) -> bool:
        return self._process.poll() is not None


def lapse(rig: Rig) -> None:
    """Let every lease lapse now; nobody needs to wait half a minute for that."""
    rig.sql("UPDATE opensearch_indexing_inflight SET lease_until = now() - interval '1 second'")
