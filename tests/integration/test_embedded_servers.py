"""The two embedded servers, started by root, by an ordinary user, and left alone by a program that was killed."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import psycopg
import pytest

import idxctl as package
from idxctl.core.errors import ConfigError, OpenSearchUnreachable, PostgresUnreachable
from idxctl.embedded import ports, postgres
from idxctl.embedded.jars import read_lock
from idxctl.embedded.opensearch import RELEASES, OpenSearch, installed_java
from idxctl.embedded.postgres import Postgres
from idxctl.embedded.servers import KEPT_FILE, start_servers, stop_kept, wait_for_end

ROOT = os.geteuid() == 0
NOBODY = 65534
CODE = Path(package.__file__).parents[1]
GIVEN = {"IDXCTL_DATABASE_URL": "postgresql://given", "IDXCTL_OPENSEARCH_URL": "http://given:9200"}
PROGRAM = """
import os, sys
from pathlib import Path
from idxctl.embedded.servers import start_servers

tell = lambda text: print(text, flush=True)
with start_servers(Path(sys.argv[1]), environ=os.environ, fsync=False, progress=tell, detach="detach" in sys.argv) as servers:
    print("ready", servers.database_url, servers.opensearch_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def installed() -> Path | None:
    given = os.environ.get("IDXCTL_TEST_POSTGRES_BIN")
    return Path(given) if given else None


@pytest.fixture
def program(tmp_path, jar_cache):
    """Start a program that starts the servers in tmp_path; given URLs stand for servers that it need not start."""
    started = []

    def start(*arguments, prefix=(), directory=tmp_path, **environ):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("IDXCTL_", "PG"))}
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", PROGRAM, directory, *arguments],
            env={**kept, "PYTHONPATH": str(CODE), "IDXCTL_CACHE_DIR": str(jar_cache), **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        with process:
            pass
    stop_kept(tmp_path)


def line_of(process, word):
    """Wait for the line that begins with *word*."""
    for line in process.stdout:
        if line.startswith(word):
            return line.split()
    raise AssertionError(f"the program ended before it said {word!r}")


def processes_of(directory):
    """The processes whose command names *directory*, the programs that were started with it aside."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(directory).encode() in command and PROGRAM.encode() not in command:
                found.append(int(entry.name))
    return found


def answer(url, path="/", *, method="GET", body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, method=method, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def execute(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def reachable(directory):
    return all(parent.stat().st_mode & 0o001 for parent in (directory, *directory.parents))


# PostgreSQL


def test_postgres_keeps_its_data_and_port_over_stop_and_crash(tmp_path, installed):
    with Postgres(tmp_path, bin=installed, fsync=False) as server:
        port = server.port
        url = server.create_database("kept")
        execute(url, "CREATE TABLE t AS SELECT 1 AS n")
        server.restart()
        server.restart("immediate")
        assert execute(url, "TABLE t") == [(1,)]
        assert server.port == port


def test_postgres_takes_settings_and_is_durable_unless_told(tmp_path, installed):
    with Postgres(tmp_path, bin=installed, settings={"max_connections": "17"}) as server:
        settings = dict(execute(server.url, "SELECT name, setting FROM pg_settings"))
    assert (settings["max_connections"], settings["fsync"], settings["listen_addresses"]) == ("17", "on", "127.0.0.1")


def test_database_can_be_the_copy_of_another(tmp_path, installed):
    with Postgres(tmp_path, bin=installed, fsync=False) as server:
        execute(server.create_database("template_one"), "CREATE TABLE t AS SELECT 1 AS n")
        assert execute(server.create_database("copy", template="template_one"), "TABLE t") == [(1,)]


def test_port_that_another_program_was_quicker_to_take_is_replaced(tmp_path, installed, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as quicker:
        taken, free = quicker.getsockname()[1], ports.free_port()
        chosen = iter([taken, free])
        monkeypatch.setattr(postgres, "free_port", lambda: next(chosen))
        with Postgres(tmp_path, bin=installed, fsync=False) as server:
            assert server.port == free


def test_postgres_that_cannot_start_shows_its_log(tmp_path, installed):
    server = Postgres(tmp_path, bin=installed, settings={"shared_buffers": "plenty"})
    with pytest.raises(PostgresUnreachable, match="shared_buffers"):
        server.start()


def as_another(server, **more):
    """What another user of the machine knows: the address, and the superuser's name."""
    return psycopg.connect(host="127.0.0.1", port=server.port, user="postgres", dbname="postgres", **more)


@pytest.mark.parametrize("open_roles", [False, True])
def test_another_user_of_the_machine_does_not_become_the_one_who_started_it(tmp_path, installed, open_roles):
    proof = tmp_path / "proof"
    with Postgres(tmp_path / "server", bin=installed, fsync=False, open_roles=open_roles) as server:
        for guess in ({}, {"password": "postgres"}, {"password": ""}):
            with pytest.raises(psycopg.OperationalError, match="password"):
                as_another(server, passfile="/dev/null", **guess).execute(f"COPY (SELECT 1) TO PROGRAM 'id > {proof}'")
        assert not proof.exists()
        execute(
            server.url, f"COPY (SELECT 1) TO PROGRAM 'id > {proof}'"
        )  # with the password it works: the test can fail
        assert proof.exists()


def test_roles_log_in_without_a_password_only_where_tests_ask_for_it(tmp_path, installed):
    for open_roles in (False, True):
        with Postgres(tmp_path / str(open_roles), bin=installed, fsync=False, open_roles=open_roles) as server:
            execute(server.url, "CREATE ROLE meek LOGIN")
            url = f"postgresql://meek@127.0.0.1:{server.port}/postgres"
            if open_roles:
                assert execute(url, "SELECT current_user") == [("meek",)]
            else:
                with pytest.raises(psycopg.OperationalError, match="password"):
                    execute(url, "SELECT 1")


def test_the_password_is_in_files_of_the_owner_alone_and_in_no_list_of_processes(tmp_path, installed):
    with Postgres(tmp_path / "server", bin=installed, fsync=False) as server:
        word = psycopg.conninfo.conninfo_to_dict(server.url)["password"]
        server.write_passfile(tmp_path / "pgpass")
        with as_another(server, passfile=str(tmp_path / "pgpass")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        holding = [file for file in tmp_path.rglob("*") if file.is_file() and word.encode() in file.read_bytes()]
        assert {file.name for file in holding} == {postgres.PASSWORD_FILE, "pgpass"}
        assert all(file.stat().st_mode & 0o077 == 0 for file in holding)
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                assert word.encode() not in process.read_bytes()


def test_a_cluster_is_opened_again_by_its_own_password_and_one_without_is_refused(tmp_path, installed):
    with Postgres(tmp_path, bin=installed, fsync=False) as server:
        before = server.url.partition("@")[0]
    with Postgres(tmp_path, bin=installed, fsync=False) as server:
        assert server.url.partition("@")[0] == before
        assert execute(server.url, "SELECT 1") == [(1,)]
    (tmp_path / "data" / postgres.PASSWORD_FILE).unlink()
    with pytest.raises(ConfigError, match="made by an earlier version"):
        Postgres(tmp_path, bin=installed, fsync=False).start()


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_root_without_user_namespaces_runs_postgres_as_nobody(tmp_path, installed, monkeypatch):
    if not reachable(installed or postgres.packaged_bin()):
        pytest.skip("another user cannot reach the programs of PostgreSQL")
    monkeypatch.setattr(postgres, "identities", lambda: [f"{NOBODY}:{NOBODY}"])
    with Postgres(tmp_path, bin=installed, fsync=False) as server:
        assert execute(server.url, "SELECT 1") == [(1,)]
        assert Path(f"/proc/{server.child.pid}").stat().st_uid == NOBODY
        server.restart()
        displaced = server.data.resolve()
    assert not displaced.exists()


# OpenSearch


def test_opensearch_keeps_its_data_and_port_when_it_is_killed(tmp_path, jar_cache):
    with OpenSearch(tmp_path, cache=jar_cache, quick=True) as node:
        url = node.url
        answer(url, "/books", method="PUT", body={"settings": {"number_of_replicas": 0}})
        answer(url, "/books/_doc/1", method="PUT", body={"title": "kept"})
        node.kill()
        node.start()
        assert node.url == url
        answer(url, "/_cluster/health/books?wait_for_status=green", method="GET")
        assert answer(url, "/books/_doc/1")["_source"] == {"title": "kept"}


@pytest.mark.parametrize("version", sorted(RELEASES))
def test_every_release_has_the_modules_that_indexes_use(tmp_path, jar_cache, version):
    lock = read_lock(RELEASES[version].lock)
    if not RELEASES[version].packaged_java and not installed_java(*lock.java):
        pytest.skip(f"no installed Java {lock.java[0]} to {lock.java[1]}")
    folding = {"analysis": {"analyzer": {"a": {"type": "custom", "tokenizer": "standard", "filter": ["asciifolding"]}}}}
    mapping = {
        "properties": {
            "title": {"type": "text", "analyzer": "a"},
            "price": {"type": "scaled_float", "scaling_factor": 100},
        }
    }
    painless = {"source": "ctx._source.price *= 2"}
    with OpenSearch(tmp_path, cache=jar_cache, quick=True, version=version) as node:
        assert answer(node.url)["version"]["number"] == version
        answer(node.url, "/old", method="PUT", body={"settings": folding, "mappings": mapping})
        answer(node.url, "/new", method="PUT", body={"settings": folding, "mappings": mapping})
        answer(node.url, "/old/_doc/1?refresh=true", method="PUT", body={"title": "čist", "price": 7})
        reindex = {"source": {"index": "old"}, "dest": {"index": "new"}, "script": painless}
        answer(node.url, "/_reindex?refresh=true", method="POST", body=reindex)
        (hit,) = answer(node.url, "/new/_search?q=title:cist")["hits"]["hits"]
    assert hit["_source"] == {"title": "čist", "price": 14}


def test_opensearch_that_cannot_start_shows_its_log(tmp_path, jar_cache):
    node = OpenSearch(tmp_path, cache=jar_cache, quick=True, settings={"no.such.setting": 1})
    with pytest.raises(OpenSearchUnreachable, match=r"unknown setting \[no.such.setting\]"):
        node.start()
    assert processes_of(tmp_path) == []


def test_opensearch_can_be_overloaded_on_purpose(tmp_path, jar_cache):
    small = {"http.max_content_length": "1mb", "node.processors": 1, "thread_pool.write.queue_size": 1}
    with OpenSearch(tmp_path, cache=jar_cache, quick=True, heap_mb=256, settings=small) as node:
        (pool,) = answer(node.url, "/_cat/thread_pool/write?format=json&h=size,queue_size")
        assert pool == {"size": "1", "queue_size": "1"}


# Both


def test_killed_program_leaves_no_server(program, tmp_path):
    process = program()
    line_of(process, "ready")
    servers = processes_of(tmp_path)
    process.kill()
    assert len(servers) >= 4  # two servers and their guards
    assert all(wait_for_end(pid, seconds=60) for pid in servers)


def test_program_that_ends_stops_its_servers(program, tmp_path):
    process = program()
    _, database, opensearch = line_of(process, "ready")
    assert execute(database, "SELECT 1") == [(1,)]
    assert answer(opensearch)["version"]["distribution"] == "opensearch"
    process.communicate("")
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("moment", ["starting OpenSearch", "starting PostgreSQL"])
def test_interrupt_while_they_start_leaves_no_server(program, tmp_path, moment):
    process = program()
    line_of(process, moment)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert processes_of(tmp_path) == []


def test_detached_servers_outlive_the_program_until_they_are_stopped(program, tmp_path):
    process = program("detach")
    _, database, opensearch = line_of(process, "ready")
    process.communicate("")
    assert execute(database, "SELECT 1") == [(1,)]
    assert answer(opensearch)["version"]["distribution"] == "opensearch"
    assert stop_kept(tmp_path) == ("PostgreSQL", "OpenSearch")
    assert processes_of(tmp_path) == []
    assert stop_kept(tmp_path) == ()


def test_process_that_has_the_number_of_a_kept_one_is_left_alone(tmp_path):
    entry = {"guard": os.getpid(), "mark": "started at another time"}
    (tmp_path / KEPT_FILE).write_text(json.dumps({"PostgreSQL": entry}))
    assert stop_kept(tmp_path) == ()


def test_given_servers_are_used_and_none_is_started(tmp_path):
    with start_servers(tmp_path, environ=GIVEN) as servers:
        assert (servers.database_url, servers.opensearch_url) == ("postgresql://given", "http://given:9200")
        assert processes_of(tmp_path) == []


@pytest.mark.skipif(not ROOT or not shutil.which("setpriv"), reason="only root can become an ordinary user")
def test_ordinary_user_can_run_them(program):
    # It may read everything, since the interpreter and the jars may lie in root's home; for the rest it is nobody.
    may_read = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
    ordinary = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *may_read)
    with tempfile.TemporaryDirectory(prefix="idxctl-nobody-") as directory:
        os.chown(directory, NOBODY, NOBODY)
        process = program(prefix=ordinary, directory=directory, HOME=directory)
        _, database, opensearch = line_of(process, "ready")
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in processes_of(directory)}
        assert owners == {NOBODY}
        assert execute(database, "SELECT 1") == [(1,)]
        assert answer(opensearch)["tagline"]
        process.communicate("")
        assert processes_of(directory) == []
