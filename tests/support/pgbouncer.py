"""Debian's PgBouncer in transaction mode before a PostgreSQL, on a loopback port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import urllib.parse
from pathlib import Path

import psycopg

from idxctl.embedded.postgres import free_port
from support.rig import until

PROGRAM = "/usr/sbin/pgbouncer"


class PgBouncer:
    """
    One PgBouncer before the database of *url*; ``url`` is the way through it.

    It refuses to run as root: it is nobody then, with a directory of nobody's.
    """

    def __init__(self, url: str, *, pool_size: int) -> None:
        parts = urllib.parse.urlsplit(url)
        self.port = free_port()
        self.url = parts._replace(netloc=f"{parts.username}@127.0.0.1:{self.port}").geturl()
        self.pool_size = pool_size
        self._directory = Path(tempfile.mkdtemp(prefix="idxctl-pgbouncer-"))
        (self._directory / "users.txt").write_text(f'"{parts.username}" "{parts.password or ""}"\n')
        (self._directory / "pgbouncer.ini").write_text(
            f"""[databases]
* = host={parts.hostname} port={parts.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {self._directory}/users.txt
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
server_reset_query =
log_connections = 0
log_disconnections = 0
logfile = {self._directory}/log
"""
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PgBouncer:  # noqa: PYI034 - Self is 3.11's
        user: dict[str, int] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid}
            os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
            for file in self._directory.iterdir():
                os.chown(file, nobody.pw_uid, nobody.pw_gid)
        self._process = subprocess.Popen(
            [PROGRAM, "-q", self._directory / "pgbouncer.ini"],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **user,
        )
        until(self._answers, f"PgBouncer does not answer; it writes to {self._directory}/log")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)  # at once; SIGINT would wait for its clients
        self._process.wait(30)
        shutil.rmtree(self._directory, ignore_errors=True)

    def log(self) -> str:
        """What it has to say."""
        file = self._directory / "log"
        return file.read_text() if file.exists() else ""

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
