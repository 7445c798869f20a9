"""
The entry in real tabs of real users, and fired by a real cron daemon.

Needs root and Debian's package cron. Throwaway users own the tabs, so that nobody's crontab is touched.
"""

import contextlib
import fcntl
import json
import os
import pwd
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from idxctl.core.errors import ConfigError, IdxctlError, UsageError
from idxctl.cron.blocks import put
from idxctl.cron.entry import Options, prepare
from idxctl.cron.install import cron_runs, install, remove, show
from idxctl.cron.tab import Tab, account

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
SPOOL = Path("/var/spool/cron/crontabs")
A_FIRING = 200  # seconds: cron looks once a minute, and a loaded machine may skip one


@pytest.fixture(autouse=True)
def _prerequisites():
    if os.geteuid() != 0:
        pytest.fail("these tests make users and start cron: run them as root")
    if not shutil.which("crontab") or not Path("/usr/sbin/cron").exists():
        pytest.fail("no cron on this machine: apt-get install cron")


@contextlib.contextmanager
def throwaway(*options):
    name = f"idxcron{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", *options, name], check=True, capture_output=True)
    try:
        yield name
    finally:
        subprocess.run(["crontab", "-u", name, "-r"], check=False, capture_output=True)
        subprocess.run(["userdel", "--force", name], check=False, capture_output=True)


@pytest.fixture
def user(tmp_path):
    """An ordinary user with a home."""
    home = Path("/var/tmp") / f"idxcron-home-{os.getpid()}"
    with throwaway("--home-dir", str(home), "--shell", "/bin/sh") as name:
        home.mkdir()
        entry = pwd.getpwnam(name)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        yield name
        shutil.rmtree(home)


@pytest.fixture
def alter_ego(tmp_path):
    """A second name of root with a tab of its own: it reaches this checkout wherever it lies."""
    with throwaway("--non-unique", "--uid", "0", "--gid", "0", "--home-dir", str(tmp_path)) as name:
        yield name


@pytest.fixture
def program():
    """An idxctl that any user can start: prints its help, as the trial run asks it to."""
    directory = Path("/var/tmp") / f"idxcron-bin-{os.getpid()}"
    directory.mkdir()
    file = directory / "idxctl"
    file.write_text("#!/bin/sh\nexit 0\n")
    file.chmod(0o755)
    yield file
    shutil.rmtree(directory)


@pytest.fixture
def tab(user):
    return Tab(account(user), path=os.environ["PATH"])


def prepared(tab, program, **options):
    return prepare(Options(executable=(str(program),), **options), tab.owner, {"PATH": os.environ["PATH"]})


def now():
    from datetime import datetime

    return datetime.now().astimezone()


def listing(user):
    """Return the status of crontab -l, and the bytes in the spool: Debian's listing spells some of them out."""
    listed = subprocess.run(["crontab", "-u", user, "-l"], check=False, capture_output=True)
    if listed.returncode == 0:
        listed.stdout = re.sub(rb"\A(# (DO NOT EDIT|\(-|\(Cron version)[^\n]*\n)*", b"", (SPOOL / user).read_bytes())
    return listed


# --- tabs


@pytest.mark.parametrize(
    "before",
    [
        None,
        b"# mine\n* * * * * true\n",
        b'MAILTO=""\r\n* * * * * true\r\n',
        b"# caf\xe9 \xff\n\n\n\t\n*/5\t*\t*\t*\t*\ttrue a\tb\n#\n",
        b"# \\r\\b and \r\b\r\n* * * * * grep '\\bx' f\r\n",
        b"* * * * * grep '\\bx' f\n",
        b"# BEGIN idxctl of my own\n* * * * * echo idxctl dlq retry\n# END\n",
        b"SHELL=/bin/bash\nPATH=/x\n@daily date +\\%F\n",
    ],
)
def test_a_real_tab_gets_its_bytes_back(before, tab, program):
    if before is not None:
        tab.write(before)
    assert install(tab, prepared(tab, program), now=now()).outcome == "installed"
    once = listing(tab.owner.name).stdout
    assert once.startswith(before or b"")
    assert install(tab, prepared(tab, program), now=now()).outcome == "unchanged"
    assert listing(tab.owner.name).stdout == once
    assert install(tab, prepared(tab, program, schedule="@hourly"), now=now()).outcome == "replaced"
    assert [shown.schedule for shown in show(tab, now=now())] == ["@hourly"]
    assert remove(tab, "dlq-retry").names == ("dlq-retry",)
    after = listing(tab.owner.name)
    assert after.stdout == (before or b"")
    assert after.returncode == (0 if before else 1)  # no tab before, none after


def test_installing_the_same_entry_again_does_not_write_the_tab(tab, program):
    install(tab, prepared(tab, program), now=now())
    written = (SPOOL / tab.owner.name).stat()
    install(tab, prepared(tab, program), now=now())
    again = (SPOOL / tab.owner.name).stat()
    assert (again.st_ino, again.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_a_tab_without_a_final_newline_keeps_the_one_that_crontab_insists_on(tab, program):
    spool = SPOOL / tab.owner.name
    spool.write_bytes(b"* * * * * true")
    spool.chmod(0o600)
    install(tab, prepared(tab, program), now=now())
    assert listing(tab.owner.name).stdout.startswith(b"* * * * * true\n# BEGIN idxctl: dlq-retry (newline added above)")
    assert remove(tab, None).newline_kept
    assert listing(tab.owner.name).stdout == b"* * * * * true\n"


def test_several_entries_live_side_by_side(tab, program):
    tab.write(b"# mine\n")
    for name in ("a", "b", "c"):
        install(tab, prepared(tab, program, name=name), now=now())
    assert remove(tab, "x").names == ()
    done = remove(tab, "b")
    assert (done.names, done.left) == (("b",), ("a", "c"))
    assert [shown.name for shown in show(tab, now=now())] == ["a", "c"]
    remove(tab, None)
    assert listing(tab.owner.name).stdout == b"# mine\n"


@pytest.fixture
def projects(user):
    """Two projects in folders of one name, and one beside the first."""
    home = Path(pwd.getpwnam(user).pw_dir)
    made = [
        home / "a" / "shop" / "idxctl.toml",
        home / "b" / "shop" / "idxctl.toml",
        home / "a" / "shop" / "second.toml",
    ]
    for file in made:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    subprocess.run(["chown", "-R", user, home], check=True)
    return made


def test_projects_of_one_user_keep_their_own_entries_locks_and_logs(tab, program, projects):
    entries = [prepared(tab, program, config=config) for config in projects]
    assert [install(tab, entry, now=now()).outcome for entry in entries] == ["installed"] * 3
    assert [len({getattr(entry, part) for entry in entries}) for part in ("name", "lock", "log")] == [3, 3, 3]
    assert [shown.configuration for shown in show(tab, now=now())] == projects
    assert install(tab, entries[1], now=now()).outcome == "unchanged"
    assert remove(tab, "dlq-retry", source=projects[1]).names == (entries[1].name,)
    assert [shown.configuration for shown in show(tab, now=now())] == [projects[0], projects[2]]
    assert remove(tab, "dlq-retry", source=projects[1]).names == ()
    assert remove(tab, entries[2].name, source=projects[1], typed=True).names == (entries[2].name,)


def as_before(tab, entry):
    """Write what a release wrote that knew no projects."""
    body = entry.body().replace(f"/{entry.name}.".encode(), f"/{entry.base_name}.".encode())
    tab.write(put(tab.read(), entry.base_name, body))


def test_an_entry_of_an_earlier_release_gets_its_new_name_from_its_own_project_alone(tab, program, projects):
    first, second = (prepared(tab, program, config=config) for config in projects[:2])
    tab.write(b"# mine\n")
    as_before(tab, first)
    assert install(tab, second, now=now()).outcome == "installed"
    assert [shown.name for shown in show(tab, now=now())] == ["dlq-retry", second.name]
    done = install(tab, first, now=now())
    assert (done.outcome, done.renamed_from) == ("replaced", "dlq-retry")
    assert [shown.name for shown in show(tab, now=now())] == [first.name, second.name]
    assert b"dlq-retry.lock" not in listing(tab.owner.name).stdout
    remove(tab, None)
    assert listing(tab.owner.name).stdout == b"# mine\n"


def test_an_entry_of_an_earlier_release_is_removed_by_its_project_and_not_by_another(tab, program, projects):
    as_before(tab, prepared(tab, program, config=projects[0]))
    done = remove(tab, "dlq-retry", source=projects[1])
    assert (done.names, done.left) == ((), ("dlq-retry",))
    assert remove(tab, "dlq-retry", source=projects[0]).names == ("dlq-retry",)


def test_where_no_project_is_the_only_entry_of_a_name_is_meant(tab, program, projects):
    entries = [prepared(tab, program, config=config) for config in projects[:2]]
    for entry in entries:
        install(tab, entry, now=now())
    assert remove(tab, "dlq-retry").names == ()
    remove(tab, "dlq-retry", source=projects[0])
    assert remove(tab, "dlq-retry").names == (entries[1].name,)


def test_a_project_named_by_another_path_replaces_its_entry(tab, program, projects):
    link = projects[0].parent.parent / "current"
    link.symlink_to(projects[0].parent)
    install(tab, prepared(tab, program, config=projects[0]), now=now())
    install(tab, prepared(tab, program, config=link / "idxctl.toml"), now=now())
    assert [shown.configuration for shown in show(tab, now=now())] == [link / "idxctl.toml"]


def test_entries_that_name_a_file_that_is_gone_or_were_edited_are_told_and_left_alone(tab, program, projects):
    install(tab, prepared(tab, program, config=projects[0]), now=now())
    projects[0].unlink()
    tab.write(put(tab.read(), "dlq-retry", b"* * * * * true\n* * * * * false\n"))
    remarks = install(tab, prepared(tab, program, config=projects[1]), now=now()).remarks
    assert [str(projects[0]) in remark for remark in remarks] == [True, False]
    assert "edited by hand" in remarks[1]
    assert len(show(tab, now=now())) == 3


@pytest.mark.parametrize("content", [b"# mine\n", b""])
def test_the_last_change_of_the_spool_is_of_a_second_in_which_the_tab_was_there_already(tab, tmp_path, content):
    tab.write(b"# before\n")
    beside = tmp_path / "bin"
    beside.mkdir()
    (beside / "crontab").write_text(
        f'#!/bin/sh\n/usr/bin/crontab "$@"\nstatus=$?\n'
        f'echo "$3 $(stat -c %Y {SPOOL}) $(tail -n 1 {SPOOL / tab.owner.name})" >> {tmp_path / "runs"}\nexit $status\n'
    )
    (beside / "crontab").chmod(0o755)
    Tab(tab.owner, path=f"{beside}:{os.environ['PATH']}").write(content)
    writes = [run.split(maxsplit=2) for run in (tmp_path / "runs").read_text().splitlines() if not run.startswith("-l")]
    first, last = writes[0], writes[-1]
    assert int(last[1]) > int(first[1])
    assert first[2:] == last[2:] == ([content.decode().strip()] if content else [])
    assert listing(tab.owner.name).stdout == content


def test_half_a_block_is_left_alone(tab, program):
    damaged = b"# mine\n# BEGIN idxctl: dlq-retry\n* * * * * true\n"
    tab.write(damaged)
    for call in (
        lambda: install(tab, prepared(tab, program), now=now()),
        lambda: remove(tab, None),
        lambda: show(tab, now=now()),
    ):
        with pytest.raises(ConfigError, match="line 2 has no END"):
            call()
    assert listing(tab.owner.name).stdout == damaged


def test_what_crontab_refuses_is_told_in_its_words_and_changes_nothing(tab, program):
    tab.write(b"# mine\n")
    with pytest.raises(IdxctlError, match="command too long"):
        install(tab, prepared(tab, program, command=("x" * 2000,)), now=now())
    assert listing(tab.owner.name).stdout == b"# mine\n"


def test_directories_are_made_by_the_user_who_needs_them(tab, program):
    entry = prepared(tab, program)
    install(tab, entry, now=now())
    for file in (entry.log, entry.lock):
        assert file.parent.is_dir()
        assert file.parent.owner() == tab.owner.name


def test_a_log_that_the_user_cannot_write_is_an_error_before_the_tab_is_touched(tab, program):
    with pytest.raises(ConfigError, match="cannot write /root/x/y"):
        install(tab, prepared(tab, program, log=Path("/root/x/y.log")), now=now())
    assert listing(tab.owner.name).returncode == 1
    assert not Path("/root/x").exists()


def test_a_program_that_the_user_cannot_reach_is_an_error(tab, tmp_path):
    hidden = tmp_path / "idxctl"  # pytest's directories are for their owner alone
    hidden.write_text("#!/bin/sh\n")
    hidden.chmod(0o755)
    with pytest.raises(ConfigError, match=f"{tab.owner.name} cannot run"):
        install(tab, prepared(tab, hidden), now=now())


def test_a_command_that_does_not_start_is_an_error(tab, program):
    program.write_text("#!/bin/sh\necho 'No such option: --limt' >&2\nexit 2\n")
    with pytest.raises(UsageError, match="No such option: --limt"):
        install(tab, prepared(tab, program), now=now())
    assert listing(tab.owner.name).returncode == 1


def test_only_root_may_touch_the_tab_of_another(user):
    owner = pwd.getpwnam(user)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(owner.pw_uid)
            account("root")
        except UsageError as error:
            status = 42 if "only root" in error.message else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


# --- the daemon


class Fifo:
    """A pipe that others write lines to. Open on both ends here, so that no writer ever waits."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path, 0o666)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def wait(self, seconds):
        """Return what is written, or "" if nothing comes in time."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        return os.read(self._fd, 65536).decode() if ready else ""

    def close(self):
        os.close(self._fd)


@pytest.fixture
def daemon():
    """Run cron, unless one runs here already."""
    if cron_runs():
        yield
        return
    process = subprocess.Popen(["/usr/sbin/cron", "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield
    process.terminate()
    process.wait()


@pytest.fixture
def idxctl(tmp_path):
    """The real program, started as its console script would."""
    script = tmp_path / "idxctl"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom idxctl.__main__ import main\nmain()\n"
    )
    script.chmod(0o755)

    def run(*arguments):
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        return subprocess.run([script, *arguments], cwd=tmp_path, env=env, check=False, capture_output=True, text=True)

    return run


@pytest.fixture
def ended(tmp_path):
    """The exit status of every job of a tab whose SHELL is ours, as it ends."""
    fifo = Fifo(tmp_path / "ended")
    (tmp_path / "sh").write_text(f'#!/bin/sh\n/bin/sh "$@"\necho "status $?" > {fifo.path}\n')
    (tmp_path / "sh").chmod(0o755)
    yield fifo
    fifo.close()


def test_cron_fires_the_entry_and_a_held_lock_skips_it(tmp_path, alter_ego, daemon, idxctl, ended):
    before = f"SHELL={tmp_path}/sh\n# mine\n".encode()
    tab = Tab(account(alter_ego), path=os.environ["PATH"])
    tab.write(before)
    log = tmp_path / "logs" / "50% done.log"
    command = ("--schedule", "* * * * *", "--log", str(log), "--command", f"cron show -o json --user {alter_ego}")

    name = f"test-{os.getpid()}"  # its lock lies where root's own entries have theirs
    installed = idxctl("cron", "install", "--user", alter_ego, "--name", name, *command)
    assert installed.returncode == 0, installed.stderr
    assert f"{name} installed in the crontab of {alter_ego}: * * * * *, next run" in installed.stdout
    assert "no cron daemon" not in installed.stderr

    a_second_ahead = time.time() + 1  # cron compares whole seconds, and may have looked in the very one of the writing
    os.utime(SPOOL, (a_second_ahead, a_second_ahead))

    lock = prepare(Options(executable=("x",), name=name), tab.owner, {"PATH": os.environ["PATH"]}).lock
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert ended.wait(A_FIRING) == "status 0\n"
        assert log.read_text() == ""  # fired, skipped, said nothing
    assert ended.wait(A_FIRING) == "status 0\n"
    (shown,) = json.loads(log.read_text())
    assert (shown["name"], shown["user"], shown["log"]) == (name, alter_ego, str(log))

    removed = idxctl("cron", "remove", "--user", alter_ego, "--name", name)
    lock.unlink()
    assert removed.returncode == 0, removed.stderr
    assert listing(alter_ego).stdout == before
