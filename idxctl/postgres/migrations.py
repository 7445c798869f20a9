"""
The numbered migrations of this program, as their files have them.

Rules for a new migration (``migrations/NNNNNN_name.up.sql`` and ``.down.sql``):

- Released files never change; a later one corrects an earlier one.
- Additive first: new columns have defaults, new tables and functions are unknown to old workers; what an old worker still
  reads or calls goes a release later. So old and new workers run side by side while a fleet is upgraded.
- It can be run again over its own result (IF NOT EXISTS, OR REPLACE).
- The head of an up file says ``-- Old workers: survive`` (they go on working, and may be started again), ``stop`` (programs
  that do not know it refuse to start) or ``none``. The head of a down file lists the tables whose rows it loses:
  ``-- Loses: table (what its rows are called), ...``.
- Functions pin their search path to ``pg_catalog, pg_temp`` and name the schema of our own objects in their bodies, as
  000003 does; none is executable by PUBLIC; a SECURITY DEFINER trigger function looks at no value before it has checked the
  table. Statements of a step itself set that path before they call anything. Nothing is dropped with CASCADE.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from idxctl.core.errors import ConfigError

_FILE = re.compile(r"(\d{6})_(\w+)\.up\.sql")
_OLD_WORKERS = re.compile(r"^-- Old workers: (\w+)", re.MULTILINE)
_LOSES = re.compile(r"^-- Loses: (.+)$", re.MULTILINE)
_LOSS = re.compile(r"(\w+) \(([^)]+)\)")


@dataclass(frozen=True)
class Migration:
    """One numbered step, as its files have it."""

    version: int
    name: str
    up: str
    down: str

    @property
    def title(self) -> str:
        """Its number and name, as the file is called."""
        return f"{self.version:06d}_{self.name}"

    @property
    def checksum(self) -> str:
        """Of the up file: tells a file that was edited after it had been applied."""
        return hashlib.sha256(self.up.encode()).hexdigest()

    @property
    def old_workers_survive(self) -> bool:
        """Whether programs that do not know this step go on working over it."""
        found = _OLD_WORKERS.search(self.up)
        return found is not None and found.group(1) == "survive"

    @property
    def loses(self) -> tuple[tuple[str, str], ...]:
        """The tables whose rows the way down loses, each with the word for its rows."""
        return tuple((table, word) for line in _LOSES.findall(self.down) for table, word in _LOSS.findall(line))


def directory() -> Path:
    """Find the migrations: in the package (a wheel), otherwise in the checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "migrations", package.parent / "migrations"):
        if candidate.is_dir() and any(candidate.glob("*.up.sql")):
            return candidate
    raise ConfigError("idxctl's migrations are missing from this installation", hint="install idxctl again")


def known(place: Path | None = None) -> tuple[Migration, ...]:
    """Return the migrations of this program, in order."""
    return _read(place or directory())


@lru_cache(maxsize=8)
def _read(place: Path) -> tuple[Migration, ...]:
    found = []
    for path in sorted(place.glob("*.up.sql")):
        named = _FILE.fullmatch(path.name)
        if named is None:
            raise ConfigError(f"migration {path.name} is not called NNNNNN_name.up.sql")
        down = path.with_name(path.name.replace(".up.sql", ".down.sql"))
        found.append(
            Migration(
                version=int(named.group(1)),
                name=named.group(2),
                up=path.read_text(encoding="utf-8"),
                down=down.read_text(encoding="utf-8") if down.exists() else "",
            )
        )
    if [step.version for step in found] != list(range(1, len(found) + 1)):
        raise ConfigError(f"migrations are not numbered from 1 on: {', '.join(step.title for step in found)}")
    return tuple(found)
