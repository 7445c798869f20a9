"""The sums of settings that C3, G3 and T3 rest on: a configuration that breaks one is refused with its figures."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest

import idxctl
from idxctl.config import sums
from idxctl.config.settings import OpenSearchSettings, Settings, WorkerSettings
from idxctl.queue import rescue
from idxctl.worker import registry
from idxctl.worker.options import Options
from support.loaded import problems

INDEX = "[indexes.products]\ndocument = 'SELECT 1 AS document_id, 2 AS document'\n"


def test_defaults_keep_every_sum(load):
    assert load(INDEX).bytes_gone_after_seconds == 90.0


@pytest.mark.parametrize(
    "settings",
    ["{index = {gc_deletes = '60s'}}", "{gc_deletes = '60s'}", "{'index.gc_deletes' = '1m'}", "{index = {gc_deletes = -1}}"],
)  # fmt: skip
def test_an_index_that_would_forget_deletions_too_soon_is_refused_with_both_figures(load, settings):
    (told,) = problems(load, f"{INDEX}mapping = {{settings = {settings}}}\n")
    assert "age_limit 1 min + request_timeout 30 s = 1 min 30 s is not below gc_deletes" in told
    assert "indexes.products" in told
    assert "raise index.gc_deletes above 1 min 30 s" in told


def test_an_index_that_names_no_time_is_measured_by_the_one_it_would_get(load):
    (told,) = problems(load, f"[worker]\nage_limit = '5m'\n{INDEX}")
    assert "age_limit 5 min + request_timeout 30 s = 5 min 30 s is not below gc_deletes 5 min" in told
    assert load(
        f"[worker]\nage_limit = '5m'\n{INDEX}mapping = {{settings = {{'index.gc_deletes' = '331s'}}}}\n"
    ).indexes


def test_equal_is_not_below(load):
    assert problems(load, f"{INDEX}mapping = {{settings = {{gc_deletes = '90s'}}}}\n")
    assert load(f"{INDEX}mapping = {{settings = {{gc_deletes = '91s'}}}}\n")


def test_a_time_that_opensearch_cannot_read_is_named(load):
    (told,) = problems(load, f"{INDEX}mapping = {{settings = {{gc_deletes = '5 minutes'}}}}\n")
    assert "gc_deletes '5 minutes' is not a time that OpenSearch reads" in told


def test_a_lease_shorter_than_a_request_is_refused_with_both_figures_and_where_they_stand(load):
    (told,) = problems(load, "[worker]\nlease = '10s'\n", IDXCTL_OPENSEARCH_REQUEST_TIMEOUT="20s")
    assert "lease 10 s is shorter than request_timeout 20 s" in told
    assert "line 2" in told
    assert "IDXCTL_OPENSEARCH_REQUEST_TIMEOUT" in told
    assert load("[worker]\nlease = '10s'\n[opensearch]\nrequest_timeout = '10s'\n")


def test_every_broken_sum_is_reported_at_once(load):
    text = f"[opensearch]\nrequest_timeout = '10m'\n{INDEX}[indexes.users]\ndocument = 'SELECT 1 AS document_id, 2 AS document'\n"
    told = " | ".join(problems(load, text))
    assert told.index("lease 30 s is shorter") < told.index("indexes.products") < told.index("indexes.users")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("5m", 300), ("500ms", 0.5), ("2H", 7200), ("1d", 86400), ("0", 0), ("-1", 0), ("5", None), ("", None)],
)  # fmt: skip
def test_times_are_read_as_opensearch_writes_them(text, seconds):
    assert sums.seconds_of(text) == seconds


def unlike_the_defaults():
    worker = WorkerSettings(**{one.name: one.default + 7 for one in fields(WorkerSettings)})
    return Settings(worker=worker, opensearch=OpenSearchSettings(request_timeout_seconds=37.5))


def test_a_pool_is_made_from_every_setting():
    settings = unlike_the_defaults()
    made, default = Options.of(settings), Options()
    own = {"until_empty", "indexes"}
    for one in fields(Options):
        if one.name not in own:
            given = getattr(settings.worker, one.name, settings.opensearch.request_timeout_seconds)
            assert getattr(made, one.name) == given != getattr(default, one.name), one.name
    assert made.bytes_gone_after_seconds == settings.bytes_gone_after_seconds


def test_no_module_makes_a_pools_options_by_hand():
    made = []
    for file in Path(idxctl.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("idxctl.worker")
            for alias in node.names
            if alias.name == "Options"
        }
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        made += [file.name for call in calls if isinstance(call, ast.Name) and call.id in names]
    assert made == []


def test_a_worker_is_seen_several_times_before_it_is_taken_for_gone():
    assert 2 * registry.BEAT_SECONDS < registry.GONE_SECONDS < registry.ALIVE_SECONDS
    assert rescue._APART_SECONDS < registry.ALIVE_SECONDS
