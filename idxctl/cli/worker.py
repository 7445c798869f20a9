"""``idxctl worker``: run a pool, and look at those that run."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from datetime import timedelta
from enum import Enum
from queue import SimpleQueue
from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.log import LogFormat, configure
from idxctl.cli.render import Column
from idxctl.cli.serve import answering
from idxctl.cli.state import OutputOption, current, duration
from idxctl.core.errors import IdxctlError, PartlyDone

if TYPE_CHECKING:
    from types import FrameType

    from idxctl.config.settings import Settings
    from idxctl.opensearch.client import Client
    from idxctl.worker.pool import Worker

log = logging.getLogger("idxctl.worker")
app = plain_app(help="Run workers, and see those that run.")


class Preset(str, Enum):
    """Workers and queue size by traffic: below 10 requests a second, to 100, above, and for bursts."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    BURST = "burst"


def _period(text: str) -> str:
    """Take a duration, or off; the configuration reads it."""
    if text.strip().lower() != "off":
        duration(text)
    return text


@app.command(epilog=exits(3) + " 130 or 143 when a second signal ended it at once.")
def start(
    *,
    workers: Annotated[int | None, typer.Option(min=1, show_default=False, help="Threads [default: 5].")] = None,
    queue_size: Annotated[
        int | None,
        typer.Option(min=1, show_default=False, help="Tasks at which the queue counts as full [default: 1000]."),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(help="Workers and queue size: low 2/100, medium 5/1000, high 10/5000, burst 15/10000."),
    ] = None,
    drain_timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            show_default=False,
            help="How long the first signal waits for what is in flight [default: 30s].",
        ),
    ] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End once nothing is queued or in flight.")
    ] = False,
    index: Annotated[
        list[str] | None, typer.Option("--index", metavar="INDEX", help="Only this index; may be repeated.")
    ] = None,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="Answer HTTP there too: metrics, health, dead letters."),
    ] = None,
    scrub: Annotated[
        str | None,
        typer.Option(
            "--scrub",
            parser=_period,
            metavar="DURATION",
            show_default=False,
            help="Compare every document with its row once in this time, in quiet moments; off: not at all [default: off].",
        ),
    ] = None,
    log_format: Annotated[LogFormat, typer.Option("--log-format", help="How facts are logged.")] = LogFormat.HUMAN,
) -> None:
    """
    Claim tasks, index their documents, settle; until stopped.

    The first SIGTERM or Ctrl-C finishes what is in flight and ends with 0; what the drain timeout leaves over goes back into
    the queue as it was. A second one leaves at once, and so does SIGKILL: other workers take the batches over within
    seconds. None of them loses anything.

    Whoever stops it should wait some seconds longer than the drain timeout: TimeoutStopSec=40 in a systemd unit,
    terminationGracePeriodSeconds: 40 in a pod (its default, 30, is the default drain timeout itself).

    PostgreSQL must answer at the start (exit status 5, for a supervisor to try again); later outages of it, and all of
    OpenSearch, are waited for.
    """
    signals = _Signals()
    from idxctl.indexes import names
    from idxctl.postgres import migrate, surroundings
    from idxctl.status.watcher import watching
    from idxctl.verify import scrub as scrubs
    from idxctl.worker.pool import Options, Worker

    state = current()
    state.channel = "worker"
    given = {
        "worker.workers": workers,
        "worker.queue_size": queue_size,
        "worker.preset": preset.value if preset else None,
        "scrub.every": scrub,
    }
    state.flags = {**state.flags, **{name: value for name, value in given.items() if value is not None}}
    configure(log_format, debug=state.debug)  # for what reading the configuration has to say
    settings = state.settings
    configure(log_format, debug=state.debug, values=settings.database.keep_values)
    pool, client = state.pool(), state.opensearch()
    try:
        migrate.require(pool.mine())
        for warning in surroundings.open_to_others(pool.mine()):
            log.warning("%s", warning)
        for name in index or ():
            names.check_known(pool.mine(), settings, name)
        options = Options.of(settings, until_empty=until_empty, indexes=index or None)
        worker = Worker(pool, client, options)
        _say_started(settings, client, worker)
        signals.drain(worker)
        began = time.monotonic()
        seconds = drain_timeout.total_seconds() if drain_timeout is not None else settings.worker.drain_timeout_seconds
        beside = scrubs.scrubbing(worker, pool, client, scrubs.Options.of_settings(settings, indexes=options.indexes))
        with watching(worker, pool, client, settings), beside, answering(settings, http, worker):
            worker.run(drain_timeout=seconds)
        _say_stopped(worker, time.monotonic() - began)
    finally:
        pool.close()
        client.close()
    if worker.kept:
        raise PartlyDone(
            f"{worker.kept:,} tasks are left: their index is paused or has no generation, or a lookup cannot be run",
            hint="idxctl queue stats names it; idxctl resume, or idxctl reindex; idxctl queue list shows what a lookup met",
        )


def _say_started(settings: Settings, client: Client, worker: Worker) -> None:
    from idxctl.postgres.opening import describe
    from idxctl.worker.options import fact

    try:
        name, version = client.info()
        search = f"{'OpenSearch' if name == 'opensearch' else name} {'.'.join(map(str, version))}"
    except IdxctlError as error:
        search = f"OpenSearch does not answer yet ({error.message})"
    options = worker.options
    fact(
        "started",
        f"{options.workers} threads, queue size {options.queue_size:,}, {describe(settings.database)}, {search}, pid {os.getpid()}",
        worker=worker.id, threads=options.workers, queue_size=options.queue_size, pid=os.getpid(),
    )  # fmt: skip


_DOUBLED_SECONDS = 1.0


class _Signals:
    """
    First signal: drain; before there is anything to drain, end. Second one, of either kind: leave at once. But the same SIGTERM
    again within a second is one that a supervisor and its process group both passed on.

    Installed first of all: the first process of a container is not ended by a signal that it does not handle.
    """

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._asked = 0  # the signal that did
        self._asked_at = 0.0
        self._told: SimpleQueue[int] = SimpleQueue()  # its put may be called in a handler, whatever was interrupted
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self._arrived)

    def drain(self, worker: Worker) -> None:
        """Have the first signal drain *worker* from now on."""
        threading.Thread(target=self._tell, args=(worker,), name="signals", daemon=True).start()
        self._worker = worker

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            if number == self._asked == signal.SIGTERM and time.monotonic() - self._asked_at < _DOUBLED_SECONDS:
                return
            os._exit(128 + number)  # leases lapse, nothing is lost
        self._asked = number
        self._asked_at = time.monotonic()
        if self._worker is None:
            raise SystemExit(0)
        self._told.put(number)

    def _tell(self, worker: Worker) -> None:
        from idxctl.worker.options import fact

        self._told.get()
        in_flight = worker.in_flight
        worker.stop()
        fact("draining", f"{in_flight} batches in flight; again to leave at once (nothing is lost)", batches=in_flight)


def _say_stopped(worker: Worker, seconds: float) -> None:
    from idxctl.core.durations import format_duration
    from idxctl.worker.options import fact

    counters = worker.counters
    fact(
        "stopped",
        f"{counters.indexed:,} indexed, {counters.dead:,} dead, in {format_duration(seconds)}",
        **counters.shown(),
    )


@app.command("list", epilog=exits())
def list_(output: OutputOption) -> None:
    """Show the workers that run, on every host."""
    from idxctl.postgres import migrate
    from idxctl.status import views
    from idxctl.worker import registry

    with current().connect() as conn:
        migrate.require(conn)
        rows = [views.worker(one) for one in registry.alive(conn)]
    columns = [
        Column("worker"), Column("state"), Column("threads", kind="count"), Column("indexed", kind="count"),
        Column("dead", kind="count"), Column("p95_seconds", "p95", "age"), Column("started_at", "up", "since"),
        Column("seen_at", "seen", "since"), Column("concurrency", "at once", "count"), Column("batch_bytes", "body", "bytes"),
        Column("breaker"),
    ]  # fmt: skip
    render.table(rows, columns, output, empty="No workers are running. idxctl worker start")
