"""requirements.lock, which an image of the application is installed from: whole, hashed, and current with pyproject.toml."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
EXTRAS = ("http", "aws")  # what an image serves with; the demo's servers and the developers' tools are not in it
RENEW = "run make lock"


@pytest.fixture(scope="module")
def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for name in EXTRAS for one in project["optional-dependencies"][name]]
    return [Requirement(one) for one in [*project["dependencies"], *extras]]


@pytest.fixture(scope="module")
def entries() -> list[str]:
    """One text for each pinned package: its line, its hashes, and who asked for it."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE | re.IGNORECASE)[1:]


def pinned(entry: str) -> Requirement:
    return Requirement(entry.splitlines()[0].rstrip(" \\"))


def version(requirement: Requirement) -> str:
    (one,) = requirement.specifier
    assert one.operator == "=="
    return one.version


def test_every_entry_is_one_version_with_hashes(entries):
    assert len(entries) > 20
    for entry in entries:
        assert version(pinned(entry))
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_what_the_project_asks_for_is_pinned_to_a_version_that_it_takes(wanted, entries):
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        versions = [version(pinned(one)) for one in entries if canonicalize_name(pinned(one).name) == name]
        assert versions, f"{requirement} is not in requirements.lock: {RENEW}"
        for one in versions:
            assert requirement.specifier.contains(one, prereleases=True), f"{name} {one} is not {requirement}: {RENEW}"


def test_nothing_is_pinned_for_the_projects_sake_that_it_no_longer_asks_for(wanted, entries):
    asked = {canonicalize_name(one.name) for one in wanted}
    direct = {canonicalize_name(pinned(one).name) for one in entries if "idxctl (pyproject.toml)" in one}
    assert direct
    extras = {"psycopg-binary", "psycopg-pool"}
    assert direct - extras <= asked, RENEW


def test_the_lock_names_no_place_to_fetch_from():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text


# The audit in CI -------------------------------------------------------------------------------------------------------

REPORT = """{"dependencies": [{"name": "a", "version": "1", "vulns": %s}]}"""
ANSWERS = {
    "an advisory": (REPORT % """[{"id": "X-1", "fix_versions": ["2"]}]""", 1, "a 1: X-1, fixed in 2"),
    "none": (REPORT % "[]", 0, "1 packages looked up, 0 advisories"),
    "data that cannot be reached": ("", 0, "NOT AUDITED: pip-audit came to no answer (status 1): no route"),
    "nothing that could be looked up": (
        """{"dependencies": [{"name": "a", "skip_reason": "not found"}]}""", 0, "NOT AUDITED: the data of none of 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_audit_fails_for_an_advisory_and_says_so_where_it_could_not_look(tmp_path, answer):
    report, status, said = ANSWERS[answer]
    program = tmp_path / "pip-audit"
    find = 'while [ $# -gt 0 ]; do [ "$1" = --output ] && out=$2; shift; done'
    act = f"echo '{report}' > \"$out\"; exit 1" if report else "echo no route >&2; exit 1"
    program.write_text(f"#!/bin/sh\n{find}\n{act}\n")
    program.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        [ROOT / ".ci" / "audit", "x"], env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout + done.stderr
