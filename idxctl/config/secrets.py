"""Secrets: given as a value, read from a file, or printed by a command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace

from idxctl.config import trust
from idxctl.config.files import ConfigFile, Files, why
from idxctl.config.given import FILE, Given
from idxctl.config.problems import Findings
from idxctl.config.values import PASSWORD_IN_URL, Wrong
from idxctl.core.secret import Secret

SECRET_COMMAND_SECONDS = 30


class Secrets:
    """Finds secrets, runs the commands that print them with *environ*, and notes files that hold them."""

    def __init__(self, *, environ: Mapping[str, str], config: ConfigFile, files: Files, findings: Findings) -> None:
        self._environ = environ
        self._standing = config.standing
        self._files = files
        self._findings = findings

    def find(self, section: str, key: str, values: Mapping[str, Given]) -> Given | None:
        """Return the secret from its value, its file or its command, whichever the strongest source names."""
        ways = [values[name] for name in (key, f"{key}_file", f"{key}_command") if name in values]
        if not ways:
            return None
        best = max(given.rank for given in ways)
        chosen = [given for given in ways if given.rank == best]
        if len(chosen) > 1:
            sources = " and ".join(dict.fromkeys(given.source for given in chosen))
            self._findings.wrong(
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
            self._findings.wrong(given.source, given.where, f"{key}: {wrong.what}", wrong.fix)
            return None
        if chosen[0] is values.get(key) and given.rank == FILE:
            self.note_secret(key, given.value.reveal())
        self._findings.sources[f"{section}.{key}"] = given.source
        return given

    def note_secret(self, key: str, value: str) -> None:
        """Note that the configuration itself has a secret in it; a URL is one if it names a password."""
        if self._standing and (key != "url" or PASSWORD_IN_URL.search(value)):
            self._findings.note(self._standing, secret=True)

    def _secret_file(self, given: Given) -> Secret:
        path = given.path
        try:
            data = self._files.read(path, secret=True, named_by_file=given.rank == FILE)
            text = data.decode("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Wrong(f"cannot read the secret in {path}: {why(error)}") from None
        if not text:
            raise Wrong(f"the secret in {path} is empty")
        return Secret(text)

    def _secret_command(self, given: Given) -> Secret:
        name = given.value[0]
        if self._standing and self._standing.foreign and given.rank == FILE:
            raise Wrong(
                f"the command {name!r} is not run, since {self._standing.path} belongs to someone else ({self._standing.foreign})",
                f"trust the folder in so many words: {trust.VARIABLE}={self._standing.path.parent.absolute()}",
            )
        try:
            if os.sep in name:
                self._files.require_own_command(name, given.base / name)
            done = subprocess.run(
                given.value,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=given.base,
                env=dict(self._environ),
                timeout=SECRET_COMMAND_SECONDS,
                check=False,
            )
            text = done.stdout.decode("utf-8").rstrip("\r\n")
        except subprocess.TimeoutExpired:
            raise Wrong(f"the command {name!r} did not end in {SECRET_COMMAND_SECONDS} s") from None
        except (OSError, UnicodeDecodeError) as error:
            raise Wrong(f"cannot run the command {name!r}: {why(error)}") from None
        if done.returncode:
            raise Wrong(f"the command {name!r} ended with status {done.returncode}", "run it by hand to see why")
        if not text:
            raise Wrong(f"the command {name!r} printed nothing")
        return Secret(text)
