"""Both servers together: started side by side, or taken as given, and stopped whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from idxctl.core.errors import WaitTimeout
from idxctl.embedded.child import Child
from idxctl.embedded.jars import cache_directory
from idxctl.embedded.opensearch import OpenSearch
from idxctl.embedded.postgres import Postgres

KEPT_FILE = "servers.json"
STOP_SECONDS = 90.0


@dataclass(frozen=True)
class Servers:
    """The two URLs, and the servers behind them as far as they are ours."""

    directory: Path
    database_url: str
    opensearch_url: str
    postgres: Postgres | None
    opensearch: OpenSearch | None

    def keep(self) -> None:
        """Let the servers that are ours outlive this process; `stop_kept` ends them."""
        kept = {
            name: {"guard": server.child.guard_pid, "mark": _mark(server.child.guard_pid)}
            for name, server in (("PostgreSQL", self.postgres), ("OpenSearch", self.opensearch))
            if server is not None
        }
        file = self.directory / KEPT_FILE
        file.write_text(json.dumps(kept), encoding="utf-8")  # before letting go: what is kept can always be found
        for child in self._children():
            child.keep()

    def _children(self) -> list[Child]:
        return [server.child for server in (self.postgres, self.opensearch) if server is not None]


@contextlib.contextmanager
def start_servers(
    directory: Path,
    *,
    environ: Mapping[str, str],
    fsync: bool = True,
    detach: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Iterator[Servers]:
    """
    Start both servers in *directory*, and stop them at the end, also when Ctrl-C comes half-way.

    ``IDXCTL_DATABASE_URL`` and ``IDXCTL_OPENSEARCH_URL`` in *environ* name servers to use instead. With ``detach`` a block
    that ends without an exception leaves ours running, to be ended by `stop_kept`.
    """
    tell = progress or (lambda _: None)
    given_database = environ.get("IDXCTL_DATABASE_URL")
    given_opensearch = environ.get("IDXCTL_OPENSEARCH_URL")
    opensearch = None if given_opensearch else _opensearch(directory, environ, tell)
    postgres = None if given_database else Postgres(directory / "postgres", fsync=fsync)
    with contextlib.ExitStack() as stop:
        if opensearch:
            stop.callback(opensearch.stop)
            tell("starting OpenSearch")
            opensearch.spawn()
        if postgres:  # it is there long before the JVM is
            stop.callback(postgres.close)
            tell("starting PostgreSQL")
            postgres.start()
        if opensearch:
            opensearch.wait_ready()
        servers = Servers(
            directory,
            given_database or (postgres.url if postgres else ""),
            given_opensearch or (opensearch.url if opensearch else ""),
            postgres,
            opensearch,
        )
        yield servers
        if detach:
            servers.keep()
            stop.pop_all()


def _opensearch(directory: Path, environ: Mapping[str, str], tell: Callable[[str], None]) -> OpenSearch:
    def fetched(done: int, total: int, size: int) -> None:
        tell(f"fetching OpenSearch, once: {done} of {total} jars, {size / 1e6:.0f} MB")

    return OpenSearch(directory / "opensearch", cache=cache_directory(environ), progress=fetched)


def stop_kept(directory: Path) -> tuple[str, ...]:
    """
    Stop the servers that were kept in *directory*; return the names of those that still ran.

    A process id that has passed on to another process since is left alone.
    """
    file = directory / KEPT_FILE
    if not file.exists():
        return ()
    kept = json.loads(file.read_text(encoding="utf-8"))
    running = {name: entry["guard"] for name, entry in kept.items() if _mark(entry["guard"]) == entry["mark"]}
    for guard in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(guard, signal.SIGTERM)
    for name, guard in running.items():
        if not wait_for_end(guard, seconds=STOP_SECONDS):
            raise WaitTimeout(
                f"{name} has not stopped within {STOP_SECONDS:.0f} s", hint=f"its guard is process {guard}"
            )
    file.unlink()
    return tuple(running)


def wait_for_end(pid: int, *, seconds: float) -> bool:
    """Wait until a process that is not our child has ended; return False when it has not after *seconds*."""
    if sys.platform == "linux":
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([handle], [], [], seconds)[0])
        finally:
            os.close(handle)
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while _mark(pid) is not None:
        if time.monotonic() > deadline:
            return False
        pause.wait(0.05)
    return True


def _mark(pid: int) -> str | None:
    """Return what tells this process from a later one of the same number: its start and its command."""
    try:
        if sys.platform == "linux":
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
            command = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
            return f"{stat.rpartition(')')[2].split()[19]} {command}"
        found = subprocess.run(
            ["/bin/ps", "-o", "lstart=,command=", "-p", str(pid)], capture_output=True, check=False, text=True
        )
        return found.stdout.strip() or None
    except (FileNotFoundError, ProcessLookupError):
        return None
