"""
The files of an index: its query, its mapping, and its part of ``idxctl.toml``.

Nothing is ever overwritten. A configuration that is there gets the index at its end, as text: what others wrote stays byte for
byte as it is, comments too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from idxctl.core.errors import ConfigError, UsageError
from idxctl.init.mapping import written
from idxctl.init.plan import Plan
from idxctl.init.watches import Watch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = "search"
_WIDTH = 120
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755  # what others can write decides nothing: whatever the umask says


@dataclass(frozen=True)
class File:
    """A file to be written, or text to be put at the end of one."""

    path: Path
    text: str
    appended: bool = False


@dataclass(frozen=True)
class Servers:
    """Where the servers are, as far as it can stand in a new configuration: no secret is ever written."""

    schema: str
    database: str  # a comment: where the URL comes from
    opensearch: str | None  # a URL without a password


def compose(plan: Plan, config: Path, servers: Servers) -> tuple[File, ...]:
    """
    Return the files of *plan*, the configuration last; raises rather than overwrite one.

    Raises `UsageError` where a file or index of that name is there, `ConfigError` for a configuration that cannot be read.
    """
    folder = config.parent / _FOLDER
    query, mapping = folder / f"{plan.index}.sql", folder / f"{plan.index}.json"
    for path in (query, mapping):
        if path.exists():
            raise UsageError(
                f"{path} is there already, and init overwrites nothing",
                hint="--index NAME for another name, or move the file away",
            )
    section = _section(plan)
    files = [File(query, plan.query), File(mapping, written(plan.mapping) + "\n")]
    if not config.exists():
        return (*files, File(config, _head(servers) + section))
    before = _read(config)
    if plan.index in _indexes(before, config):
        raise UsageError(f"{config} has an index {plan.index} already", hint="--index NAME for another name")
    return (*files, added(config, section))


def write(files: tuple[File, ...]) -> None:
    """
    Write the files, the configuration last; one that appeared meanwhile is not touched.

    What was made before a failure is taken away again: all of it is there, or nothing.
    """
    made: list[Path] = []
    try:
        for one in files:
            one.path.parent.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            if one.appended:
                with one.path.open("a", encoding="utf-8", newline="") as file:
                    file.write(one.text)
                continue
            descriptor = os.open(one.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
            made.append(one.path)
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                os.fchmod(file.fileno(), _FILE_MODE)
                file.write(one.text)
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(
                f"{error.filename or files[0].path}: it cannot be written: {error.strerror}; nothing was written",
                hint="go to a folder that you may write, or print the files with --dry-run",
            ) from error
        raise


def _read(config: Path) -> str:
    try:
        return config.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config} cannot be read: {error}") from error


def _indexes(text: str, config: Path) -> Mapping[str, object]:
    try:
        found = tomllib.loads(text).get("indexes", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{config} is no TOML: {error}", hint="idxctl config validate") from error
    return found if isinstance(found, dict) else {}


def _parsed_with(before: str, more: str, config: Path) -> None:
    """Refuse to add to a file whose shape does not take tables at its end: one with ``indexes = {...}``, ``watch = [...]``."""
    try:
        tomllib.loads(before + more)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{config}: tables cannot be put at its end: {error}",
            hint="write its indexes and watches as tables, [indexes.NAME] and [[indexes.NAME.watch]]; or have it printed, and put it in by hand",
        ) from error


def _head(servers: Servers) -> str:
    lines = [
        "# The configuration of idxctl: every key is in docs/configuration.md, and `idxctl config show` says where each value comes from.",
        "",
        "[database]",
        f"# url: {servers.database}",
        f"schema = {_string(servers.schema)}  # of idxctl's own tables; migrate up creates it",
        "",
        "[opensearch]",
        f"url = {_string(servers.opensearch)}"
        if servers.opensearch
        else "# url: from IDXCTL_OPENSEARCH_URL; passwords from IDXCTL_OPENSEARCH_PASSWORD or a file",
        "",
    ]
    return "\n".join(lines) + "\n"


def _section(plan: Plan) -> str:
    name = _key(plan.index)
    lines = [
        f"[indexes.{name}]  # the alias that your application queries",
        f"document = {_string(f'{_FOLDER}/{plan.index}.sql')}",
        f"mapping = {_string(f'{_FOLDER}/{plan.index}.json')}",
    ]
    if plan.composite:
        lines.append(f"key = {_list(plan.key)}")
    for watch in plan.watches:
        lines += ["", *_watch(name, watch)]
    return "\n".join(lines) + "\n"


def watch_text(index: str, watch: Watch) -> str:
    """Return a watch of *index* as it stands in the configuration."""
    return "\n".join(_watch(_key(index), watch)) + "\n"


def added(config: Path, text: str) -> File:
    """Return *text*, tables of TOML, as what is put at the end of *config*; raises `ConfigError` where that takes none."""
    before = _read(config)
    text = ("" if before.endswith("\n") or not before else "\n") + "\n" + text
    _parsed_with(before, text, config)
    return File(config, text, appended=True)


def _watch(index: str, watch: Watch) -> list[str]:
    lines = [
        f"[[indexes.{index}.watch]]" + (f"  # {watch.comment}" if watch.comment else ""),
        f"table = {_string(watch.table)}",
    ]
    if watch.keys is not None:
        lines.append(f"keys = {_string(watch.keys)}")
    else:
        lines.append(f"key = {_string(watch.key[0]) if len(watch.key) == 1 else _list(watch.key)}")
    if watch.ignore:
        lines.append(f"ignore = {_list(watch.ignore)}  # no document shows them")
    if watch.deferred:
        lines.append("deferred = true  # a change may touch many documents: they wait behind single changes")
    return lines


def _list(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(map(_string, names)) + "]"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _string(name)


def _string(text: str) -> str:
    """Return a TOML string: literal where quotes are in it and it allows."""
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
