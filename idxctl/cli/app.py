"""
The root of the command line: global options, the table of nouns and the error boundary.

A noun's module is imported when it is used, never to list it; that and the late imports of engines keep ``--help``
quick. To add a noun, add a line to `NOUNS`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
import typer.main

from idxctl.cli.state import State, begin, current

if TYPE_CHECKING:
    from types import FrameType

    from idxctl.core.errors import IdxctlError


@dataclass(frozen=True)
class Noun:
    """One command below the root: where it lives and the line ``--help`` shows for it."""

    module: str
    help: str
    attribute: str = "app"  # a typer.Typer, or a function that is the whole command
    hidden: bool = False
    exits: tuple[int, ...] = ()  # of a function: statuses beside the usual ones


# One line a noun, in the order of `--help`.
NOUNS: dict[str, Noun] = {
    "init": Noun("idxctl.cli.init", "Propose an index for a table, and write its files.", attribute="init"),
    "config": Noun("idxctl.cli.config", "Show or check the configuration; print its schema."),
    "migrate": Noun("idxctl.cli.migrate", "Create, update or remove idxctl's own tables."),
    "watch": Noun("idxctl.cli.watch", "Install the triggers that capture changes."),
    "index": Noun("idxctl.cli.index", "Compare configuration and live index; change it in place."),
    "reindex": Noun("idxctl.cli.reindex", "Rebuild an index without downtime."),
    "verify": Noun("idxctl.cli.verify", "Compare every document with its row, and repair what differs."),
    "explain": Noun(
        "idxctl.cli.explain",
        "Say why one document is missing or stale, and what helps.",
        attribute="explain",
        exits=(7,),
    ),
    "worker": Noun("idxctl.cli.worker", "Run workers, and see those that run."),
    "queue": Noun("idxctl.cli.queue", "See, add and cancel the tasks that wait."),
    "pause": Noun("idxctl.cli.pause", "Stop claims from an index.", attribute="pause"),
    "resume": Noun("idxctl.cli.pause", "Let workers claim from an index again.", attribute="resume"),
    "dlq": Noun("idxctl.cli.dlq", "See, retry and purge dead letters."),
    "grants": Noun(
        "idxctl.cli.grants", "Print the rights that each role needs, as SQL.", attribute="grants", exits=(3,)
    ),
    "audit": Noun("idxctl.cli.audit", "See who changed what, when and why."),
    "cron": Noun("idxctl.cli.cron", "Retry dead letters from cron: install, show, remove."),
    "serve": Noun("idxctl.cli.serve", "Answer HTTP without working: status, dead letters, metrics.", attribute="serve"),
    "monitoring": Noun("idxctl.cli.monitoring", "Write alert rules, a dashboard and a scrape configuration."),
    "demo": Noun("idxctl.cli.demo", "Take the whole tour, on servers of its own.", attribute="demo", exits=(7, 8)),
    "completion": Noun("idxctl.cli.completion", "Print the completion script of a shell.", attribute="completion"),
}

STATUSES = {
    0: "done",
    1: "failed",
    2: "usage",
    3: "done in part",
    4: "configuration",
    5: "server unreachable",
    6: "locked by another run",
    7: "a check says no",
    8: "wait timed out",
}


def exits(*more: int) -> str:
    """Return the epilog that lists a command's exit statuses: 0, 1, 2, 4 and 5 always, and *more*."""
    statuses = sorted({0, 1, 2, 4, 5, *more})
    return "Exit status: " + ", ".join(f"{status} {STATUSES[status]}" for status in statuses) + "."


EXIT = exits()


class ReaderGone(Exception):  # noqa: N818 - it is not an error
    """Whoever read our output has left, as ``head`` does."""


class LazyGroup(typer.core.TyperGroup):
    """A group that lists its commands from `NOUNS` and imports one when it is invoked."""

    _listing = False

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, noun in NOUNS.items():  # typer looks here for the nearest name of a mistyped one
            stub = typer.core.TyperCommand(name, help=noun.help, hidden=noun.hidden, rich_markup_mode=None)
            self.commands.setdefault(name, stub)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the stub while listing, otherwise the real command."""
        if self._listing or cmd_name not in NOUNS:
            return super().get_command(ctx, cmd_name)
        return _imported(cmd_name, NOUNS[cmd_name])

    @contextlib.contextmanager
    def _only_listing(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands without importing them."""
        with self._only_listing():
            super().format_commands(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete a command's name without importing them all."""
        with self._only_listing():
            return super().shell_complete(ctx, incomplete)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and tell a reader that left from other failures."""
        try:
            return super().invoke(ctx)
        except OSError as error:  # typer would end with status 1 and leave the interpreter to complain
            if error.errno == errno.EPIPE:
                raise ReaderGone from error
            raise


def _imported(name: str, noun: Noun) -> Any:
    """Return the real command of a noun."""
    found = getattr(import_module(noun.module), noun.attribute)
    if not isinstance(found, typer.Typer):
        single = plain_app()
        single.command(name, epilog=exits(*noun.exits))(found)
        command = typer.main.get_command(single)
    elif found.registered_groups or found.registered_callback or len(found.registered_commands) != 1:
        command = typer.main.get_command(found)
    else:
        command = typer.main.get_group(found)  # one command so far, a noun all the same
    command.name = name
    command.help = command.help or noun.help
    return command


def plain_app(**options: Any) -> typer.Typer:
    """Return a `typer.Typer` as every noun uses it: plain help, no completion options, help when called bare."""
    settings: dict[str, Any] = {
        "add_completion": False,
        "no_args_is_help": True,
        "rich_markup_mode": None,
        "pretty_exceptions_enable": False,
        "context_settings": {"help_option_names": ["-h", "--help"]},
    }
    return typer.Typer(**{**settings, **options})


def refuse_before_verb(ctx: typer.Context) -> None:
    """Refuse options that were given to a noun and not to the verb behind it, which would not know of them."""
    from idxctl.core.errors import UsageError

    def given(name: str) -> bool:
        source = ctx.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    options = [f"--{name.replace('_', '-')}" for name in ctx.params if given(name)]
    if options:
        raise UsageError(
            f"{', '.join(options)} stand{'s' if len(options) == 1 else ''} before {ctx.invoked_subcommand}, which would not see it",
            hint=f"write it behind: {ctx.command_path} {ctx.invoked_subcommand} …",
        )


app = plain_app(cls=LazyGroup, epilog=EXIT)


def _version(wanted: bool) -> None:
    if wanted:
        from idxctl import __version__
        from idxctl.cli import render

        render.out(f"idxctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="PATH", help="Configuration file [default: IDXCTL_CONFIG, else idxctl.toml]."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """
    Keep OpenSearch in step with PostgreSQL.

    Flags come before environment variables (IDXCTL_...), those before idxctl.toml, and that before the defaults.
    """
    begin(State(config=config, debug=debug))


def _terminated(number: int, _frame: FrameType | None) -> None:
    """End like Ctrl-C does, so that whatever is under way tidies up; `worker start` has a gentler way of its own."""
    raise SystemExit(128 + number)


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its status. The one place where errors are printed."""
    _tolerant_streams()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # a demo that runs commands heeds it already
        signal.signal(signal.SIGTERM, _terminated)
    try:
        status = _status(sys.argv[1:] if arguments is None else arguments)
        _flush()
    except (ReaderGone, BrokenPipeError):
        _let_go_of_stdout()
        status = 141  # as the shell reports a program that SIGPIPE ended
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _status(arguments: list[str]) -> int:
    """Run the command and return its exit status; say on stderr what went wrong."""
    from idxctl.core.errors import IdxctlError

    if "_IDXCTL_COMPLETE" in os.environ:
        from idxctl.cli.completion import enable

        enable()
    try:
        command = typer.main.get_command(app)
        ended = command.main(arguments, prog_name="idxctl", standalone_mode=False)
    except typer.TyperException as error:
        return _usage(error)
    except typer.Abort:
        return 130
    except IdxctlError as error:
        _explain(error)
        return error.exit_status
    except (ReaderGone, BrokenPipeError, KeyboardInterrupt, SystemExit):
        raise
    except OSError as error:
        return _system(error)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever is left is a bug of ours
        return _bug(error)
    return ended if isinstance(ended, int) else 0


def _usage(error: Any) -> int:
    """Say what typer did not understand, in the words of all our errors; it shows the help of a bare noun itself."""
    from idxctl.cli import render

    ctx = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" or not hasattr(error, "format_message"):
        error.show()
    else:
        render.error(error.format_message(), hint=f"{ctx.command_path} --help" if ctx else None)
    return int(getattr(error, "exit_code", 2))


def _explain(error: IdxctlError) -> None:
    from idxctl.cli import render

    if current().debug:
        _traceback(error)
    render.error(error.message, hint=error.hint)


def _bug(error: Exception) -> int:
    from idxctl.cli import render

    if current().debug:
        _traceback(error)
        return 1
    first = (str(error).splitlines() or [""])[0]
    render.error(
        f"internal error: {type(error).__name__}" + (f": {first}" if first and _harmless(first) else ""),
        hint="this is a bug in idxctl; idxctl --debug ... shows where",
    )
    return 1


def _system(error: OSError) -> int:
    """Say what the system refused: a full disk, a file that may not be written."""
    from idxctl.cli import render

    if current().debug:
        _traceback(error)
    name = f"{error.filename}: " if error.filename else ""
    render.error(name + (error.strerror or type(error).__name__))
    return 1


def _harmless(sentence: str) -> bool:
    """Whether a foreign exception's text is safe to show: not one that may hold a connection string."""
    return "://" not in sentence and "password" not in sentence.lower()


def _traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)


def _tolerant_streams() -> None:
    """Let neither a closed stream nor a character that the terminal's encoding lacks end the command."""
    if sys.stdout is None:
        sys.stdout = _Nowhere()
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


class _Nowhere(io.StringIO):
    """Stands for a stdout that was closed before we began: the command does its work, and its end says what was lost."""

    lost = False

    def write(self, text: str, /) -> int:
        """Keep nothing."""
        self.lost = self.lost or bool(text)
        return len(text)


def _flush() -> None:
    """Write what is still buffered while an error can be told."""
    if isinstance(sys.stdout, _Nowhere) and sys.stdout.lost:
        sys.exit(_system(OSError(errno.EBADF, "standard output is closed: what was to be written there is lost")))
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.exit(_system(error))


def _let_go_of_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail once more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
