"""
The jars of an OpenSearch node: which ones, by checksum, and a cache of them for this user.

A jar is in the cache only whole and verified: it is fetched beside its place and renamed into it. So a fetch that was
killed goes on where it stopped, and two processes may fetch at once. With all of them there no network is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from idxctl.core.errors import ConfigError, Unreachable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

PARALLEL = 8
ATTEMPTS = 3  # of one jar: a broken connection is common, a wrong checksum may be a broken proxy
EXTRA_HINT = "pip install 'idxctl[demo]'"

Progress = Callable[[int, int, int], None]
"""Called with the jars that are there, all jars, and the bytes that are there."""


@dataclass(frozen=True)
class Jar:
    """One file of a Maven repository, and what it must contain."""

    group: str
    artifact: str
    version: str
    sha256: str
    classifier: str = ""
    packaging: str = "jar"

    @property
    def path(self) -> Path:
        """Its place in the cache."""
        suffix = f"-{self.classifier}" if self.classifier else ""
        return Path(self.group, f"{self.artifact}-{self.version}{suffix}.{self.packaging}")


@dataclass(frozen=True)
class Lock:
    """What one version of OpenSearch is made of, and the Java releases that it runs on."""

    opensearch: str
    java: tuple[int, int]
    jars: tuple[Jar, ...]


Fetcher = Callable[[Jar, Path], Path]
"""Fetch a jar into a directory of its own and return the file, or raise `OSError`."""


def read_lock(name: str = "opensearch.lock.toml") -> Lock:
    """Read a lock file of this package."""
    content = tomllib.loads((files("idxctl.embedded") / name).read_text(encoding="utf-8"))
    low, high = content["java"]
    return Lock(content["opensearch"], (low, high), tuple(Jar(**jar) for jar in content["jar"]))


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return where downloads are kept: ``IDXCTL_CACHE_DIR``, else ``idxctl`` in the user's cache directory."""
    if given := environ.get("IDXCTL_CACHE_DIR"):
        return Path(given)
    home = environ.get("HOME") or str(Path.home())
    return Path(environ.get("XDG_CACHE_HOME") or Path(home, ".cache"), "idxctl")


def provide(
    cache: Path, jars: Sequence[Jar], *, progress: Progress | None = None, fetcher: Fetcher | None = None
) -> list[Path]:
    """
    Return the files of *jars*, fetching those that the cache lacks or holds damaged.

    Raises `Unreachable` when one cannot be fetched; the others stay for the next time.
    """
    store = cache / "jars"
    present = _Present(store, jars, progress)
    if present.missing:
        try:
            store.mkdir(parents=True, exist_ok=True)
            with _locked(store / "lock"):
                present = _Present(store, jars, progress)  # another process may have fetched them meanwhile
                _fetch(present, fetcher or from_maven())
        except OSError as error:
            raise _not_fetched(present, error) from error
    return [store / jar.path for jar in jars]


class _Present:
    """Which jars are there and whole."""

    def __init__(self, store: Path, jars: Sequence[Jar], progress: Progress | None) -> None:
        self.store = store
        self.jars = jars
        self.progress = progress
        self.missing = [jar for jar in jars if _digest(store / jar.path) != jar.sha256]
        lacking = set(self.missing)
        self.bytes = sum((store / jar.path).stat().st_size for jar in jars if jar not in lacking)

    def arrived(self, jar: Jar) -> None:
        self.missing.remove(jar)
        self.bytes += (self.store / jar.path).stat().st_size
        self.report()

    def report(self) -> None:
        if self.progress:
            self.progress(len(self.jars) - len(self.missing), len(self.jars), self.bytes)


def _fetch(present: _Present, fetcher: Fetcher) -> None:
    """Fetch what is missing; the first that fails for good ends it, with those under way still kept."""
    present.report()
    pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="jars")
    try:
        under_way = {pool.submit(_fetch_one, present.store, jar, fetcher): jar for jar in present.missing}
        for done in as_completed(under_way):
            done.result()
            present.arrived(under_way[done])
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch_one(store: Path, jar: Jar, fetcher: Fetcher) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        beside = Path(tempfile.mkdtemp(prefix=".fetch-", dir=store))
        try:
            fetched = fetcher(jar, beside)
            _verify(jar, fetched)
            (store / jar.path).parent.mkdir(exist_ok=True)
            fetched.replace(store / jar.path)
        except OSError:
            if attempt == ATTEMPTS:
                raise
        else:
            return
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _verify(jar: Jar, fetched: Path) -> None:
    if _digest(fetched) != jar.sha256:
        raise OSError(f"{jar.path.name} is not the file that was asked for: its checksum differs")


def from_maven() -> Fetcher:
    """Return a fetcher that asks the Maven repository jgo is set up for."""
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise ConfigError("fetching OpenSearch's jars needs the package jgo", hint=EXTRA_HINT) from error

    def fetch(jar: Jar, beside: Path) -> Path:
        component = MavenContext(repo_cache=beside).project(jar.group, jar.artifact).at_version(jar.version)
        try:
            return Path(component.artifact(classifier=jar.classifier, packaging=jar.packaging).resolve())
        except (RuntimeError, ValueError) as error:  # jgo's own: not found, or its checksum differs
            raise OSError(str(error)) from error

    return fetch


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the cache against other processes; what an earlier holder was fetching when it was killed is cleared away."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for leftover in path.parent.glob(".fetch-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _not_fetched(present: _Present, error: OSError) -> Unreachable:
    names = [jar.path.name for jar in present.missing[:3]]
    more = f" and {len(present.missing) - len(names)} more" if len(present.missing) > len(names) else ""
    said = (str(error) or type(error).__name__).splitlines()[0]
    reason, hint = said, "run it again with a network (what has arrived is kept)"
    if _is(error, "SSLError"):  # a ConnectionError too, so it is asked about first
        reason = "the repository's certificate is not trusted"
        hint = "behind a proxy that inspects TLS, name its certificate in REQUESTS_CA_BUNDLE"
    elif isinstance(error, ConnectionError | TimeoutError) or _is(error, "ConnectionError", "Timeout"):
        reason = "no connection"
    return Unreachable(
        f"cannot fetch {len(present.missing)} of the {len(present.jars)} jars of OpenSearch "
        f"({', '.join(names)}{more}) into {present.store}: {reason}",
        hint=f"{hint}, or use servers of your own: set IDXCTL_DATABASE_URL and IDXCTL_OPENSEARCH_URL",
    )


def _is(error: OSError, *names: str) -> bool:
    """Whether it is of one of these kinds, told by name: the HTTP library is not ours to import."""
    return any(kind.__name__ in names for kind in type(error).__mro__)
