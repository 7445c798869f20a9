"""
The crontab entry that retries dead letters, spliced into a tab that belongs to somebody else.

Our lines sit between two marker lines; every other byte stays as it was, whatever its encoding or line ends. The tab
is read by ``crontab -l`` and written by ``crontab -`` as one whole, never by a library: python-crontab validates the
schedule and renders our one line, and writing tabs with it would rewrite all of them.

The entry carries no secret. Cron starts it with almost no environment, so what configures idxctl now and may stand in
a crontab is written into the line, and what may not is reported by name. Variables are set for the one command and
not as lines of the tab, where they would reach every entry below ours.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

from crontab import CronItem, CronSlices

from idxctl.core import trust
from idxctl.core.errors import ConfigError, IdxctlError, UsageError

DEFAULT_NAME = "dlq-retry"
DEFAULT_SCHEDULE = "*/5 * * * *"
DEFAULT_LIMIT = 100


# --- the schedule ---------------------------------------------------------------------------------------------------

_SPECIALS = ("@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_FIELD = re.compile(r"[0-9A-Za-z*,/-]+")
_HORIZON = timedelta(days=366 * 9)  # 29 February may be eight years off


class Schedule:
    """When an entry runs: five fields of crontab(5), or one of its ``@`` words."""

    def __init__(self, text: str) -> None:
        """Check *text* as cron would; `UsageError` says what is wrong with it."""
        words = text.split()
        hint = f'five fields, minute hour day month weekday: "{DEFAULT_SCHEDULE}"; or {", ".join(_SPECIALS)}'
        if len(words) == 1 and words[0].startswith("@"):
            if words[0].lower() not in _SPECIALS:
                raise UsageError(f'schedule "{text}": cron knows no {words[0]}', hint=hint)
        elif len(words) != 5:
            raise UsageError(f'schedule "{text}": {len(words)} fields, five wanted', hint=hint)
        elif bad := [word for word in words if not _FIELD.fullmatch(word)]:
            raise UsageError(f'schedule "{text}": {bad[0]} is no field of a crontab', hint=hint)
        try:
            self._slices = CronSlices(" ".join(words))
        except (ValueError, KeyError, TypeError) as err:
            reason = str(err.args[0]) if err.args else str(err)
            raise UsageError(f'schedule "{text}": {reason[:1].lower()}{reason[1:]}', hint=hint) from err
        self.text: str = self._slices.special or self._slices.clean_render()
        if not self.at_boot and self.next_run(datetime.now().astimezone()) is None:
            raise UsageError(f'schedule "{text}": no such day ever comes', hint=hint)

    @property
    def at_boot(self) -> bool:
        """Whether it runs when the machine starts, and at no time of day."""
        return self.text == "@reboot"

    def next_run(self, now: datetime) -> datetime | None:
        """Return the first minute after *now* that matches, in local time, or None for ``@reboot``."""
        if self.at_boot:
            return None
        minutes, hours, days, months, weekdays = (frozenset(part) for part in self._slices)
        # crontab(5): with both day fields restricted either suffices; a field that begins with * is not a restriction.
        _, _, day_field, _, weekday_field = self._slices.clean_render().split(" ")
        either = not (day_field.startswith("*") or weekday_field.startswith("*"))
        start = now.astimezone().replace(tzinfo=None, second=0, microsecond=0) + timedelta(minutes=1)
        today = start.replace(hour=0, minute=0)
        for offset in range(_HORIZON.days):
            date = today + timedelta(days=offset)
            by_day, by_weekday = date.day in days, date.isoweekday() % 7 in weekdays
            if date.month not in months or not (by_day or by_weekday if either else by_day and by_weekday):
                continue
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    if (found := date.replace(hour=hour, minute=minute)) >= start:
                        return found.astimezone()
        return None


# --- the bytes of a tab ---------------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NEWLINE_ADDED = b" (newline added above)"
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")
_MARKER = re.compile(
    rb"# (?P<kind>BEGIN|END) idxctl: (?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})"
    rb"(?P<added> \(newline added above\))?[ \t]*\r?\n?"
)


@dataclass(frozen=True)
class Block:
    """Our lines in a tab, markers included: where they are and what stands between the markers."""

    name: str
    start: int  # in bytes
    end: int
    first_line: int  # from 1
    last_line: int
    body: bytes
    newline_added: bool  # the tab did not end in a newline before we came


def blocks(tab: bytes) -> tuple[Block, ...]:
    """Find our blocks, in the tab's order. Half a block, or two of one name, is a `ConfigError`: nothing is guessed."""
    found: dict[str, Block] = {}
    opened: tuple[str, int, int, int, bool] | None = None  # name, start, line, start of the body, newline added
    for number, line in enumerate(_LINE.finditer(tab), start=1):
        marker = _MARKER.fullmatch(line[0])
        if marker is None:
            continue
        name = marker["name"].decode()
        if marker["kind"] == b"BEGIN":
            if opened is not None:
                raise _damaged(f"BEGIN of {opened[0]} on line {opened[2]} has no END before the BEGIN on line {number}")
            opened = (name, line.start(), number, line.end(), marker["added"] is not None)
        elif opened is None or opened[0] != name:
            raise _damaged(f"END of {name} on line {number} has no BEGIN")
        else:
            block = Block(
                name, opened[1], line.end(), opened[2], number, tab[opened[3] : line.start()], newline_added=opened[4]
            )
            if (twin := found.get(name)) is not None:
                lines = f"lines {twin.first_line}-{twin.last_line} and {block.first_line}-{block.last_line}"
                raise _damaged(f"two blocks are named {name}, {lines}")
            found[name] = block
            opened = None
    if opened is not None:
        raise _damaged(f"BEGIN of {opened[0]} on line {opened[2]} has no END")
    return tuple(found.values())


def _damaged(what: str) -> ConfigError:
    return ConfigError(
        f"the crontab's idxctl lines are damaged: {what}; nothing was changed",
        hint="mend or delete these lines with crontab -e, then run this again",
    )


def _marked(name: str, body: bytes, *, newline_added: bool) -> bytes:
    note = _NEWLINE_ADDED if newline_added else b""
    word = name.encode()
    return b"# BEGIN idxctl: " + word + note + b"\n" + body + b"# END idxctl: " + word + b"\n"


def put(tab: bytes, name: str, body: bytes) -> bytes:
    """Return *tab* with our block *name* holding *body*: replaced where it stands, or added at the end."""
    for block in blocks(tab):
        if block.name == name:
            return tab[: block.start] + _marked(name, body, newline_added=block.newline_added) + tab[block.end :]
    incomplete = bool(tab) and not tab.endswith(b"\n")
    return tab + (b"\n" if incomplete else b"") + _marked(name, body, newline_added=incomplete)


def cut(tab: bytes, name: str) -> bytes:
    """Return *tab* without our block *name*: the bytes it had before `put` added it."""
    found = blocks(tab)
    for block in found:
        if block.name != name:
            continue
        before, after = tab[: block.start], tab[block.end :]
        if not block.newline_added:
            return before + after
        if not after:
            return before.removesuffix(b"\n")
        # The newline that we added now carries what follows. If that is a block of ours, it inherits the note.
        heir = next((other for other in found if other.start == block.end), None)
        if heir is not None:
            after = _marked(heir.name, heir.body, newline_added=True) + tab[heir.end :]
        return before + after
    return tab


def _shell_in_force(tab: bytes) -> str:
    """Return the shell that the tab's own ``SHELL=`` line gives to an entry at its end."""
    lines = re.findall(rb"^[ \t]*[\"']?SHELL[\"']?[ \t]*=[ \t]*(.*?)[ \t\r]*$", tab, re.MULTILINE)
    return os.fsdecode(lines[-1]).strip("\"'") if lines else "/bin/sh"


# --- whose tab ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """The user whose tab it is, and as whom cron runs the entry."""

    name: str
    uid: int
    gid: int
    home: Path
    is_me: bool

    def run(self, argv: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
        """Run a program as this user, from the home directory as cron does. Only root gets to be somebody else."""
        other = {"user": self.uid, "group": self.gid, "extra_groups": os.getgrouplist(self.name, self.gid)}
        switch = {} if self.uid == os.geteuid() else other
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            argv, env=dict(env), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False, **switch
        )


def account(name: str | None = None) -> Account:
    """Return the account called *name*, or the one running this. Somebody else's needs root."""
    try:
        me = pwd.getpwuid(os.geteuid())
    except KeyError:
        me = None
    if name is None and me is None:
        raise ConfigError(
            f"user id {os.geteuid()} has no name on this machine, and cron runs entries by user name",
            hint="idxctl cron install --print shows the entry, to be put elsewhere",
        )
    try:
        entry = me if name is None else pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"--user {name}: no such user on this machine") from None
    assert entry is not None
    is_me = me is not None and entry.pw_name == me.pw_name
    if not is_me and os.geteuid() != 0:
        raise UsageError(
            f"--user {name}: only root may touch another user's crontab",
            hint=f"run this as root, or as {name} without --user",
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir), is_me)


class Tab:
    """One user's crontab, read and written whole by the ``crontab`` program."""

    def __init__(self, owner: Account, *, path: str | None) -> None:
        """Find the program on *path*, a PATH. Without one there is a `ConfigError`."""
        program = shutil.which("crontab", path=path)
        if program is None:
            raise ConfigError(
                "no crontab program found on PATH",
                hint="install cron (Debian: apt-get install cron; Fedora: dnf install cronie), or take the entry from "
                "idxctl cron install --print to where cron runs, or put its command into a systemd timer",
            )
        self.owner = owner
        self._argv = [program] if owner.is_me else [program, "-u", owner.name]
        self._env = {"PATH": path or os.defpath, "LC_ALL": "C"}  # its sentences are recognised in English

    def read(self) -> bytes:
        """Return the bytes of the tab; a user without one has an empty one."""
        done = self._run("-l")
        if done.returncode == 0:
            return self._exact(done.stdout)
        if b"no crontab for" in done.stderr.lower():
            return b""
        raise self._refusal("read", done)

    def _exact(self, listed: bytes) -> bytes:
        r"""
        Return the bytes of which *listed* is the listing.

        Debian's ``crontab -l`` spells a carriage return ``\r`` and a backspace ``\b``. Where these stand the bytes come
        from ``crontab -e``, with an "editor" that prints the file and leaves it alone: ordinary users have no other way.
        """
        if not re.search(rb"\\[rb]", listed):
            return listed
        edited = self._run("-e", VISUAL="cat", EDITOR="cat")
        exact = edited.stdout
        if edited.returncode != 0 or listed not in {exact, exact.replace(b"\r", rb"\r").replace(b"\b", rb"\b")}:
            raise IdxctlError(
                f"the crontab of {self.owner.name} has \\r or \\b in it, and crontab -l does not tell whether these are "
                "control characters; nothing was changed",
                hint="put the lines of idxctl cron install --print in with crontab -e",
            )
        return exact

    def write(self, content: bytes) -> None:
        """Put *content* in place of the whole tab; nothing at all removes it. A refusal leaves it as it was."""
        done = self._run("-", content) if content else self._run("-r")
        if done.returncode != 0:
            raise self._refusal("write", done)

    def _run(self, option: str, content: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        argv = [*self._argv, option]
        return subprocess.run(argv, input=content, capture_output=True, check=False, env={**self._env, **env})

    def _refusal(self, verb: str, done: subprocess.CompletedProcess[bytes]) -> IdxctlError:
        said = " ".join(done.stderr.decode(errors="replace").split()) or f"exit status {done.returncode}"
        denied = "not allowed" in said
        return IdxctlError(
            f"crontab would not {verb} the tab of {self.owner.name}: {said}",
            hint="cron.allow and cron.deny say who may have a crontab" if denied else None,
        )


# --- the entry ------------------------------------------------------------------------------------------------------

# libpq's variables that are no secret. PGPASSWORD and PGOPTIONS (any setting, a secret among them) are not here.
_PLAIN_PG = frozenset(
    "PGAPPNAME PGCHANNELBINDING PGCLIENTENCODING PGCONNECT_TIMEOUT PGDATABASE PGGSSDELEGATION PGGSSENCMODE PGGSSLIB "  # noqa: SIM905
    "PGHOST PGHOSTADDR PGKRBSRVNAME PGLOADBALANCEHOSTS PGMAXPROTOCOLVERSION PGMINPROTOCOLVERSION PGPASSFILE PGPORT "
    "PGREQUIREAUTH PGREQUIREPEER PGSERVICE PGSERVICEFILE PGSSLCERT PGSSLCERTMODE PGSSLCRL PGSSLCRLDIR PGSSLKEY "
    "PGSSLMAXPROTOCOLVERSION PGSSLMINPROTOCOLVERSION PGSSLMODE PGSSLNEGOTIATION PGSSLROOTCERT PGSSLSNI "
    "PGTARGETSESSIONATTRS PGTZ PGUSER".split()
)
# botocore's, of use only where the configuration signs for AWS.
_PLAIN_AWS = frozenset({"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ROLE_ARN", "AWS_CONFIG_FILE"}) | {
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
}
_WITHHELD_PG = frozenset({"PGPASSWORD", "PGOPTIONS"})
_WITHHELD_AWS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})
_PATH_NAME = re.compile(
    r"IDXCTL_\w+_(FILE|CLIENT_CERT|CLIENT_KEY)|PG(PASSFILE|SERVICEFILE|SSL\w*(CERT|CRL|CRLDIR|KEY))|AWS_\w+_FILE"
)
_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|CREDENTIAL|DSN)", re.IGNORECASE)
_SECRET_SETTING = re.compile(r"(password|passwd|pwd|secret|token|api_?key)\s*=", re.IGNORECASE)
_POSIX_SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "mksh", "zsh"})


def _holds_secret(value: str) -> bool:
    """Say whether a URL, a list of URLs or a conninfo holds a password. In doubt it does."""
    if _SECRET_SETTING.search(value) or _SECRET_SETTING.search(unquote(value)):
        return True
    for url in re.split(r",(?=[a-z]+://)", value):
        _, scheme, rest = url.partition("://")
        user_info, at, _ = rest.rpartition("@")
        if scheme and at and ":" in user_info:
            return True
    return False


def split_environment(env: Mapping[str, str], config: str = "") -> tuple[dict[str, str], tuple[str, ...]]:
    """
    Sort what configures idxctl in *env*: the settings that may stand in a crontab, and the names of those that may not.

    *config* is the text of the configuration file: one that runs a command for a secret needs ``PATH``, and one that
    signs for AWS needs botocore's variables. ``IDXCTL_CONFIG`` is in neither result: the entry names the file by
    ``--config``. Relative paths become absolute.
    """
    plain, secret = _PLAIN_PG, _WITHHELD_PG
    if "aws_region" in config or env.get("IDXCTL_OPENSEARCH_AWS_REGION"):
        plain, secret = plain | _PLAIN_AWS, secret | _WITHHELD_AWS
    if re.search(r"_command\s*=", config):
        plain |= {"PATH"}
    written: dict[str, str] = {}
    withheld: list[str] = []
    for name, value in sorted(env.items()):
        ours = name.startswith("IDXCTL_") and name != "IDXCTL_CONFIG"
        if not value or not (ours or name in plain or name in secret):
            continue
        is_path = _PATH_NAME.fullmatch(name) is not None and value != "system"  # a word of PGSSLROOTCERT
        hidden = name in secret or (ours and not is_path and bool(_SECRET_NAME.search(name)))
        if hidden or _holds_secret(value) or not value.isprintable():
            withheld.append(name)
        else:
            written[name] = str(_absolute(Path(value))) if is_path else value
    return written, tuple(withheld)


def executable(argv0: str, *, path: str | None) -> tuple[str, ...]:
    """Return the absolute words that start this very program again, its links unresolved (a venv's Python is one)."""
    if Path(argv0).name == "idxctl":
        found = argv0 if os.sep in argv0 else shutil.which(argv0, path=path)
        if found:
            return (os.path.abspath(found),)  # noqa: PTH100 - keeps symbolic links
    beside = Path(sys.executable).with_name("idxctl")
    return (str(beside),) if os.access(beside, os.X_OK) else (sys.executable, "-m", "idxctl")


def command_words(command: str | None, limit: int | None) -> tuple[str, ...]:
    """Return the words after ``idxctl``: *command* as a shell reads it, or ``dlq retry`` with *limit*."""
    if command is None:
        return ("dlq", "retry", "--limit", str(DEFAULT_LIMIT if limit is None else limit))
    if limit is not None:
        raise UsageError("--limit belongs to the default command", hint="write it into --command")
    try:
        words = shlex.split(command)
    except ValueError as err:
        raise UsageError(f"--command {command!r}: {str(err).lower()}") from err
    return tuple(words[1:] if words[:1] == ["idxctl"] else words)


@dataclass(frozen=True)
class Options:
    """What is asked for. ``log`` None: the default file, unless ``to_logger``."""

    executable: tuple[str, ...]
    command: tuple[str, ...] = command_words(None, None)
    name: str = DEFAULT_NAME
    schedule: str = DEFAULT_SCHEDULE
    config: Path | None = None
    env_file: Path | None = None
    log: Path | None = None
    to_logger: bool = False


@dataclass(frozen=True)
class Entry:
    """An entry ready to be written: everything absolute, nothing secret."""

    name: str
    schedule: Schedule
    program: tuple[str, ...]  # idxctl with its global options
    command: tuple[str, ...]
    flock: str
    lock: Path
    log: Path | None  # None: to syslog by `logger`
    logger: str | None
    env_file: Path | None
    environment: Mapping[str, str] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()  # set here and now, and not under cron
    remarks: tuple[str, ...] = ()  # sentences worth reading before relying on it

    def body(self, shell: str = "/bin/sh") -> bytes:
        """Render the lines between the markers, for a tab whose ``SHELL`` is *shell*."""
        command = self._shell_command()
        if Path(shell).name not in _POSIX_SHELLS:
            command = f"/bin/sh -c {shlex.quote(command)}"
        item = CronItem(command)
        item.setall(self.schedule.text)
        # The library renders five fields such as 0 * * * * as @hourly; what was asked for stays readable.
        rendered = item.render()[len(item.slices.render()) :]
        return os.fsencode(f"# Change it with idxctl cron install, not by hand.\n{self.schedule.text}{rendered}\n")

    def _shell_command(self) -> str:
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        settings.append("IDXCTL_CHANNEL=cron")  # so that the audit tells its runs from those of people
        # Status 0 when another run holds the lock: there is nothing to report, that run does the work.
        locked = [self.flock, "-n", "-E", "0", str(self.lock), *self.program, *self.command]
        run = " ".join([*settings, *map(shlex.quote, locked)])
        if self.env_file is not None:
            run = f"{{ set -a && . {shlex.quote(str(self.env_file))} && set +a && {run} ; }}"
        if self.log is not None:
            return f"{run} >> {shlex.quote(str(self.log))} 2>&1"
        return f"{run} 2>&1 | {shlex.quote(self.logger or 'logger')} -t idxctl"


def prepare(options: Options, owner: Account, env: Mapping[str, str], *, here: bool = True) -> Entry:
    """
    Work out the entry from what is asked for and the environment now. Reads the env file; touches nothing.

    With *here* false the entry is for some other machine, so a program missing on this one is a remark, no error.
    """
    if not _NAME.fullmatch(options.name):
        raise UsageError(f'--name "{options.name}": letters, digits, dot, dash and underscore, at most 64')
    if options.log is not None and options.to_logger:
        raise UsageError("--log and --logger are two places for the same output", hint="keep one of them")
    if not options.command:
        raise UsageError("--command is empty", hint="such as --command 'dlq retry --limit 100'")
    remarks: list[str] = []
    path = env.get("PATH")
    flock = _program("flock", path, here=here, remarks=remarks)
    logger = _program("logger", path, here=here, remarks=remarks) if options.to_logger else None
    environment, withheld = split_environment(env, _text_of(options.config))
    env_file = options.env_file
    if env_file is not None:
        env_file = _absolute(env_file)
        _require_own(env_file, owner, env)
        named = _names_in(env_file, required=here)
        environment = {name: value for name, value in environment.items() if name not in named}
        withheld = tuple(name for name in withheld if name not in named)
        if env_file.exists() and trust.of(env, uid=owner.uid)[0].look(env_file).exposed:
            remarks.append(f"{env_file} can be read by other users; chmod 600 it if it holds a secret")
    if options.config is not None:
        _require_own(_absolute(options.config), owner, env, may_be_foreign=True)
    else:
        remarks.append("no configuration file is in force; the entry runs with the settings in its line alone")
    entry = Entry(
        name=options.name,
        schedule=Schedule(options.schedule),
        program=(*options.executable, *(("--config", str(_absolute(options.config))) if options.config else ())),
        command=options.command,
        flock=flock,
        lock=_state_directory(owner, env, "/var/lib") / f"{options.name}.lock",
        log=None if options.to_logger else _log_file(options, owner, env),
        logger=logger,
        env_file=env_file,
        environment=environment,
        withheld=withheld,
        remarks=tuple(remarks),
    )
    _check_one_line(entry)
    return entry


def _require_own(file: Path, owner: Account, env: Mapping[str, str], *, may_be_foreign: bool = False) -> None:
    """
    Refuse a file that users other than *owner* could have written: cron would do what it says, as that user.

    A shell runs an env file, so that one must not even belong to somebody else.
    """
    try:
        standing = trust.of(env, uid=owner.uid)[0].look(file)
    except OSError:  # not here, or not to be read: the entry's trial run says so
        return
    if standing.refused:
        raise ConfigError(standing.refused, hint=standing.fix)
    if standing.foreign and not may_be_foreign:
        raise ConfigError(
            f"{file} belongs to somebody else ({standing.foreign}), and cron would run it as {owner.name}",
            hint=f"chown {owner.name} {file}; {trust.VARIABLE}={file.parent} trusts the folder",
        )


def _check_one_line(entry: Entry) -> None:
    for word in (*entry.program, *entry.command, str(entry.lock), str(entry.log or ""), str(entry.env_file or "")):
        if set(word) & {"\n", "\r", "\0"}:
            raise UsageError(f"{word!r} has a line break in it, and a crontab entry is one line")


def _program(name: str, path: str | None, *, here: bool, remarks: list[str]) -> str:
    if found := shutil.which(name, path=path):
        return os.path.abspath(found)  # noqa: PTH100 - keeps symbolic links
    if not here:
        remarks.append(f"no {name} on this machine; the entry expects /usr/bin/{name}")
        return f"/usr/bin/{name}"
    package = {"flock": "util-linux", "logger": "bsdutils or util-linux"}[name]
    why = {"flock": "which keeps runs from overlapping", "logger": "which sends the output to syslog"}[name]
    other = {"flock": "or use a systemd timer, which never overlaps itself", "logger": "or use --log FILE"}[name]
    raise ConfigError(f"no {name} program found on PATH, {why}", hint=f"install the package {package}, {other}")


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - keeps symbolic links


def _state_directory(owner: Account, env: Mapping[str, str], of_root: str) -> Path:
    if owner.uid == 0:
        return Path(of_root) / "idxctl"
    chosen = env.get("XDG_STATE_HOME", "") if owner.is_me else ""
    return (Path(chosen) if os.path.isabs(chosen) else owner.home / ".local" / "state") / "idxctl"  # noqa: PTH117


def _text_of(config: Path | None) -> str:
    try:
        return config.read_text(errors="replace") if config is not None else ""
    except OSError:  # the entry's trial run says what is wrong with it
        return ""


def _log_file(options: Options, owner: Account, env: Mapping[str, str]) -> Path:
    if options.log is not None:
        return _absolute(options.log)
    return _state_directory(owner, env, "/var/log") / f"{options.name}.log"


def _names_in(env_file: Path, *, required: bool) -> frozenset[str]:
    """Return the names that a file of ``NAME=value`` lines sets; the values are not looked at."""
    try:
        text = env_file.read_text(errors="replace")
    except OSError as err:
        if not required:
            return frozenset()
        raise ConfigError(
            f"--env-file {env_file}: {err.strerror}", hint="a file of NAME=value lines that sh can read, mode 600"
        ) from err
    return frozenset(re.findall(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=", text, re.MULTILINE))


# --- install, show, remove ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installed:
    """What became of the tab: ``outcome`` is installed, replaced or unchanged."""

    outcome: str
    entry: Entry
    user: str
    next_run_at: datetime | None
    cron_runs: bool | None  # whether a cron daemon was seen; None where that cannot be known


@dataclass(frozen=True)
class Shown:
    """A block found in a tab. What cannot be made out of an edited one is None."""

    name: str
    user: str
    first_line: int
    schedule: str | None
    command: str | None
    log: str | None
    to_logger: bool
    next_run_at: datetime | None
    text: str

    @property
    def output(self) -> str | None:
        """Where the entry's output goes."""
        return "syslog" if self.to_logger else self.log


@dataclass(frozen=True)
class Removed:
    """The entries taken out, and those of ours still there. ``newline_kept``: the tab had no final newline, and crontab(1) insists on one."""

    names: tuple[str, ...]
    user: str
    left: tuple[str, ...] = ()
    newline_kept: bool = False
    dry_run: bool = False


def install(tab: Tab, entry: Entry, *, now: datetime) -> Installed:
    """
    Put *entry* into *tab*, in place of one of the same name; the same entry twice changes nothing.

    Before the tab is touched the command is tried with ``--help`` as cron would start it, and the directories of log
    and lock are made. A crash leaves the tab as it was or complete: crontab(1) replaces it in one step.
    """
    before = tab.read()
    known = {block.name for block in blocks(before)}
    _try_command(entry, tab.owner)
    for file in (entry.lock, entry.log):
        if file is not None:
            _make_room(file, tab.owner)
    own = [block for block in blocks(before) if block.name == entry.name]
    shell = _shell_in_force(before[: own[0].start] if own else before)
    after = put(before, entry.name, entry.body(shell))
    if after != before:
        tab.write(after)
        _confirm(tab, after)
    outcome = "unchanged" if after == before else "replaced" if entry.name in known else "installed"
    return Installed(outcome, entry, tab.owner.name, entry.schedule.next_run(now), cron_runs())


def show(tab: Tab, *, now: datetime, names: Iterable[str] = ()) -> tuple[Shown, ...]:
    """Return our entries in *tab*, or those of *names*."""
    wanted = set(names)
    found = blocks(tab.read())
    return tuple(read_block(block, tab.owner.name, now) for block in found if not wanted or block.name in wanted)


def remove(tab: Tab, names: Iterable[str] | None, *, dry_run: bool = False) -> Removed:
    """Take the entries *names*, or all of ours, out of *tab*. What is not there is not an error."""
    before = tab.read()
    wanted = None if names is None else set(names)
    present = [block.name for block in blocks(before)]
    gone = tuple(name for name in present if wanted is None or name in wanted)
    left = tuple(name for name in present if name not in gone)
    if dry_run or not gone:
        return Removed(gone, tab.owner.name, left, dry_run=dry_run)
    after = before
    for name in gone:
        after = cut(after, name)
    newline_kept = False
    try:
        tab.write(after)
    except IdxctlError:
        if after.endswith(b"\n") or not after:
            raise
        newline_kept = True  # most crontab programs refuse a last line without its newline
        after += b"\n"
        tab.write(after)
    _confirm(tab, after)
    return Removed(gone, tab.owner.name, left, newline_kept)


def _confirm(tab: Tab, wanted: bytes) -> None:
    """Read the tab back: another program may have written it between our reading and our writing."""
    if [block.body for block in blocks(tab.read())] != [block.body for block in blocks(wanted)]:
        raise IdxctlError(
            f"the crontab of {tab.owner.name} was changed by somebody else at the same moment",
            hint="look at it with crontab -l, then run this again",
        )


def _try_command(entry: Entry, owner: Account) -> None:
    argv = [*entry.program, *entry.command, "--help"]
    env = {"HOME": str(owner.home), "LOGNAME": owner.name, "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    words = shlex.join([*entry.program, *entry.command])
    try:
        done = owner.run(argv, env)
    except OSError as err:
        raise ConfigError(
            f"{owner.name} cannot run {entry.program[0]}: {err.strerror}",
            hint="install idxctl where this user reaches it, such as with pipx, and run that one",
        ) from err
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[-300:] or f"exit status {done.returncode}"
        raise UsageError(
            f"cron would not get {words} to run: {said}",
            hint="nothing was changed; cron starts it outside this directory, so idxctl must be installed, and the "
            "command must be one that works by hand",
        )


_MAKE_ROOM = """
directory=$(dirname -- "$1") || exit
mkdir -p -- "$directory" && [ ! -d "$1" ] && { [ -w "$1" ] || { [ ! -e "$1" ] && [ -w "$directory" ]; }; }
"""


def _make_room(file: Path, owner: Account) -> None:
    """Make the directory of *file* as its user: root must not follow links that a user has laid in their own home."""
    done = owner.run(["/bin/sh", "-c", _MAKE_ROOM, "sh", str(file)], {"PATH": "/usr/bin:/bin", "LC_ALL": "C"})
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split()) or "not a file that can be written"
        raise ConfigError(f"{owner.name} cannot write {file}: {said}", hint="name another file with --log")


def cron_runs() -> bool | None:
    """Say whether a cron daemon is among the processes; None where /proc does not tell."""
    names = list(_process_names())
    return bool({"cron", "crond", "fcron", "bcron-sched"} & set(names)) if names else None


def _process_names() -> Iterator[str]:
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it has ended meanwhile, or is hidden from us
            yield comm.read_text().strip()


def read_block(block: Block, user: str, now: datetime) -> Shown:
    """Make out of one block what it does and when."""
    text = os.fsdecode(block.body)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    shown = Shown(block.name, user, block.first_line, None, None, None, to_logger=False, next_run_at=None, text=text)
    if len(lines) != 1:
        return shown
    count = 1 if lines[0].startswith("@") else 5
    *fields, line = lines[0].split(None, count)
    try:
        schedule = Schedule(" ".join(fields))
        words = shlex.split(line.replace(r"\%", "%"))
        words = shlex.split(words[2]) if words[:2] == ["/bin/sh", "-c"] else words
    except (UsageError, ValueError, IndexError):
        return shown
    starts = next((at + 5 for at in range(len(words)) if words[at + 1 : at + 4] == ["-n", "-E", "0"]), 0)
    ends = next((at for at in range(starts, len(words)) if words[at] in {";", ">>", "2>&1"}), len(words))
    after = words[ends:]
    log = after[after.index(">>") + 1] if ">>" in after[:-1] else None
    return Shown(
        block.name,
        user,
        block.first_line,
        schedule.text,
        shlex.join(words[starts:ends]),
        log,
        to_logger="|" in after,
        next_run_at=schedule.next_run(now),
        text=text,
    )
