"""``idxctl demo``: the main job on servers of its own, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import render
from idxctl.cli.terminal import is_terminal
from idxctl.core.errors import UsageError

if TYPE_CHECKING:
    from types import FrameType

    from idxctl.demo.home import Home
    from idxctl.embedded.servers import Servers

# What of the caller's environment is for a demo: the cache, and with servers that are given how to reach them.
_ALWAYS = ("IDXCTL_CACHE_DIR", "IDXCTL_DATABASE_URL", "IDXCTL_OPENSEARCH_URL")
_TALK_EVERY_SECONDS = 5.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running, to try things by hand.")] = False,
    stop: Annotated[
        Path | None, typer.Option("--stop", metavar="DIR", help="End a demo that was kept, and remove its directory.")
    ] = None,
    listings: Annotated[
        int, typer.Option(min=200, max=1_000_000, help="Listings in the marketplace.", show_default=True)
    ] = 3000,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", show_default=False, help="Where to keep everything [default: a new one]."),
    ] = None,
) -> None:
    """
    Start a real PostgreSQL and a real OpenSearch, load a marketplace, and do idxctl's job on it, explained step by step.

    Needs nothing installed but the extra: pip install 'idxctl[demo]'. IDXCTL_DATABASE_URL and IDXCTL_OPENSEARCH_URL name
    servers to use instead; the demo makes a database and an index of its own there. Nothing is left behind, unless with
    --keep.
    """
    if stop is not None:
        if keep or directory is not None:
            raise UsageError("--stop ends a demo that was kept; it goes with no other option")
        _stop(stop)
        return
    status = Signals().run(lambda signals: take(Terminal(signals), directory, listings, keep=keep))
    if status:
        raise typer.Exit(status)


def _stop(directory: Path) -> None:
    from idxctl.demo import home as homes

    with render.status(f"stopping the demo in {directory}"):
        stopped = homes.stop(directory, os.environ)
    servers = f"{' and '.join(stopped)} stopped, " if stopped else ""
    render.headline("ok", f"{servers}{directory} removed")


class _Interrupted(KeyboardInterrupt):
    """A signal asked for the end; a KeyboardInterrupt, since that is what every command already heeds."""


class Signals:
    """Runs the demo so that Ctrl-C, SIGTERM and a closed terminal end it, once, and in order."""

    def __init__(self) -> None:
        self.number = 0

    def run(self, act: Callable[[Signals], None]) -> int:
        """Run *act*; returns the exit status of the signal that ended it, or 0."""
        heeded = [one for one in _ENDING if signal.getsignal(one) is not signal.SIG_IGN]  # nohup ignores one
        before = {one: signal.signal(one, self._asked) for one in heeded}
        try:
            act(self)
        except KeyboardInterrupt:
            return 128 + (self.number or signal.SIGINT)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return 128 + self.number if self.number else 0

    def _asked(self, number: int, _frame: FrameType | None) -> None:
        if not self.number:  # while things are taken away, a second one must not stop that
            self.number = number
            raise _Interrupted

    def breathe(self) -> None:
        """End the demo here if a signal came where its exception could not pass."""
        if self.number:
            raise _Interrupted


class Terminal:
    """The tour on this process's stdout and stderr; see `idxctl.demo.tour.Stage`."""

    def __init__(self, signals: Signals) -> None:
        self.breathe = signals.breathe
        self.heading = render.heading
        self.say = render.out
        self.typed = render.typed

    def good(self, text: str) -> None:
        """Say that a check came out well."""
        render.headline("ok", text)

    def idxctl(self, *arguments: str) -> int:
        """Run a command of the command line in this process: what it shows is what it always shows."""
        from idxctl.cli.app import run

        try:
            run(list(arguments))
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 1
        return 0

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show what is waited for: a line that changes on a terminal, elsewhere one now and then."""
        if is_terminal(sys.stderr):
            with render.status(text) as change:
                yield change
            return
        yield _now_and_then()


def _now_and_then() -> Callable[[str], None]:
    """Say each new thing once, and its progress every few seconds."""
    said, said_at = "", 0.0

    def tell(text: str) -> None:
        nonlocal said, said_at
        thing = text.partition(":")[0]
        if thing != said or time.monotonic() - said_at > _TALK_EVERY_SECONDS:
            said, said_at = thing, time.monotonic()
            render.say(text)

    return tell


def take(stage: Terminal, directory: Path | None, listings: int, *, keep: bool) -> None:
    """Take the tour on *stage*: servers and a place of its own before, nothing left after, unless *keep*."""
    from idxctl.demo import home as homes
    from idxctl.demo.cleaner import Cleaner

    _own_environment()
    place, was_there = homes.choose(directory)
    cleaner = Cleaner(place, was_there=was_there)
    kept = False
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=was_there)
        _on_servers(stage, place, listings, keep=keep)
        kept = keep
    finally:
        if kept:
            cleaner.keep()
        elif trouble := cleaner.clean():
            render.warn(f"not all of the demo could be taken away: {trouble}")


def _own_environment() -> None:
    """Leave of the environment what is meant for a demo, and have its lines come out in order."""
    given = {name for name in ("IDXCTL_DATABASE_URL", "IDXCTL_OPENSEARCH_URL") if os.environ.get(name)}
    for name in list(os.environ):
        ours = name in _ALWAYS or (name.startswith("IDXCTL_OPENSEARCH_") and "IDXCTL_OPENSEARCH_URL" in given)
        libpq = name.startswith("PG") and "IDXCTL_DATABASE_URL" not in given  # for some other server
        if libpq or (name.startswith("IDXCTL_") and not ours):
            del os.environ[name]
    package = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)


def _on_servers(stage: Terminal, place: Path, listings: int, *, keep: bool) -> None:
    from idxctl.demo import home as homes
    from idxctl.demo.tour import Tour
    from idxctl.embedded.servers import start_servers

    stage.heading("servers")
    began = time.monotonic()
    with contextlib.ExitStack() as starting:
        tell = starting.enter_context(stage.waiting("starting the servers"))
        with start_servers(place, environ=os.environ, detach=keep, progress=tell) as servers:
            try:
                home = homes.settle_in(place, servers, os.environ)
                for name in homes.NOT_OURS:  # from here on the directory's own file says them
                    os.environ.pop(name, None)
                os.environ["IDXCTL_CONFIG"] = str(home.file)
                starting.close()
                with home.connect() as conn, contextlib.closing(home.opensearch()) as client:
                    tour = Tour(stage, home, servers, listings, conn, client)
                    tour.introduce(time.monotonic() - began)
                    tour.go()
                _part(stage, home, servers, kept=keep)
            except BaseException:
                _kill(servers)
                raise
            if not keep:
                _kill(servers)


def _kill(servers: Servers) -> None:
    """End the servers at once: nobody needs their data any more."""
    if servers.opensearch:
        servers.opensearch.kill()
    if servers.postgres:
        servers.postgres.stop("immediate")


def _part(stage: Terminal, home: Home, servers: Servers, *, kept: bool) -> None:
    """Say what to try next."""
    stage.heading("what to try next")
    if not kept:
        rows = [
            *_where_it_is(),
            ("idxctl demo --keep", "leaves the servers running, to try things by hand"),
            ("idxctl --help", "all commands"),
        ]
        _aligned(rows)
        stage.say("On your own tables: an idxctl.toml like the one above, then")
        stage.typed("idxctl migrate up && idxctl watch install && idxctl reindex && idxctl worker start")
        return
    from idxctl.demo import home as homes
    from idxctl.embedded.postgres import USER, packaged_bin

    given = [name for name, ours in (("DATABASE", servers.postgres), ("OPENSEARCH", servers.opensearch)) if not ours]
    psql = shlex.quote(shutil.which("psql") or str(packaged_bin() / "psql"))
    database = (  # the password stays out of what every user of the machine sees in a list of processes
        f"PGPASSFILE={shlex.quote(str(home.passfile))} {psql} -h 127.0.0.1 -p {servers.postgres.port} -U {USER} {homes.DATABASE}"
        if servers.postgres
        else f"psql, database {home.mark.database}"
    )
    search = f"{home.settings.opensearch.urls[0]}/{home.index}"
    stage.say(f"The servers run on. In {home.directory}:")
    for line in (
        *(command for command, _ in _where_it_is()),
        f"cd {shlex.quote(str(home.directory))}",
        *([f"unset {' '.join(f'IDXCTL_{name}_URL' for name in given)}"] if given else []),
        "idxctl worker start &",
        database,
    ):
        stage.typed(line)
    stage.typed("UPDATE listings SET title = 'Seen at once' WHERE id = 3;", "shop=>")
    stage.typed(f"curl '{search}/_doc/3?_source=title&pretty'")
    for line in ("idxctl queue stats", "idxctl dlq stats", "idxctl reindex", "idxctl watch status"):
        stage.typed(line)
    stage.say("To end it, and to remove the directory:")
    stage.typed(f"idxctl demo --stop {shlex.quote(str(home.directory))}")


def _where_it_is() -> list[tuple[str, str]]:
    """Return what makes the commands below work as they stand, where the shell does not find them: after `make demo`."""
    if shutil.which("idxctl"):
        return []
    for program in (Path(sys.argv[0]).absolute(), Path(sys.executable).with_name("idxctl")):
        if program.name == "idxctl" and os.access(program, os.X_OK) and program.is_file():
            return [(f'export PATH={shlex.quote(str(program.parent))}:"$PATH"', "where idxctl is")]
    return [(f'idxctl() {{ {shlex.quote(sys.executable)} -m idxctl "$@"; }}', "how idxctl is run here")]


def _aligned(rows: list[tuple[str, str]]) -> None:
    width = max(len(command) for command, _ in rows)
    for command, what in rows:
        render.out(f"  {command:<{width}}  {what}")
