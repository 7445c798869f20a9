"""``idxctl serve``: HTTP alone; ``worker start --http`` answers beside its work."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idxctl.cli import render
from idxctl.cli.log import LogFormat, configure
from idxctl.cli.state import current
from idxctl.cli.terminal import is_terminal
from idxctl.core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from types import FrameType

    from idxctl.config.settings import Settings
    from idxctl.worker.pool import Worker

_EXTRA = ("starlette", "uvicorn", "prometheus_client")


def serve(
    *,
    http: Annotated[
        str | None,
        typer.Option(
            "--http", metavar="HOST:PORT", show_default=False, help="Where to listen [default: 127.0.0.1:9321]."
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Change nothing, whatever the token.")] = False,
    log_format: Annotated[LogFormat, typer.Option("--log-format", help="How facts are logged.")] = LogFormat.HUMAN,
    hash_token: Annotated[
        bool,
        typer.Option("--hash-token", help="Read a token, print its hash for the file of tokens, and serve nothing."),
    ] = False,
) -> None:
    """
    Answer HTTP until stopped: status, queue, dead letters, metrics and health. Claims nothing.

    Once a token is configured (IDXCTL_HTTP_TOKEN, IDXCTL_HTTP_TOKENS_FILE) all but health and metrics needs one. Without
    any, nothing can be changed, and only this machine reads.
    """
    if hash_token:
        _print_hash()
        return
    state = current()
    configure(log_format, debug=state.debug)  # for what reading the configuration has to say
    settings = state.load(**{"http.read_only": read_only or None})
    configure(log_format, debug=state.debug, values=settings.database.keep_values)
    stopped = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stopped.is_set():
            os._exit(128 + number)
        stopped.set()

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, on_signal)
    with _server().serving(settings, listen=http):
        stopped.wait()


def _print_hash() -> None:
    """Read a token from stdin, or ask for it, and print what stands for it in the file of tokens."""
    from idxctl.config import bearers

    if is_terminal(sys.stdin):
        import getpass

        token = getpass.getpass("Token (nothing: make a random one): ", stream=sys.stderr)
        if not token:
            token = secrets.token_urlsafe(32)
            render.say(f"the token, shown this once: {token}")
    else:
        token = sys.stdin.readline().rstrip("\r\n")
    if not bearers.sendable(token):
        raise UsageError("a token is printable ASCII without blanks, on the first line of stdin")
    if len(token) < bearers.SHORTEST:
        raise UsageError(
            f"this token has {len(token)} characters, {bearers.SHORTEST} is the least",
            hint="a random one: openssl rand -base64 24 | idxctl serve --hash-token",
        )
    render.out(bearers.hash_line(token))
    render.say("a line of the file of tokens is: NAME viewer|operator HASH")


def answering(settings: Settings, listen: str | None, worker: Worker) -> AbstractContextManager[Any]:
    """Answer HTTP beside a worker where *listen* names an address; until the block ends."""
    if listen is None:
        return contextlib.nullcontext()
    answers: AbstractContextManager[Any] = _server().serving(settings, listen=listen, worker=worker)
    return answers


def _server() -> Any:
    """Return the server's module; what it needs comes with an extra."""
    try:
        from idxctl.web import server
    except ImportError as error:
        if (error.name or "").partition(".")[0] in _EXTRA:
            raise ConfigError(
                f"HTTP needs packages that are not installed ({error.name})", hint="pip install 'idxctl[http]'"
            ) from error
        raise
    return server
