"""
Real servers for every test, and a database and index names of its own for each.

One PostgreSQL and one OpenSearch serve the whole run, all xdist workers included. The process that the run was started
with owns them; each starts when the first test asks for it, and ends with that process, also when it is killed. Servers
of your own: IDXCTL_TEST_DATABASE_URL (a role that may create databases) and IDXCTL_TEST_OPENSEARCH_URL. Other releases:
IDXCTL_TEST_POSTGRES_BIN (/usr/lib/postgresql/15/bin) and IDXCTL_TEST_OPENSEARCH_VERSION (2.19.5, on an installed Java).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Client, Listener
from pathlib import Path

import hypothesis
import psycopg
import pytest
from psycopg import sql

import idxctl as package
from idxctl.embedded import jars
from idxctl.embedded.opensearch import OpenSearch
from idxctl.embedded.postgres import Postgres

hypothesis.settings.register_profile(
    "idxctl", deadline=None
)  # how long an example takes says what else the machine does
hypothesis.settings.load_profile("idxctl")

SHOP_ROWS = 300
OPENSEARCH = "3.8.0"


# The servers of the run ----------------------------------------------------------------------------------------------


class Owner:
    """Starts each server when it is first asked for; workers ask through a socket."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(4)
        self._stop = contextlib.ExitStack()
        self._locks = {"postgres": threading.Lock(), "opensearch": threading.Lock()}
        self._urls: dict[str, str] = {}
        self._listener: Listener | None = None

    @functools.cached_property
    def directory(self) -> Path:
        """Made when it is needed: a run of unit tests leaves no trace."""
        directory = Path(tempfile.mkdtemp(prefix="idxctl-tests-"))
        self._stop.callback(shutil.rmtree, directory, ignore_errors=True)
        return directory

    def url(self, name: str) -> str:
        with self._locks[name]:
            if name not in self._urls:
                self._urls[name] = self._postgres() if name == "postgres" else self._opensearch()
            return self._urls[name]

    def listen(self) -> str:
        if self._listener is None:
            self._listener = Listener(str(self.directory / "servers"), "AF_UNIX")
            threading.Thread(target=self._serve, name="servers", daemon=True).start()
        return str(self._listener.address)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._stop.close()

    def _postgres(self) -> str:
        if given := os.environ.get("IDXCTL_TEST_DATABASE_URL"):
            self._stop.callback(drop_databases, given, f"idxctl_test_{self.run}_%")
            return given
        installed = os.environ.get("IDXCTL_TEST_POSTGRES_BIN")
        server = Postgres(
            self.directory / "postgres",
            bin=Path(installed) if installed else None,
            fsync=False,
            settings={"max_connections": "300"},
            open_roles=True,
        )
        return self._stop.enter_context(server).url

    def _opensearch(self) -> str:
        if given := os.environ.get("IDXCTL_TEST_OPENSEARCH_URL"):
            return given
        version = os.environ.get("IDXCTL_TEST_OPENSEARCH_VERSION", OPENSEARCH)
        cache = jars.cache_directory(os.environ)
        server = OpenSearch(self.directory / "opensearch", version=version, cache=cache, quick=True)
        return self._stop.enter_context(server).url

    def _serve(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return  # closed: the run is over
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection) -> None:
        with connection, contextlib.suppress(EOFError, OSError):
            name = connection.recv()
            try:
                connection.send((self.url(name), None))
            except Exception as error:  # noqa: BLE001 - the test that asked shows it
                connection.send((None, str(error)))


class Borrower:
    """An xdist worker's way to the servers."""

    def __init__(self, address: str, run: str) -> None:
        self.address = address
        self.run = run

    def url(self, name: str) -> str:
        with Client(self.address, "AF_UNIX") as connection:
            connection.send(name)
            url, error = connection.recv()
        if error:
            raise RuntimeError(error)
        return url

    def close(self) -> None:
        pass


SERVERS = pytest.StashKey[Owner | Borrower]()


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", None)
    config.stash[SERVERS] = Borrower(given["servers"], given["servers_run"]) if given else Owner()


def pytest_unconfigure(config: pytest.Config) -> None:
    if SERVERS in config.stash:
        config.stash[SERVERS].close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    owner = node.config.stash[SERVERS]
    node.workerinput["servers"] = owner.listen()
    node.workerinput["servers_run"] = owner.run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that is `sampled`, those between its first and its last parameters are `full`."""
    alike: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            alike.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for group in alike.values():
        for item in group[1:-1]:
            item.add_marker(pytest.mark.full)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Reports cross from an xdist worker as UTF-8: what a test of bytes that are no text has said is escaped."""
    report = yield
    report.sections = [(name, _escaped(text)) for name, text in report.sections]
    if report.failed and _escaped(said := str(report.longrepr)) != said:
        report.longrepr = _escaped(said)
    return report


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


# Logs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A program that a test ran in this process has set up its log: to a stderr that is closed, without values, without us."""
    logger = logging.getLogger("idxctl")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


# PostgreSQL ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """The server's own database, as a role that may create databases."""
    return request.config.stash[SERVERS].url("postgres")


@pytest.fixture(scope="session")
def templates(request: pytest.FixtureRequest, postgres_url: str) -> Callable[[str, Callable[[str], None]], str]:
    """A function that makes a template database, once for the run, and returns its name."""
    run = request.config.stash[SERVERS].run

    def template(kind: str, fill: Callable[[str], None]) -> str:
        name, building = f"idxctl_test_{run}_{kind}", f"idxctl_test_{run}_{kind}_building"
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(hashtext(%s))", (name,))
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(building)))
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(building)))
                close_public(database_url(postgres_url, building))
                fill(database_url(postgres_url, building))
                rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
                connection.execute(rename.format(sql.Identifier(building), sql.Identifier(name)))
        return name

    return template


@pytest.fixture(scope="session")
def clone(request: pytest.FixtureRequest, postgres_url: str) -> Callable[[str], contextlib.AbstractContextManager[str]]:
    """A function that copies a template into a database of the caller's own."""
    return lambda template: fresh_database(request, postgres_url, template=template)


@pytest.fixture(scope="session")
def migrate() -> Callable[[str], None]:
    """``migrate_up``, for fixtures in other files."""
    return migrate_up


@pytest.fixture
def database(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[str]:
    """An empty database of this test's own: its URL."""
    with fresh_database(request, postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(templates) -> str:
    return templates("migrated", migrate_up)


@pytest.fixture
def migrated(request: pytest.FixtureRequest, postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A database with idxctl's tables: its URL."""
    with fresh_database(request, postgres_url, template=migrated_template) as url:
        yield url


@pytest.fixture(scope="session")
def shop_template(templates) -> str:
    def fill(url: str) -> None:
        from idxctl.demo.shop import load_shop

        migrate_up(url)
        with psycopg.connect(url, autocommit=True) as connection:
            load_shop(connection, SHOP_ROWS)

    return templates("shop", fill)


@pytest.fixture
def shop(request: pytest.FixtureRequest, postgres_url: str, shop_template: str) -> Iterator[str]:
    """A database with idxctl's tables and the example marketplace of SHOP_ROWS listings: its URL."""
    with fresh_database(request, postgres_url, template=shop_template) as url:
        yield url


def migrate_up(url: str) -> None:
    """Make idxctl's tables: the one place where the tests do."""
    from idxctl.config.settings import DatabaseSettings
    from idxctl.core.secret import Secret
    from idxctl.postgres import migrate
    from idxctl.postgres.connect import connect

    with connect(DatabaseSettings(url=Secret(url))) as connection:
        migrate.up(connection)


@contextlib.contextmanager
def fresh_database(request: pytest.FixtureRequest, server: str, *, template: str = "template0") -> Iterator[str]:
    name = f"idxctl_test_{request.config.stash[SERVERS].run}_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            if template == "template0":
                close_public(database_url(server, name))
            yield database_url(server, name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def close_public(url: str) -> None:
    """Take from everybody what a new database of PostgreSQL 14 gives: `migrate up` refuses such a schema and says this."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


def drop_databases(server: str, like: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        for (name,) in connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", (like,)).fetchall():
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def database_url(server: str, name: str) -> str:
    return urllib.parse.urlsplit(server)._replace(path=f"/{name}").geturl()


# OpenSearch ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def opensearch_url(request: pytest.FixtureRequest) -> str:
    """The node that all tests share: take index names from ``unique_name``."""
    return request.config.stash[SERVERS].url("opensearch")


@pytest.fixture
def unique_name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A name that no other test has, fit for an index, an alias or a role; indexes that begin with it are deleted."""
    name = f"t{secrets.token_hex(5)}"
    yield name
    if "opensearch_url" in request.fixturenames:
        delete_indexes(request.getfixturevalue("opensearch_url"), name)


@pytest.fixture
def index_prefix(opensearch_url: str, unique_name: str) -> str:
    """``unique_name`` for a test that uses OpenSearch only through a program."""
    return unique_name


@pytest.fixture(scope="session")
def jar_cache() -> Path:
    """Where a test that starts a node of its own finds the jars: ``OpenSearch(home, cache=jar_cache, quick=True)``."""
    return jars.cache_directory(os.environ)


def delete_indexes(url: str, prefix: str) -> None:
    """Delete the indexes whose name, or alias, begins with *prefix*; their aliases go with them."""
    found = json.loads(ask(url, "GET", f"/{prefix}*/_alias?expand_wildcards=all"))
    if found:
        ask(url, "DELETE", "/" + ",".join(found))


def ask(url: str, method: str, path: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url + path, method=method), timeout=60) as answer:
        return answer.read()


# The command line ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a run of the command line left."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self):
        return json.loads(self.stdout)


class CommandLine:
    """
    Runs ``idxctl`` as a user would: another process, a home of its own, nothing inherited that configures it.

    Call it with arguments for a finished run; ``start`` gives the process of one that goes on.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.cwd = home / "work"
        self.cwd.mkdir(parents=True)
        self.environ: dict[str, str] = clean_environ(home)
        self._started: list[subprocess.Popen[str]] = []

    def use(
        self, *, database: str | None = None, opensearch: str | None = None, config: Path | None = None
    ) -> CommandLine:
        """Have all further runs use these."""
        given = {"IDXCTL_DATABASE_URL": database, "IDXCTL_OPENSEARCH_URL": opensearch, "IDXCTL_CONFIG": config}
        self.environ.update({name: str(value) for name, value in given.items() if value is not None})
        return self

    def __call__(
        self, *arguments: object, env: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 120
    ) -> Finished:
        done = subprocess.run(
            self._command(arguments),
            env={**self.environ, **(env or {})},
            cwd=self.cwd,
            input=stdin,
            capture_output=True,
            check=False,
            text=True,
            encoding="utf-8",
            timeout=timeout,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start it and return; it is killed at the end of the test if it still runs."""
        process = subprocess.Popen(
            self._command(arguments),
            env={**self.environ, **(env or {})},
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            process.kill()
            with process:  # closes the pipes and waits
                pass

    @staticmethod
    def _command(arguments: tuple[object, ...]) -> list[str]:
        return [sys.executable, "-m", "idxctl", *map(str, arguments)]


def clean_environ(home: Path) -> dict[str, str]:
    ours = ("IDXCTL_", "PG", "XDG_", "AWS_", "OPENSEARCH_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "HOME": str(home),
        "PYTHONPATH": str(Path(package.__file__).parents[1]),
        "IDXCTL_CACHE_DIR": str(jars.cache_directory(os.environ)),  # or a demo would fetch its jars once more
    }


@pytest.fixture
def idxctl(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line: ``idxctl("queue", "status", "-o", "json")`` gives status, stdout and stderr."""
    command_line = CommandLine(tmp_path / "home")
    yield command_line
    command_line.close()
