"""``[indexes.NAME]``: how a document is made, and the watches that say which tables it is made from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from idxctl.config import mappings, watches
from idxctl.config.files import ConfigFile, Files, resolved
from idxctl.config.index_keys import INDEX, WATCH
from idxctl.config.problems import Findings
from idxctl.config.settings import IndexSettings, ScrubSettings, WatchSettings
from idxctl.config.values import Wrong, kind_of
from idxctl.core.queries import bare
from idxctl.core.suggest import did_you_mean


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


def _scrub(said: Mapping[str, Any]) -> ScrubSettings:
    return ScrubSettings(said.get("every"), said.get("repair"))


class Indexes:
    """Reads every index of the file, with the files that it names."""

    def __init__(self, *, file: ConfigFile, files: Files, findings: Findings) -> None:
        self._file = file
        self._files = files
        self._findings = findings

    def read(self) -> dict[str, IndexSettings]:
        """Return the indexes by name; what is wrong with one is reported, and a default stands in its place."""
        tables = self._file.tables.get("indexes", {})
        if not isinstance(tables, dict):
            self._findings.wrong(
                self._file.at("indexes"), "", f"indexes must be tables, found {kind_of(tables)}", "write [indexes.NAME]"
            )
            return {}
        found = {}
        for name, table in tables.items():
            source = self._file.at("indexes", name)
            reason = index_name_problem(name)
            if reason:
                self._findings.wrong(source, f"indexes.{name}", f"OpenSearch cannot name an index so: {reason}")
            base = re.sub(r"-\d{6,}$", "", name)
            if base != name and base in tables:
                self._findings.wrong(
                    source, f"indexes.{name}", f"is the name of a generation of {base}", "choose another name"
                )
            if not isinstance(table, dict):
                self._findings.wrong(
                    source, f"indexes.{name}", f"must be a table, found {kind_of(table)}", f"write [indexes.{name}]"
                )
                continue
            found[name] = self.index(name, table)
        return found

    def index(self, name: str, table: Mapping[str, Any]) -> IndexSettings:
        """Return one index."""
        where = f"indexes.{name}"
        for key in table:
            if key not in INDEX:
                self._findings.wrong(
                    self._file.at("indexes", name, key), where, f"unknown key {key!r}", did_you_mean(key, INDEX)
                )
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
            scrub=_scrub(values.get("scrub") or {}),
        )

    def _value(
        self, place: tuple[str | int, ...], where: str, table: Mapping[str, Any], key: str, read: Callable[[Any], Any]
    ) -> Any:
        """Read one value of a table, or note why not and return None."""
        try:
            return read(table[key])
        except Wrong as wrong:
            self._findings.wrong(self._file.at(*place, key), where, f"{key}: {wrong.what}", wrong.fix)
            return None

    def _document(self, name: str, table: Mapping[str, Any]) -> tuple[str, Path | None]:
        """Return the SQL of a document and the file it stands in, if it stands in one."""
        where = f"indexes.{name}"
        if "document" not in table:
            if watches.mistyped(table, INDEX, "document"):
                return "", None
            fix = 'name a file with a query that returns document_id and document: document = "products.sql"'
            self._findings.wrong(self._file.at("indexes", name), where, "no document", fix)
            return "", None
        given = self._value(("indexes", name), where, table, "document", INDEX["document"].value.read)
        if given is None:
            return "", None
        source = self._file.at("indexes", name, "document")
        is_path = given.strip().lower().endswith(".sql") and "\n" not in given.strip()
        if not is_path and re.search(r"\s", given.strip()):
            return bare(given), None
        path = resolved(self._file.base, given.strip())
        try:
            query = bare(self._files.text(path))
            if not bare(re.sub(r"--[^\n]*|/\*.*?\*/", "", query, flags=re.DOTALL)):
                raise Wrong(f"{path} holds no query")
        except Wrong as wrong:
            self._findings.wrong(source, where, f"document: {wrong.what}", wrong.fix)
            return "", path
        return query, path

    def _mapping(self, name: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return settings and mappings, from a JSON file or an inline table."""
        if "mapping" not in table:
            return {}
        where, source = f"indexes.{name}", self._file.at("indexes", name, "mapping")
        mapping = table["mapping"]
        try:
            if isinstance(mapping, str):
                path = resolved(self._file.base, mapping)
                mapping = mappings.parsed(self._files.text(path), path)
            if not isinstance(mapping, dict):
                raise Wrong(f"must be a JSON object with settings and mappings, found {kind_of(mapping)}")
        except Wrong as wrong:
            self._findings.wrong(source, where, f"mapping: {wrong.what}", wrong.fix)
            return {}
        for problem in mappings.problems(mapping):
            self._findings.wrong(source, where, f"mapping: {problem.what}", problem.fix)
        return mapping

    def _watches(self, name: str, table: Mapping[str, Any], index_key: tuple[str, ...]) -> tuple[WatchSettings, ...]:
        tables = table.get("watch", [])
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            self._findings.wrong(
                self._file.at("indexes", name, "watch"),
                f"indexes.{name}",
                "watch must be a list of tables",
                f"write [[indexes.{name}.watch]] with two brackets",
            )
            return ()
        return tuple(self._watch(name, position, one, index_key) for position, one in enumerate(tables))

    def _watch(self, name: str, position: int, table: Mapping[str, Any], index_key: tuple[str, ...]) -> WatchSettings:
        where = f"indexes.{name}.watch {position + 1}"
        place = ("indexes", name, "watch", position)
        for key in table:
            if key not in WATCH:
                self._findings.wrong(
                    self._file.at(*place, key), where, f"unknown key {key!r}", did_you_mean(key, WATCH)
                )
        values = {
            key: self._value(place, where, table, key, known.value.read) for key, known in WATCH.items() if key in table
        }
        for what, fix, key in watches.problems(table, values, index_key):
            self._findings.wrong(self._file.at(*place, key) if key else self._file.at(*place), where, what, fix)
        given = {key: value for key, value in values.items() if value is not None}
        return WatchSettings(**{"table": "", **given}, position=position, line=self._file.lines.get(place))
