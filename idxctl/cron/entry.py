"""The entry itself: one line that a shell runs, with everything absolute and nothing secret."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crontab import CronItem

from idxctl.config import trust
from idxctl.core.errors import ConfigError, UsageError
from idxctl.cron import project
from idxctl.cron.blocks import NAME
from idxctl.cron.environment import absolute, names_in, split_environment
from idxctl.cron.schedule import DEFAULT as DEFAULT_SCHEDULE
from idxctl.cron.schedule import Schedule
from idxctl.cron.tab import Account

DEFAULT_NAME = "dlq-retry"
DEFAULT_LIMIT = 100

_POSIX_SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "mksh", "zsh"})


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

    name: str  # in the tab: with its project's mark
    base_name: str
    source: Path | None  # the file that is its project
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


def source_of(config: Path | None, env_file: Path | None = None) -> Path | None:
    """Return the file that tells projects apart."""
    source = config or env_file
    return None if source is None else absolute(source)


def prepare(options: Options, owner: Account, env: Mapping[str, str], *, here: bool = True) -> Entry:
    """
    Work out the entry from what is asked for and the environment now. Reads the env file; touches nothing.

    With *here* false the entry is for some other machine, so a program missing on this one is a remark, no error.
    """
    if not NAME.fullmatch(options.name):
        raise UsageError(f'--name "{options.name}": letters, digits, dot, dash and underscore, at most 64')
    if options.log is not None and options.to_logger:
        raise UsageError("--log and --logger are two places for the same output", hint="keep one of them")
    if not options.command:
        raise UsageError("--command is empty", hint="such as --command 'dlq retry --limit 100'")
    source = source_of(options.config, options.env_file)
    name = project.full_name(options.name, source)
    remarks: list[str] = []
    path = env.get("PATH")
    flock = _program("flock", path, here=here, remarks=remarks)
    logger = _program("logger", path, here=here, remarks=remarks) if options.to_logger else None
    environment, withheld = split_environment(env, _text_of(options.config))
    env_file = options.env_file
    if env_file is not None:
        env_file = absolute(env_file)
        _require_own(env_file, owner, env)
        named = names_in(env_file, required=here)
        environment = {name: value for name, value in environment.items() if name not in named}
        withheld = tuple(name for name in withheld if name not in named)
        if env_file.exists() and trust.of(env, uid=owner.uid)[0].look(env_file).exposed:
            remarks.append(f"{env_file} can be read by other users; chmod 600 it if it holds a secret")
    if options.config is not None:
        _require_own(absolute(options.config), owner, env, may_be_foreign=True)
    else:
        remarks.append("no configuration file is in force; the entry runs with the settings in its line alone")
    entry = Entry(
        name=name,
        base_name=options.name,
        source=source,
        schedule=Schedule(options.schedule),
        program=(*options.executable, *(("--config", str(absolute(options.config))) if options.config else ())),
        command=options.command,
        flock=flock,
        lock=_state_directory(owner, env, "/var/lib") / f"{name}.lock",
        log=None if options.to_logger else _log_file(options.log, name, owner, env),
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

    A shell runs an env file, so that one must not even belong to someone else.
    """
    try:
        standing = trust.of(env, uid=owner.uid)[0].look(file)
    except OSError:  # not here, or not to be read: the entry's trial run says so
        return
    if standing.refused:
        raise ConfigError(standing.refused, hint=standing.fix)
    if standing.foreign and not may_be_foreign:
        raise ConfigError(
            f"{file} belongs to someone else ({standing.foreign}), and cron would run it as {owner.name}",
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


def _log_file(log: Path | None, name: str, owner: Account, env: Mapping[str, str]) -> Path:
    return absolute(log) if log is not None else _state_directory(owner, env, "/var/log") / f"{name}.log"
