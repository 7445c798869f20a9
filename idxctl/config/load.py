"""
Reads the configuration: flags over environment over ``idxctl.toml`` over defaults.

Every problem is collected and they are reported together, each with its source and the way out. No message carries the
value of a secret, nor of anything that may hold one (URLs, connection strings).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

from idxctl.config import bearers, sums, trust
from idxctl.config.keys import INDEX, SECTIONS, WATCH
from idxctl.config.settings import (
    PRESETS,
    Bearer,
    DatabaseSettings,
    HttpSettings,
    IndexSettings,
    OpenSearchSettings,
    Settings,
    WatchSettings,
    WorkerSettings,
)
from idxctl.config.trust import Remark
from idxctl.config.values import BOOLEAN, PASSWORD_IN_URL, Wrong, connection_string, kind_of
from idxctl.core.durations import format_duration
from idxctl.core.errors import ConfigError
from idxctl.core.queries import bare
from idxctl.core.secret import Secret
from idxctl.core.suggest import did_you_mean, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

DEFAULT_FILE = "idxctl.toml"
SECRET_COMMAND_SECONDS = 30
_SERVER_VARIABLES = (
    "IDXCTL_DATABASE_URL",
    "IDXCTL_DATABASE_URL_FILE",
    "IDXCTL_OPENSEARCH_URL",
    "PGHOST",
    "PGDATABASE",
    "PGSERVICE",
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it stands, what it is and what to do."""

    source: str  # "idxctl.toml line 14", "IDXCTL_WORKER_WORKERS", "--workers"
    where: str  # "indexes.products.watch 2", or "" where the source says it all
    what: str
    fix: str = ""

    def __str__(self) -> str:
        sentence = self.what + (f"; {self.fix}" if self.fix else "")
        return ": ".join(part for part in (self.source, self.where, sentence) if part)


class InvalidConfig(ConfigError):  # noqa: N818 - reads as the state it is
    """The configuration cannot be used; ``problems`` holds every reason."""

    def __init__(
        self,
        problems: Sequence[Problem],
        *,
        hint: str | None = None,
        remarks: Sequence[Remark] = (),
        rest: Settings | None = None,
    ) -> None:
        lines = [str(problem) for problem in problems]
        message = lines[0] if len(lines) == 1 else "\n".join([f"{len(lines)} problems in the configuration", *lines])
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)
        self.remarks = tuple(remarks)  # on files that were read
        self.rest = rest  # what is in order, to be looked at further, where all that is wrong is within indexes


# --- where a value came from -----------------------------------------------------------------------------------------

FLAG, ENVIRONMENT, FILE, DEFAULT = 3, 2, 1, 0


@dataclass(frozen=True)
class _Given:
    """A value as somebody wrote it."""

    value: Any
    rank: int
    source: str
    where: str
    base: Path  # relative paths start here


def load(
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
    path: Path | None = None,
    need_indexes: bool = True,
) -> Settings:
    """
    Read the configuration. *flags* are named like ``worker.workers``; those that are None were not given.

    The file is *path*, else ``IDXCTL_CONFIG``, else ``idxctl.toml`` in the working directory. The last may be missing
    if the environment names a server, or if *need_indexes* is false: there are no indexes then. Files that others can
    write or exchange are refused (see `trust`). Raises `InvalidConfig` with every problem found.
    """
    reader = _Reader(environ=environ, flags=flags or {})
    reader.open(path, need_file=need_indexes)
    settings = reader.settings()
    if reader.problems:
        rest = settings if all(one.where.startswith("indexes.") for one in reader.problems) else None
        raise InvalidConfig(sorted(reader.problems, key=_place), remarks=list(reader.remarks.values()), rest=rest)
    return settings


def _place(problem: Problem) -> tuple[bool, int]:
    """Order by line; what does not stand in the file comes first."""
    line = re.search(r" line (\d+)$", problem.source)
    return (line is not None, int(line.group(1)) if line else 0)


class _Reader:
    """Gathers values and problems; one per `load`."""

    def __init__(self, *, environ: Mapping[str, str], flags: Mapping[str, Any]) -> None:
        self.environ = environ
        self.flags = {name: value for name, value in flags.items() if value is not None}
        self.problems: list[Problem] = []
        self.unread: set[str] = set()  # "opensearch.password": given, reported already, and not to be called missing
        self.sources: dict[str, str] = {}
        self.path: Path | None = None
        self.base = Path()
        self.file: Mapping[str, Any] = {}
        self.lines: Mapping[tuple[str | int, ...], int] = {}
        self.remarks: dict[tuple[str, Path], Remark] = {}
        self.standing: trust.Standing | None = None  # of the file
        self.trust, wrong = trust.of(environ)
        for folder in wrong:
            self.wrong(trust.VARIABLE, "", f"{folder!r} is not an absolute path", f"write {Path(folder).absolute()}")

    # --- the file -------------------------------------------------------------------------------------------------

    def open(self, path: Path | None, *, need_file: bool) -> None:
        """Find and parse the file; without a readable one nothing else is worth saying."""
        named_by = "--config" if path else "IDXCTL_CONFIG" if self.environ.get("IDXCTL_CONFIG") else None
        path = path or Path(self.environ.get("IDXCTL_CONFIG") or DEFAULT_FILE)
        try:
            data, standing = self.trust.read(path)
        except FileNotFoundError:
            if named_by:
                raise InvalidConfig([Problem(named_by, "", f"there is no file {path}")]) from None
            if need_file and not any(self.environ.get(name) for name in _SERVER_VARIABLES):
                raise InvalidConfig(
                    [Problem("", "", f"there is no {DEFAULT_FILE} in this directory")],
                    hint="name it with --config PATH or IDXCTL_CONFIG, or name the servers with IDXCTL_DATABASE_URL and IDXCTL_OPENSEARCH_URL",
                ) from None
            return
        except OSError as error:
            raise InvalidConfig([Problem(named_by or "", "", f"cannot read {path}: {_why(error)}")]) from None
        if standing.refused:
            raise InvalidConfig([*self.problems, Problem("", "", standing.refused, standing.fix)])
        self._note(standing)
        self.standing = standing
        self.path = path
        self.base = path.parent
        try:
            text = data.decode("utf-8-sig")
            self.file = tomllib.loads(text.replace("\r\n", "\n"))
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise InvalidConfig([Problem(f"{path} line {line}", "", "is not UTF-8 text")]) from None
        except tomllib.TOMLDecodeError as error:
            # The parser's sentence names keys and characters, never a value; the line itself is not quoted.
            raise InvalidConfig([Problem(str(path), "", f"not valid TOML: {_decapitalised(str(error))}")]) from None
        except (ValueError, RecursionError):  # a number of thousands of digits, brackets of thousands of levels
            what = "holds a number that is too long, or is nested too deeply"
            raise InvalidConfig([Problem(str(path), "", what)]) from None
        if _holds_nul(self.file):
            raise InvalidConfig([Problem(str(path), "", "holds a NUL (\\u0000), which no name or setting can")])
        self.lines = line_numbers(text)

    def _note(self, standing: trust.Standing, *, secret: bool = False) -> None:
        """Remark on a file that was read: whose it is and, if it holds a secret, whether others can read it."""
        remarks = [standing.belongs_to_somebody_else()] if standing.foreign else []
        remarks += [standing.can_be_read()] if secret and standing.exposed else []
        self.remarks.update({(one.kind, one.path): one for one in remarks})

    def _read(self, path: Path, *, secret: bool = False, named_by_file: bool = True) -> bytes:
        """Read a file that decides; raises `Wrong` for one that others could have written."""
        data, standing = self.trust.read(path)
        if standing.refused:
            raise Wrong(standing.refused, standing.fix)
        if named_by_file:
            self._require_open(path, standing)
        self._note(standing, secret=secret)
        return data

    def _require_open(self, path: Path, standing: trust.Standing) -> None:
        """
        Raise `Wrong` for a file that those who wrote the configuration could not read themselves.

        What they name is sent to a server of their choice: a secret to authenticate with, SQL and mapping as such.
        """
        ours = self.standing
        if ours and ours.foreign and not standing.is_open_to(ours):
            raise Wrong(
                f"{path} is not read, since {ours.path}, which names it, belongs to somebody else ({ours.foreign})",
                f"name it in the environment, or trust the folder: {trust.VARIABLE}={ours.path.parent.absolute()}",
            )

    def at(self, *keys: str | int) -> str:
        """Name the place in the file that *keys* lead to, with the line where it can be found."""
        for length in range(len(keys), 0, -1):
            line = self.lines.get(keys[:length])
            if line is not None:
                return f"{self.path} line {line}"
        return str(self.path)

    def wrong(self, source: str, where: str, what: str, fix: str = "") -> None:
        self.problems.append(Problem(source, where, what, fix))

    # --- plain sections ---------------------------------------------------------------------------------------------

    def section(self, name: str) -> dict[str, _Given]:
        """Return the section's values, read and checked, the strongest source of each."""
        known = SECTIONS[name]
        found: dict[str, _Given] = {}
        for candidate in (*self._from_flags(name), *self._from_environment(name), *self._from_file(name)):
            key, given = candidate
            if key in found:
                continue
            try:
                value = known[key].value.read(given.value)
            except Wrong as wrong:
                self.wrong(given.source, given.where, *self._sentence(key, given, wrong))
                self.unread.add(f"{name}.{key}")
                continue
            found[key] = replace(given, value=value)
        return found

    @staticmethod
    def _sentence(key: str, given: _Given, wrong: Wrong) -> tuple[str, str]:
        """Say what is wrong; in the file the key must be named, a variable or flag already is."""
        return (f"{key}: {wrong.what}" if given.rank == FILE else wrong.what), wrong.fix

    def _from_flags(self, section: str) -> list[tuple[str, _Given]]:
        found = []
        for name, value in self.flags.items():
            owner, _, key = name.partition(".")
            if owner == section:
                found.append((key, _Given(value, FLAG, "--" + key.replace("_", "-"), "", Path())))
        return found

    def _from_environment(self, section: str) -> list[tuple[str, _Given]]:
        prefix = f"IDXCTL_{section.upper()}_"
        found = []
        for name in sorted(self.environ):
            if not name.startswith(prefix) or not self.environ[name].strip():
                continue  # an empty variable is one that is not set, as in libpq
            key = name[len(prefix) :].lower()
            if key in SECTIONS[section]:
                found.append((key, _Given(self._environment_value(section, key, name), ENVIRONMENT, name, "", Path())))
                continue
            near = nearest(key, SECTIONS[section], cutoff=0.75)
            if near:  # other variables of this prefix may be somebody else's
                self.wrong(name, "", "unknown variable", f"did you mean {prefix}{near.upper()}?")
        return found

    def _environment_value(self, section: str, key: str, name: str) -> Any:
        text = self.environ[name]
        if SECTIONS[section][key].value is BOOLEAN:
            return {"true": True, "false": False}.get(text.strip().lower(), text)
        return text

    def _from_file(self, section: str) -> list[tuple[str, _Given]]:
        table = self.file.get(section, {})
        if not isinstance(table, dict):
            self.wrong(self.at(section), "", f"{section} must be a table, found {kind_of(table)}", f"write [{section}]")
            return []
        found = []
        for key, value in table.items():
            source = self.at(section, key)
            if key not in SECTIONS[section]:
                self.wrong(source, f"[{section}]", f"unknown key {key!r}", did_you_mean(key, SECTIONS[section]))
                continue
            found.append((key, _Given(value, FILE, source, f"[{section}]", self.base)))
        return found

    # --- secrets ----------------------------------------------------------------------------------------------------

    def secret(self, section: str, key: str, values: Mapping[str, _Given]) -> _Given | None:
        """Return the secret from its value, its file or its command, whichever the strongest source names."""
        ways = [values[name] for name in (key, f"{key}_file", f"{key}_command") if name in values]
        if not ways:
            return None
        best = max(given.rank for given in ways)
        chosen = [given for given in ways if given.rank == best]
        if len(chosen) > 1:
            sources = " and ".join(dict.fromkeys(given.source for given in chosen))
            self.wrong(
                sources,
                "" if best != FILE else f"[{section}]",
                f"{key} is given in two ways",
                f"keep one of {key}, {key}_file, {key}_command",
            )
            return None
        given = chosen[0]
        try:
            if given is values.get(f"{key}_file"):
                given = replace(given, value=self._secret_file(given))
            elif given is values.get(f"{key}_command"):
                given = replace(given, value=self._secret_command(given))
        except Wrong as wrong:
            self.wrong(given.source, given.where, f"{key}: {wrong.what}", wrong.fix)
            return None
        if chosen[0] is values.get(key) and given.rank == FILE:
            self._holds_secret(key, given.value.reveal())
        self.sources[f"{section}.{key}"] = given.source
        return given

    def _holds_secret(self, key: str, value: str) -> None:
        """Note that the configuration itself has a secret in it; a URL is one if it names a password."""
        if self.standing and (key != "url" or PASSWORD_IN_URL.search(value)):
            self._note(self.standing, secret=True)

    def _secret_file(self, given: _Given) -> Secret:
        path = self._path(given)
        try:
            data, standing = self.trust.read(path)
            if standing.refused:
                raise Wrong(standing.refused, standing.fix)
            if given.rank == FILE:
                self._require_open(path, standing)
            self._note(standing, secret=True)
            text = data.decode("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Wrong(f"cannot read the secret in {path}: {_why(error)}") from None
        if not text:
            raise Wrong(f"the secret in {path} is empty")
        return Secret(text)

    def _secret_command(self, given: _Given) -> Secret:
        name = given.value[0]
        if self.standing and self.standing.foreign and given.rank == FILE:
            raise Wrong(
                f"the command {name!r} is not run, since {self.standing.path} belongs to somebody else ({self.standing.foreign})",
                f"trust the folder in so many words: {trust.VARIABLE}={self.standing.path.parent.absolute()}",
            )
        try:
            if os.sep in name:
                standing = self.trust.look(given.base / name)
                if standing.refused or standing.foreign:
                    why = standing.refused or f"it belongs to somebody else ({standing.foreign})"
                    raise Wrong(f"the command {name!r} is not run: {why}", standing.fix)
            done = subprocess.run(
                given.value,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=given.base,
                env=dict(self.environ),
                timeout=SECRET_COMMAND_SECONDS,
                check=False,
            )
            text = done.stdout.decode("utf-8").rstrip("\r\n")
        except subprocess.TimeoutExpired:
            raise Wrong(f"the command {name!r} did not end in {SECRET_COMMAND_SECONDS} s") from None
        except (OSError, UnicodeDecodeError) as error:
            raise Wrong(f"cannot run the command {name!r}: {_why(error)}") from None
        if done.returncode:
            raise Wrong(f"the command {name!r} ended with status {done.returncode}", "run it by hand to see why")
        if not text:
            raise Wrong(f"the command {name!r} printed nothing")
        return Secret(text)

    # --- the whole --------------------------------------------------------------------------------------------------

    def settings(self) -> Settings:
        """Read every section; what is wrong is in `problems` and a default stands in its place."""
        self._unknown_sections()
        self._unknown_variables()
        database = self._database()
        opensearch = self._opensearch()
        worker = self._worker()
        http = self._http()
        dlq = self._plain("dlq", self.section("dlq"))
        values = self._plain("log", self.section("log")).get("values", True)
        database = replace(database, keep_values=values, keep_data=dlq.get("store", "full") == "full")
        indexes = self._indexes()
        settings = Settings(
            database=database,
            opensearch=opensearch,
            worker=worker,
            http=http,
            indexes=indexes,
            adopt_index=dlq.get("adopt_index"),
            path=self.path,
            sources=self.sources,
            remarks=tuple(self.remarks.values()),
        )
        self._sums(settings)
        return settings

    def _sums(self, settings: Settings) -> None:
        """Report the sums that rules of the protocol rest on, where they do not hold (T3, C3, G3)."""
        times = settings.worker.age_limit_seconds, settings.opensearch.request_timeout_seconds
        if broken := sums.lease_too_short(settings):
            named = ("worker.lease", "opensearch.request_timeout")
            sources = [settings.sources[name] for name in named if name in settings.sources]
            self.wrong(" and ".join(dict.fromkeys(sources)), "", broken.what, broken.fix)
        for index in settings.indexes.values():
            given = index.mapping.get("settings")
            held = sums.gc_deletes(given if isinstance(given, dict) else {})
            if broken := sums.forgotten_too_soon("the index to be created", held, times):
                source = self.at("indexes", index.name, "mapping")
                self.wrong(source, f"indexes.{index.name}", broken.what, broken.fix)

    def _unknown_sections(self) -> None:
        known = (*SECTIONS, "indexes")
        for name in self.file:
            if name not in known:
                self.wrong(self.at(name), "", f"unknown section {name!r}", did_you_mean(name, known))

    def _unknown_variables(self) -> None:
        """Report variables whose section is mistyped; a mistyped key is found where the section is read."""
        sections = tuple(f"IDXCTL_{section.upper()}_" for section in SECTIONS)
        known = [
            f"{prefix}{key.upper()}" for prefix, keys in zip(sections, SECTIONS.values(), strict=True) for key in keys
        ]
        for name in sorted(self.environ):
            if name.startswith("IDXCTL_") and not name.startswith(sections) and self.environ[name].strip():
                near = nearest(name, known, cutoff=0.9)
                if near:
                    self.wrong(name, "", "unknown variable", f"did you mean {near}?")

    def _plain(self, section: str, values: Mapping[str, _Given]) -> dict[str, Any]:
        """Return values by key, and note where each came from."""
        self.sources.update({f"{section}.{key}": given.source for key, given in values.items()})
        return {key: given.value for key, given in values.items()}

    def _database(self) -> DatabaseSettings:
        values = self.section("database")
        url = self.secret("database", "url", values)
        if url:
            try:
                connection_string(url.value.reveal())
            except Wrong as wrong:
                self.wrong(url.source, url.where, *self._sentence("url", url, wrong))
        plain = self._plain("database", {key: values[key] for key in ("schema", "read_timeout") if key in values})
        return DatabaseSettings(
            url=url.value if url else None,
            schema=plain.get("schema"),
            read_timeout_seconds=plain.get("read_timeout", DatabaseSettings.read_timeout_seconds),
        )

    def _opensearch(self) -> OpenSearchSettings:
        values = self.section("opensearch")
        secrets = {key: self.secret("opensearch", key, values) for key in ("password", "bearer_token", "api_key")}
        username = values.get("username")
        urls: tuple[str, ...] = OpenSearchSettings.urls
        if "url" in values:
            urls, username, secrets["password"] = self._user_info(values["url"], username, secrets["password"])
        self._one_auth(values, username, secrets)
        simple = ("aws_region", "aws_service", "verify", "compress", "request_timeout")
        plain = self._plain("opensearch", {key: given for key, given in values.items() if key in (*simple, "url")})
        plain.pop("url", None)
        if "request_timeout" in plain:
            plain["request_timeout_seconds"] = plain.pop("request_timeout")
        files = {key: self._file("opensearch", key, values) for key in ("ca_file", "client_cert", "client_key")}
        if "client_key" in values and "client_cert" not in values:
            given = values["client_key"]
            self.wrong(given.source, given.where, "client_key without client_cert", "name the certificate too")
        if username:
            self.sources["opensearch.username"] = username.source
        words = {key: given.value if given else None for key, given in secrets.items()}
        everything: dict[str, Any] = {**plain, **files, **words}
        return OpenSearchSettings(urls=urls, username=username.value if username else None, **everything)

    def _user_info(
        self, url: _Given, username: _Given | None, password: _Given | None
    ) -> tuple[tuple[str, ...], _Given | None, _Given | None]:
        """Move user and password out of the URLs, so that no URL ever shown holds them."""
        plain = []
        people: set[tuple[str, str | None]] = set()
        for entry in url.value:
            plain.append(_without_user(entry))
            if entry.username:
                people.add((unquote(entry.username), unquote(entry.password) if entry.password else None))
        if len(people) > 1:
            self.wrong(
                url.source, url.where, "url: the URLs name different users", "use one user, as username and password"
            )
        elif people:
            ((user, word),) = people
            for key, other in (("username", username), ("password", password)):
                if other and other.rank == url.rank:
                    self.unread.add(f"opensearch.{key}")
                    self.wrong(other.source, other.where, f"{key} is given in the URL too", "keep one of them")
            if username is None or username.rank < url.rank:
                username = replace(url, value=user)
                if word and url.rank == FILE:
                    self._holds_secret("password", word)
                if word and (password is None or password.rank < url.rank):
                    password = replace(url, value=Secret(word))
                    self.sources["opensearch.password"] = url.source
        return tuple(plain), username, password

    def _one_auth(
        self, values: Mapping[str, _Given], username: _Given | None, secrets: Mapping[str, _Given | None]
    ) -> None:
        given = {
            "username and password": username or secrets["password"],
            "bearer_token": secrets["bearer_token"],
            "api_key": secrets["api_key"],
            "aws_region": values.get("aws_region"),
        }
        ways = {name: found for name, found in given.items() if found}
        if len(ways) > 1:
            sources = ", ".join(dict.fromkeys(found.source for found in ways.values()))
            self.wrong(
                sources, "", f"{len(ways)} ways to authenticate to OpenSearch: {', '.join(ways)}", "keep one of them"
            )
        password = secrets["password"]
        if password and not username and not self.unread & {"opensearch.username", "opensearch.url"}:
            self.wrong(
                password.source,
                password.where,
                "a password without a username",
                "set username too (IDXCTL_OPENSEARCH_USERNAME)",
            )
        names = ("password", "password_file", "password_command")
        asked = any(name in values or f"opensearch.{name}" in self.unread for name in names)
        if username and not password and not asked and "opensearch.username" not in self.unread:
            self.wrong(
                username.source,
                username.where,
                "a username without a password",
                "set IDXCTL_OPENSEARCH_PASSWORD, or password_file",
            )
        if "aws_service" in values and "aws_region" not in values:
            service = values["aws_service"]
            self.wrong(service.source, service.where, "aws_service without aws_region", "set aws_region too")

    def _file(self, section: str, key: str, values: Mapping[str, _Given]) -> Path | None:
        """Return the path that a key names, if it can be read."""
        given = values.get(key)
        if given is None:
            return None
        self.sources[f"{section}.{key}"] = given.source
        path = self._path(given)
        try:
            _, standing = self.trust.read(path)
        except OSError as error:
            self.wrong(given.source, given.where, f"{key}: cannot read {path}: {_why(error)}")
            return None
        if standing.refused:
            self.wrong(given.source, given.where, f"{key}: {standing.refused}", standing.fix)
            return None
        self._note(standing, secret=key == "client_key")
        return path

    def _worker(self) -> WorkerSettings:
        values = self.section("worker")
        preset = values.pop("preset", None)
        if preset:
            source = f"preset {preset.value}, {preset.source}"
            for key, figure in zip(("workers", "queue_size"), PRESETS[preset.value], strict=True):
                # A preset on the command line beats figures in the file; figures beside it beat the preset.
                if key not in values or values[key].rank < preset.rank:
                    values[key] = replace(preset, value=figure, source=source)
        plain = self._plain("worker", values)
        renamed = {key: plain.pop(key) for key in ("drain_timeout", "lease", "age_limit") if key in plain}
        return WorkerSettings(**plain, **{f"{key}_seconds": value for key, value in renamed.items()})

    def _http(self) -> HttpSettings:
        values = self.section("http")
        found: list[Bearer] = []
        token = self.secret("http", "token", values)
        if token is not None and not bearers.sendable(token.value.reveal()):
            self.wrong(token.source, token.where, "token: holds a blank or a character that no header carries")
        elif token is not None and bearers.broken_hash(token.value.reveal()):
            self.wrong(token.source, token.where, f"token: {bearers.BROKEN_HASH}", bearers.HASH_HINT)
        elif token is not None:
            found.append(Bearer("operator", "operator", token.value))
            self.sources["http.bearers"] = token.source
        if "tokens_file" in values:
            found += self._bearers(values["tokens_file"])
            self.sources["http.bearers"] = values["tokens_file"].source
        simple = ("listen", "read_only", "anonymous_read", "rate_limit", "max_body")
        plain = self._plain("http", {key: given for key, given in values.items() if key in simple})
        path = self._path(values["tokens_file"]) if "tokens_file" in values else None
        remarks = [self.remarks.pop(place) for place in list(self.remarks) if place[1] == path]
        return HttpSettings(**plain, bearers=tuple(found), remarks=tuple(remarks))

    @staticmethod
    def _path(given: _Given) -> Path:
        """Return the path that a key names; relative ones start at the folder of the file."""
        try:
            return given.base / Path(given.value).expanduser()
        except RuntimeError:  # "~name" of nobody: it is not there, and will be said so
            return given.base / str(given.value)

    def _bearers(self, given: _Given) -> list[Bearer]:
        """Read the file of bearer tokens."""
        path = self._path(given)
        try:
            found, wrong = bearers.parse(
                self._read(path, secret=True, named_by_file=given.rank == FILE).decode("utf-8-sig")
            )
        except Wrong as error:
            self.wrong(given.source, given.where, f"tokens_file: {error.what}", error.fix)
            return []
        except (OSError, UnicodeDecodeError) as error:
            self.wrong(given.source, given.where, f"tokens_file: cannot read {path}: {_why(error)}")
            return []
        for one in wrong:
            line = f" line {one.line}" if one.line else ""
            self.wrong(given.source, given.where, f"tokens_file: {path}{line} {one.what}", one.fix)
        return found

    # --- indexes ----------------------------------------------------------------------------------------------------

    def _indexes(self) -> dict[str, IndexSettings]:
        tables = self.file.get("indexes", {})
        if not isinstance(tables, dict):
            self.wrong(
                self.at("indexes"), "", f"indexes must be tables, found {kind_of(tables)}", "write [indexes.NAME]"
            )
            return {}
        found = {}
        for name, table in tables.items():
            source = self.at("indexes", name)
            reason = index_name_problem(name)
            if reason:
                self.wrong(source, f"indexes.{name}", f"OpenSearch cannot name an index so: {reason}")
            base = re.sub(r"-\d{6,}$", "", name)
            if base != name and base in tables:
                self.wrong(source, f"indexes.{name}", f"is the name of a generation of {base}", "choose another name")
            if not isinstance(table, dict):
                self.wrong(
                    source, f"indexes.{name}", f"must be a table, found {kind_of(table)}", f"write [indexes.{name}]"
                )
                continue
            found[name] = self._index(name, table)
        return found

    def _index(self, name: str, table: Mapping[str, Any]) -> IndexSettings:
        where = f"indexes.{name}"
        for key in table:
            if key not in INDEX:
                self.wrong(self.at("indexes", name, key), where, f"unknown key {key!r}", did_you_mean(key, INDEX))
        document, document_path = self._document(name, table)
        plain = [key for key in INDEX if key in table and key not in {"document", "mapping", "watch"}]
        values = {key: self._value(("indexes", name), where, table, key, INDEX[key].value.read) for key in plain}
        index_key: tuple[str, ...] = values.get("key") or ()
        return IndexSettings(
            name=name,
            document=document,
            document_path=document_path,
            mapping=self._mapping(name, table),
            key=index_key,
            routing=values.get("routing"),
            pipeline=values.get("pipeline"),
            verify_ignore=values.get("verify_ignore") or (),
            search_path=values.get("search_path") or (),
            pinned=values.get("settings") or {},
            watches=self._watches(name, table, index_key),
        )

    def _value(
        self, place: tuple[str | int, ...], where: str, table: Mapping[str, Any], key: str, read: Callable[[Any], Any]
    ) -> Any:
        """Read one value of a table, or note why not and return None."""
        try:
            return read(table[key])
        except Wrong as wrong:
            self.wrong(self.at(*place, key), where, f"{key}: {wrong.what}", wrong.fix)
            return None

    def _document(self, name: str, table: Mapping[str, Any]) -> tuple[str, Path | None]:
        """Return the SQL of a document and the file it stands in, if it stands in one."""
        where = f"indexes.{name}"
        if "document" not in table:
            if _mistyped(table, INDEX, "document"):
                return "", None
            fix = 'name a file with a query that returns document_id and document: document = "products.sql"'
            self.wrong(self.at("indexes", name), where, "no document", fix)
            return "", None
        given = self._value(("indexes", name), where, table, "document", INDEX["document"].value.read)
        if given is None:
            return "", None
        source = self.at("indexes", name, "document")
        is_path = given.strip().lower().endswith(".sql") and "\n" not in given.strip()
        if not is_path and re.search(r"\s", given.strip()):
            return bare(given), None
        path = self.base / Path(given.strip()).expanduser()
        text = self._read_text(path, source, where, "document")
        if text is not None and not bare(re.sub(r"--[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)):
            self.wrong(source, where, f"document: {path} holds no query")
        return bare(text or ""), path

    def _mapping(self, name: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return settings and mappings, from a JSON file or an inline table."""
        if "mapping" not in table:
            return {}
        where = f"indexes.{name}"
        source = self.at("indexes", name, "mapping")
        mapping = table["mapping"]
        if isinstance(mapping, str):
            path = self.base / Path(mapping).expanduser()
            text = self._read_text(path, source, where, "mapping")
            if text is None:
                return {}
            try:
                mapping = json.loads(text, object_pairs_hook=_no_twice, parse_constant=_no_constant)
            except json.JSONDecodeError as error:
                self.wrong(
                    source,
                    where,
                    f"mapping: {path} line {error.lineno} column {error.colno}: {_decapitalised(error.msg)}",
                )
                return {}
            except Wrong as wrong:
                self.wrong(source, where, f"mapping: {path}: {wrong.what}", wrong.fix)
                return {}
            except RecursionError:
                self.wrong(source, where, f"mapping: {path} is nested too deeply")
                return {}
        if not isinstance(mapping, dict):
            self.wrong(
                source, where, f"mapping: must be a JSON object with settings and mappings, found {kind_of(mapping)}"
            )
            return {}
        return self._checked_mapping(mapping, source, where)

    def _checked_mapping(self, mapping: dict[str, Any], source: str, where: str) -> Mapping[str, Any]:
        for key, value in mapping.items():
            if key in {"settings", "mappings"}:
                if not isinstance(value, dict):
                    self.wrong(source, where, f"mapping: {key} must be an object, found {kind_of(value)}")
            elif key == "aliases":
                self.wrong(source, where, "mapping: aliases are idxctl's to set", "take aliases out")
            elif key in {"properties", "dynamic"}:
                self.wrong(source, where, f"mapping: {key!r} at the top", f'put it inside "mappings": {{"{key}": ...}}')
            else:
                self.wrong(source, where, f"mapping: unknown key {key!r}", did_you_mean(key, ("settings", "mappings")))
        try:
            json.dumps(mapping, allow_nan=False)
        except (TypeError, ValueError):
            self.wrong(source, where, "mapping: holds a date, a time or a number that JSON does not have")
        return mapping

    def _read_text(self, path: Path, source: str, where: str, key: str) -> str | None:
        try:
            return self._read(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except Wrong as wrong:
            self.wrong(source, where, f"{key}: {wrong.what}", wrong.fix)
            return None
        except (OSError, UnicodeDecodeError) as error:
            self.wrong(
                source,
                where,
                f"{key}: cannot read {path}: {_why(error)}",
                "paths start at the directory of the configuration file",
            )
            return None

    def _watches(self, name: str, table: Mapping[str, Any], index_key: tuple[str, ...]) -> tuple[WatchSettings, ...]:
        watches = table.get("watch", [])
        if not isinstance(watches, list) or not all(isinstance(watch, dict) for watch in watches):
            self.wrong(
                self.at("indexes", name, "watch"),
                f"indexes.{name}",
                "watch must be a list of tables",
                f"write [[indexes.{name}.watch]] with two brackets",
            )
            return ()
        return tuple(self._watch(name, position, watch, index_key) for position, watch in enumerate(watches))

    def _watch(self, name: str, position: int, table: Mapping[str, Any], index_key: tuple[str, ...]) -> WatchSettings:
        where = f"indexes.{name}.watch {position + 1}"
        place = ("indexes", name, "watch", position)
        for key in table:
            if key not in WATCH:
                self.wrong(self.at(*place, key), where, f"unknown key {key!r}", did_you_mean(key, WATCH))
        values = {
            key: self._value(place, where, table, key, known.value.read) for key, known in WATCH.items() if key in table
        }
        for what, fix, key in _watch_rules(table, values, index_key):
            self.wrong(self.at(*place, key) if key else self.at(*place), where, what, fix)
        given = {key: value for key, value in values.items() if value is not None}
        return WatchSettings(**{"table": "", **given}, position=position, line=self.lines.get(place))


def _watch_rules(
    table: Mapping[str, Any], values: Mapping[str, Any], index_key: tuple[str, ...]
) -> list[tuple[str, str, str]]:
    """Return what is wrong with a watch as a whole: the sentence, the fix and the key it is about."""
    found: list[tuple[str, str, str]] = []
    ways = [key for key in ("key", "key_sql", "keys") if key in table]
    if "table" not in table and not _mistyped(table, WATCH, "table"):
        found.append(("no table", 'name the table whose changes count: table = "products"', ""))
    if not ways and not any(_mistyped(table, WATCH, way) for way in ("key", "key_sql", "keys")):
        found.append(("none of key, key_sql and keys", 'say how a row leads to its documents: key = "product_id"', ""))
    elif len(ways) > 1:
        found.append((f"{' and '.join(ways)} together", "keep one of them", ways[1]))
    if values.get("deferred") and "keys" not in table:
        found.append(
            (
                "deferred without keys",
                'only a lookup (keys) can be deferred; for a low priority write priority = "low"',
                "deferred",
            )
        )
    if "at" in table and "keys" in table:
        found.append(("at together with keys", "a column of times needs key or key_sql", "at"))
    key = values.get("key") or ()
    if key and len(key) != max(len(index_key), 1):
        found.append(_key_length(key, index_key))
    twice = sorted(set(key) & set(values.get("ignore") or ()))
    if twice:
        found.append(
            (f"ignore names the key {', '.join(twice)}", "a changed key is always a change: take it out", "ignore")
        )
    return found


def _mistyped(table: Mapping[str, Any], known: Iterable[str], wanted: str) -> bool:
    """Whether one of the unknown keys was meant to be *wanted*; it is reported already."""
    names = list(known)
    return any(key not in names and nearest(key, names) == wanted for key in table)


def _key_length(key: tuple[str, ...], index_key: tuple[str, ...]) -> tuple[str, str, str]:
    if not index_key:
        fix = f"set key = [{', '.join(json.dumps(name) for name in key)}] on the index too, or use key_sql"
        return (f"key names {len(key)} columns, but the index has no key of its own", fix, "key")
    wanted = f"{len(index_key)} ({', '.join(index_key)})"
    return (f"key names {len(key)}, the key of the index has {wanted}", "name as many, in the same order", "key")


def index_name_problem(name: str) -> str | None:
    """Return why OpenSearch would refuse *name*, or None. 240 bytes leave room for a generation's number."""
    forbidden = sorted({character for character in name if character in ' \\/*?"<>|,#:' or ord(character) < 32})
    if not name or name in {".", ".."}:
        return "it needs a name"
    if name != name.lower():
        return "it must be lower case"
    if forbidden:
        return f"it must not contain {' '.join(repr(character) for character in forbidden)}"
    if name[0] in "-_+.":
        return f"it must not begin with {name[0]!r}"
    if len(name.encode()) > 240:
        return "it must not be longer than 240 bytes"
    return None


def _without_user(url: SplitResult) -> str:
    host = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://{host}{url.path.rstrip('/')}"


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


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return _decapitalised(error.strerror or type(error).__name__)
    return "it is not UTF-8 text"


def _decapitalised(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Wrong(f"the key {twice!r} stands twice in one object", "keep one of them")
    return found


def _no_constant(name: str) -> Any:
    raise Wrong(f"{name} is not JSON")


# --- line numbers ----------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(
    r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=\s*(.*)$"
)
_KEY_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+)")


def line_numbers(text: str) -> dict[tuple[str | int, ...], int]:
    """
    Find the line of every key and table header of a TOML text that is known to parse.

    A scan by line, for messages only: a key inside an inline table is found by the line its table begins on.
    """
    lines: dict[tuple[str | int, ...], int] = {}
    implied: dict[tuple[str | int, ...], int] = {}  # tables that only the header of a deeper one brings about
    counts: dict[tuple[str | int, ...], int] = {}
    here: tuple[str | int, ...] = ()
    quote: str | None = None  # inside a string of several lines
    for number, line in enumerate(text.splitlines(), 1):
        if quote:
            if quote in line:
                quote = None
            continue
        header, assignment = _HEADER.match(line), _ASSIGNMENT.match(line)
        if header and not assignment:
            here = _table(header.group(1) == "[[", _key_parts(header.group(2)), counts)
            lines.setdefault(here, number)
            for length in range(1, len(here)):
                implied.setdefault(here[:length], number)
        elif assignment:
            path = (*here, *_key_parts(assignment.group(1)))
            for length in range(len(here) + 1, len(path) + 1):
                lines.setdefault(path[:length], number)
            quote = _opened(assignment.group(2))
    return {**implied, **lines}


def _key_parts(text: str) -> tuple[str, ...]:
    return tuple(next(part for part in match.groups() if part is not None) for match in _KEY_PART.finditer(text))


def _table(is_array: bool, parts: tuple[str, ...], counts: dict[tuple[str | int, ...], int]) -> tuple[str | int, ...]:
    """Return the path of a header, with the number of the element where it leads through arrays of tables."""
    path: tuple[str | int, ...] = ()
    for position, part in enumerate(parts):
        path = (*path, part)
        last = position == len(parts) - 1
        if is_array and last:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _opened(value: str) -> str | None:
    """Return the quotes of a string of several lines that begins in *value* and does not end in it."""
    for quotes in ('"""', "'''"):
        if value.lstrip().startswith(quotes) and value.count(quotes) == 1:
            return quotes
    return None


# --- showing it ------------------------------------------------------------------------------------------------------


def listing(settings: Settings) -> list[tuple[str, Any, str]]:
    """Return every setting as (name, value, source), for people; secrets are stars."""
    rows: list[tuple[str, Any, str]] = []

    def add(name: str, value: Any, source: str | None = None) -> None:
        rows.append(
            (name, "***" if isinstance(value, Secret) else value, source or settings.sources.get(name, "default"))
        )

    add("database.url", settings.database.url)
    add("database.schema", settings.database.schema)
    add("database.read_timeout", format_duration(settings.database.read_timeout_seconds))
    for section, values in (("opensearch", settings.opensearch), ("worker", settings.worker)):
        for item in fields(values):
            name = "url" if item.name == "urls" else item.name.removesuffix("_seconds")
            value = getattr(values, item.name)
            if item.name.endswith("_seconds"):
                value = timedelta(seconds=value)
            add(f"{section}.{name}", str(value) if isinstance(value, Path) else value)
    for name in ("listen", "read_only", "anonymous_read", "rate_limit", "max_body"):
        add(f"http.{name}", getattr(settings.http, name))
    add("http.bearers", [f"{one.name} ({one.role})" for one in settings.http.bearers])
    add("dlq.adopt_index", settings.adopt_index)
    add("dlq.store", "full" if settings.database.keep_data else "none")
    add("log.values", settings.database.keep_values)
    for index in settings.indexes.values():
        place = str(settings.path or "")
        add(f"indexes.{index.name}.document", str(index.document_path) if index.document_path else "inline SQL", place)
        add(f"indexes.{index.name}.watches", [watch.table for watch in index.watches], place)
    return rows
