"""The rendered line, run by a real sh with real flock and almost no environment, as cron runs it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from idxctl.cron.entry import Options, prepare
from idxctl.cron.project import full_name
from idxctl.cron.tab import Account

ROOT = Path(__file__).parents[2]
PROGRAM = """#!/bin/sh
echo "ran: $*; PGHOST=$PGHOST PGPASSWORD=$PGPASSWORD"
echo "to stderr" >&2
exit 3
"""


@pytest.fixture
def place(tmp_path):
    """A directory whose name wants quoting everywhere."""
    directory = tmp_path / '50% it\'s a "place" $HOME'
    directory.mkdir()
    (directory / "idxctl").write_text(PROGRAM)
    (directory / "idxctl").chmod(0o755)
    return directory


@pytest.fixture
def owner(place):
    return Account("me", os.geteuid() or 1, os.getegid(), place, is_me=True)


def prepared(place, owner, env=None, **options):
    asked = {"executable": (str(place / "idxctl"),), "log": place / "log dir" / "x.log", **options}
    (place / "log dir").mkdir(exist_ok=True)
    entry = prepare(Options(**asked), owner, {"PATH": os.environ["PATH"], **(env or {})})
    entry.lock.parent.mkdir(parents=True, exist_ok=True)
    return entry


def run_as_cron(entry, shell="/bin/sh"):
    line = entry.body(shell).splitlines()[-1]
    command = line.split(b" ", 5)[5].replace(b"\\%", b"%")  # what cron makes of the escape
    return subprocess.run(
        [shell, "-c", command], check=False, env={"PATH": "/usr/bin:/bin"}, cwd="/", capture_output=True
    )


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_the_command_runs_and_all_it_says_goes_to_the_log(place, owner, shell):
    entry = prepared(place, owner, {"PGHOST": "db 100% $X"}, command=("dlq", "retry", "--index", "it's 5%"))
    for _ in range(2):
        done = run_as_cron(entry, shell)
        assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
    expected = "ran: dlq retry --index it's 5%; PGHOST=db 100% $X PGPASSWORD=\nto stderr\n"
    assert entry.log.read_text() == 2 * expected


def test_a_run_that_finds_the_lock_held_is_skipped_without_a_word(place, owner):
    entry = prepared(place, owner)
    with entry.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_as_cron(entry)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert entry.log.read_text() == ""
    assert run_as_cron(entry).returncode == 3
    assert "ran:" in entry.log.read_text()


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_the_env_file_is_read_at_every_run(place, owner, shell):
    file = place / "secrets.env"
    file.write_text("PGPASSWORD='a b'\nPGHOST=from-file\n")
    entry = prepared(place, owner, {"PGPASSWORD": "old"}, env_file=file)
    run_as_cron(entry, shell)
    file.write_text("export PGPASSWORD=changed\n")
    run_as_cron(entry, shell)
    runs = [line for line in entry.log.read_text().splitlines() if line.startswith("ran")]
    assert [run.partition("; ")[2] for run in runs] == [
        "PGHOST=from-file PGPASSWORD=a b",
        "PGHOST= PGPASSWORD=changed",
    ]


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_without_its_env_file_nothing_runs_and_the_log_says_so(place, owner, shell):
    file = place / "secrets.env"
    file.touch()
    entry = prepared(place, owner, env_file=file)
    file.unlink()
    assert run_as_cron(entry, shell).returncode != 0
    assert "secrets.env" in entry.log.read_text()
    assert "ran:" not in entry.log.read_text()


# --- the command line, without a crontab program


def idxctl(*arguments, cwd, **environment):
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(cwd), **environment}
    argv = [sys.executable, "-m", "idxctl", *arguments]
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def bare(tmp_path):
    """A PATH with flock and sh, and no crontab."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("sh", "flock"):
        (directory / name).symlink_to(f"/usr/bin/{name}")
    return str(directory)


@pytest.mark.parametrize("command", [("install",), ("show",), ("remove",), ("remove", "--all")])
def test_without_a_crontab_program_the_status_is_4_and_the_ways_out_are_named(command, tmp_path, bare):
    done = idxctl("cron", *command, cwd=tmp_path, PATH=bare)
    assert done.returncode == 4
    assert "error: no crontab program" in done.stderr
    assert "--print" in done.stderr
    assert "systemd timer" in done.stderr
    assert done.stdout == ""


def test_printing_needs_no_crontab_and_makes_nothing(tmp_path, bare):
    (tmp_path / "idxctl.toml").write_text('[database]\nurl = "postgresql://u:hunter2@db/x"\n')
    before = sorted(tmp_path.rglob("*"))
    done = idxctl("cron", "install", "--print", "--limit", "7", cwd=tmp_path, PATH=bare, PGPASSWORD="hunter2")
    assert done.returncode == 0
    first, _, entry, last = done.stdout.splitlines()
    name = full_name("dlq-retry", tmp_path / "idxctl.toml")
    assert (first, last) == (f"# BEGIN idxctl: {name}", f"# END idxctl: {name}")
    assert f" --config {tmp_path}/idxctl.toml dlq retry --limit 7 >> " in entry
    assert "hunter2" not in done.stdout + done.stderr
    assert "PGPASSWORD is set now and will not be under cron" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--schedule", "every minute"), "2 fields, five wanted"),
        (("--log", "x", "--logger"), "--log and --logger"),
        (("--limit", "5", "--command", "dlq stats"), "--limit belongs to the default command"),
        (("--command", "  "), "--command is empty"),
        (("--command", "dlq 'x"), "no closing quotation"),
        (("--name", "a b"), "letters, digits"),
        (("--user", "no-such-user-here"), "no such user"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(options, says, tmp_path):
    done = idxctl("cron", "install", "--print", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_a_broken_configuration_is_found_at_installation(tmp_path):
    (tmp_path / "idxctl.toml").write_text("[database\n")
    done = idxctl("cron", "install", cwd=tmp_path)
    assert done.returncode == 4
    assert "idxctl.toml" in done.stderr


def nameless(*arguments, cwd, **env):
    """Run idxctl as a user id that no line of passwd names, as containers do; the package lies where root alone may look."""
    code = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import idxctl.__main__, idxctl.cli.cron, idxctl.cron.entry, idxctl.cron.install, idxctl.config.load\n"
        "os.setgid(54321); os.setuid(54321)\n"
        "sys.argv = ['idxctl', *sys.argv[1:]]\n"
        "idxctl.__main__.main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **env},
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes a user without a name")
def test_a_user_without_a_name_prints_the_entry_for_elsewhere():
    done = nameless("cron", "install", "--print", cwd="/", HOME="/srv/app")
    assert done.returncode == 0, done.stderr
    assert "/srv/app/.local/state/idxctl/dlq-retry.lock" in done.stdout
    homeless = nameless("cron", "install", "--print", cwd="/")
    assert homeless.returncode == 4
    assert "HOME=" in homeless.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes a user without a name")
def test_a_user_without_a_name_is_told_that_cron_runs_entries_by_name():
    done = nameless("cron", "install", cwd="/", HOME="/srv/app")
    assert done.returncode == 4
    assert "user id 54321 has no name on this machine" in done.stderr
    assert "--print" in done.stderr
