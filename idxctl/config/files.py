"""The configuration's own file, and the files that it names: found, read and judged by who could have written them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idxctl.config import trust
from idxctl.config.lines import line_numbers
from idxctl.config.problems import Findings, InvalidConfig, Problem
from idxctl.config.values import Wrong

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

DEFAULT_FILE = "idxctl.toml"
_SERVER_VARIABLES = (
    "IDXCTL_DATABASE_URL",
    "IDXCTL_DATABASE_URL_FILE",
    "IDXCTL_OPENSEARCH_URL",
    "PGHOST",
    "PGDATABASE",
    "PGSERVICE",
)


@dataclass(frozen=True)
class ConfigFile:
    """The file as it was read; without one, all of it is empty."""

    path: Path | None = None
    tables: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict)  # of every key and header
    standing: trust.Standing | None = None  # who could have written it

    @property
    def base(self) -> Path:
        """Where relative paths in it start."""
        return self.path.parent if self.path else Path()

    def at(self, *keys: str | int) -> str:
        """Name the place in the file that *keys* lead to, with the line where it can be found."""
        for length in range(len(keys), 0, -1):
            line = self.lines.get(keys[:length])
            if line is not None:
                return f"{self.path} line {line}"
        return str(self.path)


def find(
    path: Path | None, *, environ: Mapping[str, str], need_file: bool, trusted: trust.Trust, findings: Findings
) -> ConfigFile:
    """
    Find, read and parse the file. Raises `InvalidConfig`: without a readable one nothing else is worth saying.

    It is *path*, else ``IDXCTL_CONFIG``, else `DEFAULT_FILE`, which may be missing if the environment names a server.
    """
    named_by = "--config" if path else "IDXCTL_CONFIG" if environ.get("IDXCTL_CONFIG") else None
    path = path or Path(environ.get("IDXCTL_CONFIG") or DEFAULT_FILE)
    try:
        data, standing = trusted.read(path)
    except FileNotFoundError:
        if named_by:
            raise InvalidConfig([Problem(named_by, "", f"there is no file {path}")]) from None
        if need_file and not any(environ.get(name) for name in _SERVER_VARIABLES):
            raise InvalidConfig(
                [Problem("", "", f"there is no {DEFAULT_FILE} in this directory")],
                hint="name it with --config PATH or IDXCTL_CONFIG, or name the servers with IDXCTL_DATABASE_URL and IDXCTL_OPENSEARCH_URL",
            ) from None
        return ConfigFile()
    except OSError as error:
        raise InvalidConfig([Problem(named_by or "", "", f"cannot read {path}: {why(error)}")]) from None
    if standing.refused:
        raise InvalidConfig([*findings.problems, Problem("", "", standing.refused, standing.fix)])
    findings.note(standing)
    tables, text = _parsed(path, data)
    return ConfigFile(path=path, tables=tables, lines=line_numbers(text), standing=standing)


def _parsed(path: Path, data: bytes) -> tuple[Mapping[str, Any], str]:
    """Return the tables of a file, and its text. Raises `InvalidConfig`."""
    try:
        text = data.decode("utf-8-sig")
        tables = tomllib.loads(text.replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidConfig([Problem(f"{path} line {line}", "", "is not UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        # The parser's sentence names keys and characters, never a value; the line itself is not quoted.
        raise InvalidConfig([Problem(str(path), "", f"not valid TOML: {decapitalised(str(error))}")]) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets of thousands of levels
        what = "holds a number that is too long, or is nested too deeply"
        raise InvalidConfig([Problem(str(path), "", what)]) from None
    if _holds_nul(tables):
        raise InvalidConfig([Problem(str(path), "", "holds a NUL (\\u0000), which no name or setting can")])
    return tables, text


class Files:
    """Reads what the configuration names: no file that others could have written, and none that its author could not read."""

    def __init__(self, trusted: trust.Trust, config: ConfigFile, findings: Findings) -> None:
        self._trusted = trusted
        self._standing = config.standing
        self._findings = findings

    def read(self, path: Path, *, secret: bool = False, named_by_file: bool = True) -> bytes:
        """Return a file's bytes. Raises `Wrong` for one that others could have written, `OSError` as reading does."""
        data, standing = self._trusted.read(path)
        if standing.refused:
            raise Wrong(standing.refused, standing.fix)
        if named_by_file:
            self._require_open(path, standing)
        self._findings.note(standing, secret=secret)
        return data

    def _require_open(self, path: Path, standing: trust.Standing) -> None:
        """
        Raise `Wrong` for a file that those who wrote the configuration could not read themselves.

        What they name is sent to a server of their choice: a secret to authenticate with, SQL and mapping as such.
        """
        ours = self._standing
        if ours and ours.foreign and not standing.is_open_to(ours):
            raise Wrong(
                f"{path} is not read, since {ours.path}, which names it, belongs to someone else ({ours.foreign})",
                f"name it in the environment, or trust the folder: {trust.VARIABLE}={ours.path.parent.absolute()}",
            )

    def text(self, path: Path) -> str:
        """Return a file's text, its lines ended by a line feed. Raises `Wrong`."""
        try:
            return self.read(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except (OSError, UnicodeDecodeError) as error:
            fix = "paths start at the directory of the configuration file"
            raise Wrong(f"cannot read {path}: {why(error)}", fix) from None

    def require_own_command(self, name: str, path: Path) -> None:
        """Raise `Wrong` for a program that others could have written."""
        standing = self._trusted.look(path)
        if standing.refused or standing.foreign:
            reason = standing.refused or f"it belongs to someone else ({standing.foreign})"
            raise Wrong(f"the command {name!r} is not run: {reason}", standing.fix)


def _holds_nul(parsed: object) -> bool:
    waiting = [parsed]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and "\0" in one:
            return True
    return False


def resolved(base: Path, text: str) -> Path:
    """Return the path that *text* names; a relative one starts at *base*."""
    try:
        return base / Path(text).expanduser()
    except RuntimeError:  # "~name" where no account has the name: the file is not there, and that is what is reported
        return base / text


def why(error: Exception) -> str:
    """Say in a few words why a file could not be read."""
    if isinstance(error, OSError):
        return decapitalised(error.strerror or type(error).__name__)
    return "it is not UTF-8 text"


def decapitalised(sentence: str) -> str:
    """Return a parser's sentence so that it can follow a colon."""
    return sentence[:1].lower() + sentence[1:]
