"""The plain sections: each value from its strongest source, flags over environment over file, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from idxctl.config.files import ConfigFile, resolved
from idxctl.config.keys import SECTIONS
from idxctl.config.problems import Findings
from idxctl.config.values import BOOLEAN, Wrong, kind_of
from idxctl.core.suggest import did_you_mean, nearest

FLAG, ENVIRONMENT, FILE = 3, 2, 1


@dataclass(frozen=True)
class Given:
    """A value as it was written."""

    value: Any
    rank: int  # FLAG, ENVIRONMENT or FILE: the greater is the stronger
    source: str  # "--workers", "IDXCTL_WORKER_WORKERS", "idxctl.toml line 4"
    where: str  # "[worker]", or "" where the source says it all
    base: Path  # relative paths start here

    @property
    def path(self) -> Path:
        """The path that it names."""
        return resolved(self.base, self.value)

    def called(self, key: str, wrong: Wrong) -> tuple[str, str]:
        """Say what is wrong, and the fix; in the file the key must be named, a variable or flag already is."""
        return (f"{key}: {wrong.what}" if self.rank == FILE else wrong.what), wrong.fix


class Sections:
    """Every source that can set a plain section."""

    def __init__(
        self, *, environ: Mapping[str, str], flags: Mapping[str, Any], file: ConfigFile, findings: Findings
    ) -> None:
        self._environ = environ
        self._flags = {name: value for name, value in flags.items() if value is not None}
        self._file = file
        self._findings = findings

    def read(self, name: str) -> dict[str, Given]:
        """Return the section's values, read and checked, the strongest source of each."""
        known = SECTIONS[name]
        found: dict[str, Given] = {}
        for candidate in (*self._from_flags(name), *self._from_environment(name), *self._from_file(name)):
            key, given = candidate
            if key in found:
                continue
            try:
                value = known[key].value.read(given.value)
            except Wrong as wrong:
                self._findings.wrong(given.source, given.where, *given.called(key, wrong))
                self._findings.unread.add(f"{name}.{key}")
                continue
            found[key] = replace(given, value=value)
        return found

    def _from_flags(self, section: str) -> list[tuple[str, Given]]:
        found = []
        for name, value in self._flags.items():
            owner, _, key = name.partition(".")
            if owner == section:
                flag = SECTIONS[section][key].flag.rpartition(" ")[2] or "--" + key.replace("_", "-")
                found.append((key, Given(value, FLAG, flag, "", Path())))
        return found

    def _from_environment(self, section: str) -> list[tuple[str, Given]]:
        prefix = f"IDXCTL_{section.upper()}_"
        found = []
        for name in sorted(self._environ):
            if not name.startswith(prefix) or not self._environ[name].strip():
                continue  # an empty variable is one that is not set, as in libpq
            key = name[len(prefix) :].lower()
            if key in SECTIONS[section]:
                found.append((key, Given(self._environment_value(section, key, name), ENVIRONMENT, name, "", Path())))
                continue
            near = nearest(key, SECTIONS[section], cutoff=0.75)
            if near:  # other variables of this prefix may be someone else's
                self._findings.wrong(name, "", "unknown variable", f"did you mean {prefix}{near.upper()}?")
        return found

    def _environment_value(self, section: str, key: str, name: str) -> Any:
        text = self._environ[name]
        if SECTIONS[section][key].value is BOOLEAN:
            return {"true": True, "false": False}.get(text.strip().lower(), text)
        return text

    def _from_file(self, section: str) -> list[tuple[str, Given]]:
        table = self._file.tables.get(section, {})
        if not isinstance(table, dict):
            self._findings.wrong(
                self._file.at(section), "", f"{section} must be a table, found {kind_of(table)}", f"write [{section}]"
            )
            return []
        found = []
        for key, value in table.items():
            source = self._file.at(section, key)
            if key not in SECTIONS[section]:
                self._findings.wrong(
                    source, f"[{section}]", f"unknown key {key!r}", did_you_mean(key, SECTIONS[section])
                )
                continue
            found.append((key, Given(value, FILE, source, f"[{section}]", self._file.base)))
        return found

    def report_unknown_sections(self) -> None:
        """Report tables of the file that no section has the name of."""
        known = (*SECTIONS, "indexes")
        for name in self._file.tables:
            if name not in known:
                self._findings.wrong(self._file.at(name), "", f"unknown section {name!r}", did_you_mean(name, known))

    def report_unknown_variables(self) -> None:
        """Report variables whose section is mistyped; a mistyped key is found where the section is read."""
        sections = tuple(f"IDXCTL_{section.upper()}_" for section in SECTIONS)
        known = [
            f"{prefix}{key.upper()}" for prefix, keys in zip(sections, SECTIONS.values(), strict=True) for key in keys
        ]
        for name in sorted(self._environ):
            if name.startswith("IDXCTL_") and not name.startswith(sections) and self._environ[name].strip():
                near = nearest(name, known, cutoff=0.9)
                if near:
                    self._findings.wrong(name, "", "unknown variable", f"did you mean {near}?")


def plain(section: str, values: Mapping[str, Given], findings: Findings) -> dict[str, Any]:
    """Return values by key, and note where each came from."""
    findings.sources.update({f"{section}.{key}": given.source for key, given in values.items()})
    return {key: given.value for key, given in values.items()}
