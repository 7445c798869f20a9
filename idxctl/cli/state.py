"""
What every command shares: the configuration, connections, and the questions put to people.

The only place that reads settings from the environment. Engines are imported when first asked for, so that ``--help`` loads no driver.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idxctl.cli.terminal import is_terminal, warn
from idxctl.core.errors import ConfigError, IdxctlError, UsageError

if TYPE_CHECKING:
    from idxctl.config.settings import IndexSettings, Settings
    from idxctl.config.trust import Remark
    from idxctl.core.actor import Actor
    from idxctl.opensearch.client import Client
    from idxctl.postgres.connect import Connection, Pool


class Output(str, Enum):
    """The shapes data is printed in."""

    TABLE = "table"
    PLAIN = "plain"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    MARKDOWN = "markdown"


def _default_output() -> Output:
    return Output.TABLE if is_terminal(sys.stdout) else Output.PLAIN


OutputOption = Annotated[
    Output,
    typer.Option(
        "--output",
        "-o",
        default_factory=_default_output,
        show_default=False,
        help="How to print the data [default: table on a terminal, plain elsewhere].",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit.")]
IndexOption = Annotated[str | None, typer.Option("--index", metavar="INDEX", help="Only this index.")]
DocumentOption = Annotated[
    list[str] | None, typer.Option("--document", metavar="ID", help="Only of this document; may be repeated.")
]


def duration(text: str) -> timedelta:
    """Read a duration option, as a typer parser: ``typer.Option(parser=duration, metavar="DURATION")``."""
    from idxctl.core.durations import parse_duration

    return parse_duration(text)


ErrorOption = Annotated[
    str | None, typer.Option("--error", metavar="FINGERPRINT", help="Only letters of this group of errors.")
]
OlderOption = Annotated[
    timedelta | None,
    typer.Option(
        "--older-than", parser=duration, metavar="DURATION", help="Only letters created longer ago, such as 7d."
    ),
]


class NothingChanged(IdxctlError):  # noqa: N818 - it is an outcome
    """The answer to a question was no."""


@dataclass
class State:
    """One run of the command line. Settings and connections are made when first asked for."""

    config: Path | None = None
    debug: bool = False
    flags: Mapping[str, Any] = field(default_factory=dict)
    need_indexes: bool = True
    reason: str | None = None
    channel: str = field(default_factory=lambda: "cron" if os.environ.get("IDXCTL_CHANNEL") == "cron" else "cli")

    @cached_property
    def settings(self) -> Settings:
        """The configuration; raises `InvalidConfig` with all that is wrong."""
        return self.load()

    def load(self, **flags: Any) -> Settings:
        """Read the configuration with *flags* on top: ``load(**{"worker.workers": 3})``."""
        from idxctl.config.load import load
        from idxctl.config.problems import InvalidConfig

        given = {**self.flags, **flags}
        try:
            settings = load(environ=os.environ, flags=given, path=self.config, need_indexes=self.need_indexes)
        except InvalidConfig as error:
            _warn_of(error.remarks)
            raise
        _warn_of(settings.remarks)
        if not logging.getLogger("idxctl").handlers:  # a server says it in its log
            _warn_of(settings.http.remarks)
        return settings

    def indexes(self) -> Mapping[str, IndexSettings]:
        """Return the configured indexes; raises where there is none, and says which file was looked for."""
        if self.settings.indexes:
            return self.settings.indexes
        path = self.settings.path
        wanted = "an [indexes.NAME] table, with document, mapping and watch"
        hint = (
            f"{path} needs {wanted}"
            if path
            else "there is no idxctl.toml in this directory; name it with --config PATH"
        )
        raise ConfigError("no index is configured", hint=hint)

    def chosen(self, index: str | None) -> list[IndexSettings]:
        """Return the configured indexes that are meant: the one named, otherwise each in turn."""
        from idxctl.core.suggest import did_you_mean

        indexes = self.indexes()
        if index is None:
            return list(indexes.values())
        if index not in indexes:
            raise UsageError(
                f"there is no index {index} in the configuration",
                hint=did_you_mean(index, indexes) or "known: " + ", ".join(indexes),
            )
        return [indexes[index]]

    def because(self, reason: str | None) -> State:
        """Have what is done from now on stand in the audit with *reason*."""
        self.reason = reason
        return self

    @property
    def actor(self) -> Actor:
        """Who runs this command, for the audit."""
        from idxctl.core.actor import Actor

        return Actor(self.channel, reason=self.reason)

    def connect(self) -> Connection:
        """Open a connection to PostgreSQL; the caller closes it."""
        from idxctl.postgres.connect import connect

        return connect(self.settings.database, actor=self.actor)

    def pool(self) -> Pool:
        """Make a pool of connections to PostgreSQL, one a thread; the caller closes it."""
        from idxctl.postgres.connect import Pool

        return Pool(self.settings.database, actor=self.actor)

    def opensearch(self) -> Client:
        """Make a client of OpenSearch; nothing is sent yet. The caller closes it."""
        from idxctl.opensearch.client import connect

        return connect(self.settings.opensearch)

    @property
    def interactive(self) -> bool:
        """Whether someone can be asked: a terminal to read from and one to ask on."""
        return is_terminal(sys.stdin) and (is_terminal(sys.stderr) or is_terminal(sys.stdout))

    def confirm(self, question: str, *, yes: bool, flag: str = "--yes", unattended: bool = False) -> None:
        """
        Return if the answer is yes, otherwise raise.

        Without a terminal *yes* must have been given, by *flag*; *unattended* goes on without it, for commands that
        scripts have always run as they are.
        """
        if yes:
            return
        question += self._at_which_database()
        if not self.interactive:
            if unattended:
                return
            raise UsageError(f"this needs a yes, and there is no terminal to ask on: {question}", hint=f"add {flag}")
        from idxctl.core import legible

        sys.stderr.write(f"{legible.line(question)} [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer:  # Ctrl-D leaves the cursor behind the question
            sys.stderr.write("\n")
        if answer.strip().lower() not in {"y", "yes"}:
            raise NothingChanged("nothing was changed")

    def _at_which_database(self) -> str:
        """Return what a question ends with: someone with two terminals must see which database is meant."""
        if "settings" not in self.__dict__:  # none is in question
            return ""
        from idxctl.postgres.opening import describe

        return f" ({describe(self.settings.database)})"


def _warn_of(remarks: Sequence[Remark]) -> None:
    """Say on stderr, once a process, what is unwise about the files of the configuration."""
    from idxctl.config.trust import not_said_yet

    log = logging.getLogger("idxctl")
    for remark in not_said_yet(remarks):
        if log.handlers:  # where stderr is a log, perhaps of JSON, it is a line of that
            log.warning("%s", remark, extra={"fact": "warning"})
        else:
            warn(str(remark))


_current = State()


def current() -> State:
    """Return the state of this run."""
    return _current


def begin(state: State) -> None:
    """Make *state* the one of this run; the root command does it."""
    global _current  # noqa: PLW0603 - a process is one run of the command line
    _current = state
