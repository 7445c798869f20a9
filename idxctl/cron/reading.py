"""What a block of a tab does and when, read from its line."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from idxctl.core.errors import UsageError
from idxctl.cron.blocks import Block
from idxctl.cron.schedule import Schedule

_OPTION = "--config"


@dataclass(frozen=True)
class Shown:
    """A block found in a tab. What cannot be made out of an edited one is None."""

    name: str
    user: str
    first_line: int
    schedule: str | None
    command: str | None
    configuration: Path | None
    log: str | None
    to_logger: bool
    next_run_at: datetime | None
    text: str

    @property
    def output(self) -> str | None:
        """Where the entry's output goes."""
        return "syslog" if self.to_logger else self.log


def read(block: Block, user: str, now: datetime) -> Shown:
    """Make out of one block what it does and when."""
    text = os.fsdecode(block.body)
    entry = _entry(block.body)
    if entry is None:
        return Shown(
            block.name, user, block.first_line, None, None, None, None, to_logger=False, next_run_at=None, text=text
        )
    schedule, words = entry
    starts, ends = _command(words)
    after = words[ends:]
    named = names_of_files(block.body)
    return Shown(
        block.name,
        user,
        block.first_line,
        schedule.text,
        shlex.join(words[starts:ends]),
        named[0] if named and _OPTION in words[starts:ends] else None,
        after[after.index(">>") + 1] if ">>" in after[:-1] else None,
        to_logger="|" in after,
        next_run_at=schedule.next_run(now),
        text=text,
    )


def names_of_files(body: bytes) -> tuple[Path, ...] | None:
    """Return the configuration file that an entry names, and its env file; None where the entry cannot be read."""
    entry = _entry(body)
    if entry is None:
        return None
    words = entry[1]
    starts, ends = _command(words)
    command = words[starts:ends]
    config = command[command.index(_OPTION) + 1 : command.index(_OPTION) + 2] if _OPTION in command else []
    env_file = words[words.index(".") + 1 : words.index(".") + 2] if "." in words[:starts] else []
    return tuple(Path(word) for word in (*config, *env_file))


def _entry(body: bytes) -> tuple[Schedule, list[str]] | None:
    lines = [line.strip() for line in os.fsdecode(body).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) != 1:
        return None
    count = 1 if lines[0].startswith("@") else 5
    *fields, line = lines[0].split(None, count)
    try:
        schedule = Schedule(" ".join(fields))
        words = shlex.split(line.replace(r"\%", "%"))
        return schedule, shlex.split(words[2]) if words[:2] == ["/bin/sh", "-c"] else words
    except (UsageError, ValueError, IndexError):
        return None


def _command(words: Sequence[str]) -> tuple[int, int]:
    """Return where idxctl's own words stand: after flock and its options, before where the output goes."""
    starts = next((at + 5 for at in range(len(words)) if words[at + 1 : at + 4] == ["-n", "-E", "0"]), 0)
    ends = next((at for at in range(starts, len(words)) if words[at] in {";", ">>", "2>&1"}), len(words))
    return starts, ends
