"""
Where a demo lives: a directory with its servers and files, or a database and an index of its own on servers that were given.

All of it is named in the directory before it is made, so that whoever finds the directory can take it all away: the demo
at its end, `cleaner` when the demo was killed, and ``idxctl demo --stop`` for one that was kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from psycopg import sql
from psycopg.conninfo import make_conninfo

from idxctl.config.load import load
from idxctl.config.settings import DatabaseSettings, Settings
from idxctl.core.errors import ConfigError, IdxctlError, PostgresRefused, UsageError
from idxctl.core.secret import Secret
from idxctl.demo import shop
from idxctl.embedded.servers import Servers, stop_kept
from idxctl.opensearch import aliases
from idxctl.opensearch.client import Client
from idxctl.opensearch.client import connect as opensearch
from idxctl.postgres.connect import Connection, connect

MARK = "demo.json"
PASSFILE = "pgpass"
NOT_OURS = ("IDXCTL_DATABASE_URL", "IDXCTL_OPENSEARCH_URL", "IDXCTL_CONFIG")  # the directory's own file says these
DATABASE = "shop"
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Mark:
    """What a demo has made outside its directory, on servers that it was given."""

    index: str = shop.INDEX
    database: str | None = None  # made on a given server; None: in the embedded one, which goes as a whole
    maintenance: str | None = None  # the database from which that one can be dropped
    given_opensearch: bool = False


@dataclass(frozen=True)
class Home:
    """A directory ready for the commands: idxctl.toml, listings.sql, listings.json, and the servers behind them."""

    directory: Path
    mark: Mark
    settings: Settings

    @property
    def index(self) -> str:
        """The alias that clients query."""
        return self.mark.index

    @property
    def file(self) -> Path:
        """The configuration that every command reads."""
        return self.directory / "idxctl.toml"

    @property
    def passfile(self) -> Path:
        """The password of the embedded PostgreSQL, as psql reads it."""
        return self.directory / PASSFILE

    @property
    def mapping(self) -> Path:
        """The file of the index's mapping."""
        return self.directory / "listings.json"

    def connect(self) -> Connection:
        """Connect to the marketplace's database."""
        return connect(self.settings.database, application_name="idxctl demo")

    def opensearch(self) -> Client:
        """Make a client of OpenSearch."""
        return opensearch(self.settings.opensearch)


def choose(directory: Path | None) -> tuple[Path, bool]:
    """Return the directory to use, not yet made unless it was there, and whether it was; refuse one that holds something."""
    if directory is None:
        return Path(tempfile.gettempdir(), f"idxctl-demo-{secrets.token_hex(4)}").absolute(), False
    there = directory.exists()
    if there and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(
            f"{directory} is not an empty directory", hint="name one that does not exist yet, or none at all"
        )
    return directory.absolute(), there


def settle_in(directory: Path, servers: Servers, environ: Mapping[str, str]) -> Home:
    """Give the demo its database and its index's name, and write the files of its configuration."""
    suffix = f"demo_{secrets.token_hex(3)}"
    given = servers.postgres is None
    mark = Mark(
        index=shop.INDEX if servers.opensearch else f"{shop.INDEX}_{suffix}",
        database=f"idxctl_{suffix}" if given else None,
        maintenance=_current_database(servers.database_url) if given else None,
        given_opensearch=servers.opensearch is None,
    )
    if mark.database:
        url = make_conninfo(servers.database_url, dbname=mark.database)
    else:
        assert servers.postgres is not None
        url = servers.postgres.database_url(DATABASE)
    shop.write_definition(directory, index=mark.index)
    _name_servers(directory / "idxctl.toml", url, servers.opensearch_url)
    (directory / MARK).write_text(json.dumps(asdict(mark)), encoding="utf-8")  # named before it is made
    if mark.database:
        _create_database(servers.database_url, mark.database)
    else:
        assert servers.postgres is not None
        servers.postgres.create_database(DATABASE)
        servers.postgres.write_passfile(directory / PASSFILE)
    return Home(directory, mark, _settings(directory, environ, need_indexes=True))


def _current_database(url: str) -> str:
    with connect(DatabaseSettings(url=Secret(url))) as conn:
        row = conn.execute(b"SELECT current_database()").fetchone()
    assert row is not None
    return str(row[0])


def _create_database(url: str, name: str) -> None:
    with connect(DatabaseSettings(url=Secret(url))) as conn:
        try:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except PostgresRefused as error:
            raise ConfigError(
                f"the demo needs a database of its own on the server of IDXCTL_DATABASE_URL, and cannot make one: {error.detail}",
                hint="ALTER ROLE ... CREATEDB; or unset IDXCTL_DATABASE_URL, and the demo brings its own PostgreSQL",
            ) from error


def _name_servers(file: Path, database: str, search: str) -> None:
    """Put the servers' URLs at the head of the configuration; a URL may hold a password, so nobody else may read it."""
    definition = file.read_text(encoding="utf-8")
    head = f"[database]\nurl = {json.dumps(database)}\n\n[opensearch]\nurl = {json.dumps(search)}\n\n"
    file.unlink()
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(head + definition)


def _settings(directory: Path, environ: Mapping[str, str], *, need_indexes: bool) -> Settings:
    own = {name: value for name, value in environ.items() if name not in NOT_OURS}
    return load(environ=own, flags={}, path=directory / "idxctl.toml", need_indexes=need_indexes)


# --- the end -----------------------------------------------------------------------------------------------------------


def stop(directory: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """End a demo that was kept: its servers, what it made on given ones, and the directory. Returns what was stopped."""
    if not (directory / MARK).exists():
        raise UsageError(f"no demo was kept in {directory}", hint="idxctl demo --keep names its directory at the end")
    stopped = stop_kept(directory)
    take_away_given(directory, environ)
    empty(directory)
    directory.rmdir()
    return stopped


def take_away_given(directory: Path, environ: Mapping[str, str]) -> None:
    """Drop the database and delete the indexes that the demo in *directory* has on servers that it was given."""
    file = directory / MARK
    if not file.exists():
        return
    mark = Mark(**json.loads(file.read_text(encoding="utf-8")))
    if mark.database is None and not mark.given_opensearch:
        return
    settings = _settings(directory, environ, need_indexes=False)
    with contextlib.ExitStack() as both:  # the second is tried when the first fails
        if mark.given_opensearch:
            both.callback(_delete_indexes, settings, mark.index)
        if mark.database and mark.maintenance:
            both.callback(_drop_database, settings.database, mark.database, mark.maintenance)


def _drop_database(database: DatabaseSettings, name: str, maintenance: str) -> None:
    assert database.url is not None
    url = make_conninfo(database.url.reveal(), dbname=maintenance)
    with connect(DatabaseSettings(url=Secret(url))) as conn:
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _delete_indexes(settings: Settings, alias: str) -> None:
    with contextlib.closing(opensearch(settings.opensearch)) as client:
        for name in aliases.matching(client, f"{alias}-*"):
            aliases.delete(client, name)


def empty(directory: Path) -> None:
    """Remove all that *directory* holds, and the data that PostgreSQL may have had to put elsewhere."""
    for _ in _tries(_PATIENCE_SECONDS):
        data = directory / "postgres" / "data"
        if data.is_symlink():
            shutil.rmtree(data.resolve(), ignore_errors=True)
        for entry in _entries(directory):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        if not _entries(directory):
            return
    raise IdxctlError(f"{directory} cannot be emptied", hint=f"rm -r {directory}")


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.exists() else []


def _tries(seconds: float) -> Iterator[int]:
    """Count tries until *seconds* are over: a server that is being killed may still write."""
    deadline = time.monotonic() + seconds
    number = 0
    while number == 0 or time.monotonic() < deadline:
        yield number
        number += 1
        time.sleep(0.05)
