"""Somebody who follows a page of the documentation: types its commands, runs its statements, keeps its files."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(
    r"`([\w./-]+\.\w+)`[^`\n]*:$"
)  # a paragraph that ends with a colon and names the file of the block below
GOES_ON = ("idxctl worker start", "idxctl serve")  # until it is stopped


def blocks(text: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield kind, text and, where the page names one, file of each block that is to be used."""
    for found in BLOCK.finditer(text):
        before = text[: found.start()].rstrip().rpartition("\n\n")[2].replace("\n", " ")
        named = FILE.search(before)
        yield found[1], found[2], named[1] if named else None


class Reader:
    """Types what a page says in *directory*; *words* are what stands for the page's own tables, indexes and ids."""

    def __init__(self, database: str, opensearch: str, directory: Path, idxctl, words: Mapping[str, str]) -> None:
        self.directory = directory
        self.database = database
        self.words = words
        programs = directory / "bin"
        programs.mkdir(parents=True)
        for name in ("idxctl", "pip"):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
            (programs / name).chmod(0o755)
        given = {"IDXCTL_DATABASE_URL": database, "IDXCTL_OPENSEARCH_URL": opensearch}
        self.environ = {**idxctl.environ, **given, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def read(self, page: str, *, leave_out: tuple[str, ...] = ()) -> int:
        """Run the page's blocks, but lines that begin as *leave_out*; returns how many commands and statements that were."""
        text = (ROOT / page).read_text(encoding="utf-8")
        for word, ours in self.words.items():
            text = text.replace(word, ours)
        ran = 0
        for kind, block, file in blocks(text):
            if file and not (kind == "toml" and (self.directory / file).exists()):
                self.keep(file, block)
            elif kind == "sh":
                ran += sum(self.type(line) for line in commands(block) if not line.startswith(leave_out))
            elif kind == "sql":
                with psycopg.connect(self.database, autocommit=True) as connection:
                    connection.execute(block)
                ran += block.count(";")
            elif kind == "python":
                ran += self.type(shlex.join([sys.executable, "-W", "error", "-c", block]))
            else:
                assert kind == "toml", kind
                self.configure(block)
        return ran

    def keep(self, file: str, text: str) -> None:
        path = self.directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def configure(self, block: str) -> None:
        path = self.directory / "idxctl.toml"
        path.write_text(block + "\n" + path.read_text())

    def type(self, line: str) -> int:
        if line.startswith(GOES_ON) and "--until-empty" not in line and "--hash-token" not in line:
            return self.start(line)
        if line.startswith("idxctl cron install"):
            line += " --print"  # a crontab is the system tests' business
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.directory, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return 1

    def start(self, line: str) -> int:
        words = f"exec {line} --log-format json"
        with subprocess.Popen(
            ["bash", "-c", words], cwd=self.directory, env=self.environ, stderr=subprocess.PIPE, text=True
        ) as process:
            facts = (json.loads(told) for told in process.stderr)
            assert next((fact for fact in facts if fact["fact"] in {"started", "http"}), None), f"{line} did not start"
            process.terminate()
            assert process.wait(60) == 0, line
        return 1


def commands(block: str) -> list[str]:
    """Return the lines of a block of shell, without what is said about them."""
    lines = block.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := line.partition("  # ")[0].strip()) and not command.startswith("#")]
