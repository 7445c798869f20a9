"""What reading the configuration brings up beside its values: problems, remarks on files, and where each value came from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from idxctl.config.trust import Remark, Standing
from idxctl.core.errors import ConfigError

if TYPE_CHECKING:
    from idxctl.config.settings import Settings


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it stands, what it is and what to do."""

    source: str  # "idxctl.toml line 14", "IDXCTL_WORKER_WORKERS", "--workers"
    where: str  # "indexes.products.watch 2", or "" where the source says it all
    what: str
    fix: str = ""

    def __str__(self) -> str:
        sentence = self.what + (f"; {self.fix}" if self.fix else "")
        return ": ".join(part for part in (self.source, self.where, sentence) if part)


class InvalidConfig(ConfigError):  # noqa: N818 - reads as the state it is
    """The configuration cannot be used; ``problems`` holds every reason."""

    def __init__(
        self,
        problems: Sequence[Problem],
        *,
        hint: str | None = None,
        remarks: Sequence[Remark] = (),
        rest: Settings | None = None,
    ) -> None:
        lines = [str(problem) for problem in problems]
        message = lines[0] if len(lines) == 1 else "\n".join([f"{len(lines)} problems in the configuration", *lines])
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)
        self.remarks = tuple(remarks)  # on files that were read
        self.rest = rest  # what is in order, to be looked at further, where all that is wrong is within indexes


@dataclass
class Findings:
    """Gathered while a configuration is read; one per `load`."""

    problems: list[Problem] = field(default_factory=list)
    remarks: dict[tuple[str, Path], Remark] = field(default_factory=dict)  # by kind and file
    sources: dict[str, str] = field(default_factory=dict)  # "worker.lease" -> "IDXCTL_WORKER_LEASE"
    unread: set[str] = field(
        default_factory=set
    )  # "opensearch.password": given, reported, and not to be called missing

    def wrong(self, source: str, where: str, what: str, fix: str = "") -> None:
        """Report a problem."""
        self.problems.append(Problem(source, where, what, fix))

    def in_order(self) -> list[Problem]:
        """Return the problems by their lines; what does not stand in the file comes first."""
        return sorted(self.problems, key=_place)

    def note(self, standing: Standing, *, secret: bool = False) -> None:
        """Remark on a file that was read: whose it is and, if it holds a secret, whether others can read it."""
        remarks = [standing.belongs_to_somebody_else()] if standing.foreign else []
        remarks += [standing.can_be_read()] if secret and standing.exposed else []
        self.remarks.update({(one.kind, one.path): one for one in remarks})


def _place(problem: Problem) -> tuple[bool, int]:
    """Order by line, 0 for what does not stand in the file."""
    line = re.search(r" line (\d+)$", problem.source)
    return (line is not None, int(line.group(1)) if line else 0)
