"""T3 and the figures it rests on, on real servers: what is live already, and what each way to a pool is given."""

from __future__ import annotations

import signal
from dataclasses import fields
from datetime import timedelta

import pytest

import idxctl as package
from idxctl import dlq
from idxctl.cli import app
from idxctl.config.settings import OpenSearchSettings, WorkerSettings
from idxctl.core.errors import ConfigError
from idxctl.library import testing
from idxctl.worker.options import Options
from idxctl.worker.pool import Worker
from support.proxy import Proxy
from support.rig import until

SHORT = {"index": {"gc_deletes": "60s"}}
BOTH = "age_limit 1 min + request_timeout 30 s = 1 min 30 s is not below gc_deletes 1 min"


@pytest.fixture
def forgetful(items):
    """A live index that somebody has told to forget deletions sooner than idxctl's writes are over."""
    items.ask("PUT", f"/{items.generation().name}/_settings", SHORT)
    return items


@pytest.fixture
def command(idxctl, forgetful):
    return idxctl.use(database=forgetful.database, opensearch=forgetful.opensearch, config=forgetful.config)


# What is live already --------------------------------------------------------------------------------------------------


def test_a_worker_refuses_an_index_that_forgets_deletions_too_soon(command, forgetful):
    forgetful.enqueue(1)
    done = command("worker", "start", "--until-empty")
    assert done.status == 4, done.stderr
    assert f"{BOTH} of {forgetful.generation().name}" in done.stderr
    assert "raise index.gc_deletes above 1 min 30 s" in done.stderr
    assert f"PUT /{forgetful.generation().name}/_settings" in done.stderr
    assert forgetful.queued() == 1


def test_the_way_out_that_is_named_is_one(command, forgetful):
    forgetful.ask("PUT", f"/{forgetful.generation().name}/_settings", {"index": {"gc_deletes": "91s"}})
    assert command("worker", "start", "--until-empty").status == 0
    forgetful.ask("PUT", f"/{forgetful.generation().name}/_settings", SHORT)
    faster = {"IDXCTL_WORKER_AGE_LIMIT": "20s"}
    assert command("worker", "start", "--until-empty", env=faster).status == 0


def test_a_reindex_refuses_it_before_anything_is_built(command, forgetful):
    done = command("reindex")
    assert done.status == 4
    assert BOTH in done.stderr
    assert forgetful.one("SELECT count(*) FROM opensearch_indexing_generations") == 1


def test_a_retry_without_a_worker_refuses_it_too(items):
    items.sql("UPDATE items SET price = 'poison' WHERE id = 3")
    items.drain()
    items.ask("PUT", f"/{items.generation().name}/_settings", SHORT)
    with pytest.raises(ConfigError, match="is not below gc_deletes"):
        dlq.retry(
            items.pool, lambda: items.client, items.settings, dlq.Selection(),
            limit=1, wait=False, timeout=timedelta(minutes=1),
        )  # fmt: skip


def test_a_worker_that_starts_while_opensearch_is_away_asks_once_it_is_back(forgetful):
    forgetful.enqueue(1)

    def outlasts_the_outage(way):
        with forgetful.working() as worker:
            until(lambda: worker.breaker.open, "the outage is not noticed")
            way.restore()
            until(lambda: worker.stopping, "it works on")

    with Proxy(forgetful.opensearch) as way, forgetful.by_way_of(opensearch=way.url):
        way.refuse()
        with pytest.raises(ConfigError, match="is not below gc_deletes"):
            outlasts_the_outage(way)
    assert forgetful.queued() + forgetful.in_flight() == 1


# What a pool is given --------------------------------------------------------------------------------------------------


class Made(Exception):  # noqa: N818 - what the test waits for
    """A pool was made; nothing more is to happen."""


@pytest.fixture
def made(monkeypatch):
    """The options of every pool that is made, none of which runs."""
    found: list[Options] = []

    def note(self, pool, client, options, *, tally=None):
        found.append(options)
        raise Made

    monkeypatch.setattr(Worker, "__init__", note)
    return found


FIGURES = {
    "workers": "3", "queue_size": "777", "batch_size": "55", "batch_bytes": "1000000", "max_attempts": "7",
    "lease": "41s", "age_limit": "43s",
}  # fmt: skip
SHARED = {one.name for one in fields(Options)} - {"workers", "queue_size", "until_empty", "indexes"}


@pytest.fixture
def configured(items):
    """The items under a configuration in which no figure is a default."""
    items.sql("UPDATE items SET price = 'poison' WHERE id = 3")
    items.drain()
    worker = "".join(f"{key} = {value if value.isdigit() else repr(value)}\n" for key, value in FIGURES.items())
    items.configure(toml=f"{items.config.read_text()}\n[worker]\n{worker}[opensearch]\nrequest_timeout = '37s'\n")
    defaults = WorkerSettings()
    for one in fields(WorkerSettings):
        if one.name != "drain_timeout_seconds":
            assert getattr(items.settings.worker, one.name) != getattr(defaults, one.name), one.name
    assert items.settings.opensearch.request_timeout_seconds != OpenSearchSettings.request_timeout_seconds
    return items


def retry(rig):
    dlq.retry(
        rig.pool, lambda: rig.client, rig.settings, dlq.Selection(),
        limit=1, wait=False, timeout=timedelta(minutes=1),
    )  # fmt: skip


def reindex(rig):
    rig.enqueue(1)
    rig.reindex()


def drain(rig):
    testing.drain(package.Indexer(rig.settings))


def background(rig):
    indexer = package.Indexer(rig.settings)
    indexer.enable_async(workers=2, queue_size=10)
    try:
        until(lambda: rig.made, "no pool is made")
    finally:
        indexer.shutdown(1)
    raise Made


def from_the_command_line(rig):
    heeded = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        app.run(["--config", str(rig.config), "--debug", "worker", "start", "--until-empty"])
    except SystemExit:
        raise Made from None
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("way", [retry, reindex, drain, background, from_the_command_line])
def test_every_way_to_a_pool_gives_it_what_is_configured(configured, made, monkeypatch, way):
    monkeypatch.setenv("IDXCTL_DATABASE_URL", configured.database)
    monkeypatch.setenv("IDXCTL_OPENSEARCH_URL", configured.opensearch)
    configured.made = made
    with pytest.raises(Made):
        way(configured)
    wanted = Options.of(configured.settings)
    assert {name: getattr(made[0], name) for name in SHARED} == {name: getattr(wanted, name) for name in SHARED}
