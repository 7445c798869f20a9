"""A generation renders the same whoever renders it: what its documents depend on is stored with it."""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import replace

import pytest

from idxctl.core.secret import Secret
from idxctl.postgres.connect import connect
from idxctl.rebuild import preflight
from support.rig import ITEMS_DOCUMENT, Rig

DEPENDENT = ITEMS_DOCUMENT.replace(
    "'name', i.name",
    "'name', i.name || to_tsvector('running houses')::text || current_setting('app.media', true) || coalesce((i.seen = NULL)::text, 'null')",
)


def changed(rig: Rig, **given: str) -> bool:
    """Whether a rebuild is wanted, in the eyes of a session that was given settings by its client."""
    words = " ".join(f"-c {name.replace('__', '.')}={value}" for name, value in given.items())
    parts = urllib.parse.urlsplit(rig.database)
    url = parts._replace(query="options=" + urllib.parse.quote(words)).geturl()
    with connect(replace(rig.settings.database, url=Secret(url))) as conn:
        return preflight.plan(conn, rig.client, rig.settings.indexes[rig.index]).changed


@pytest.fixture
def dependent(items: Rig) -> Rig:
    items.sql(f"ALTER DATABASE {items.application.info.dbname} SET app.media = 'cdn'")
    items.pool.drop()
    items.configure(document=DEPENDENT)
    items.reindex()
    return items


def test_whoever_renders_renders_what_the_generation_was_built_with(dependent: Rig):
    database = dependent.application.info.dbname
    before = dependent.document(1)["name"]
    for setting in (
        "default_text_search_config = 'pg_catalog.german'",
        "app.media = 'else'",
        "transform_null_equals = on",
    ):
        dependent.sql(f"ALTER DATABASE {database} SET {setting}")
    dependent.pool.drop()
    dependent.sql("UPDATE items SET price = '5'")
    dependent.drain()
    assert (dependent.document(1)["name"], dependent.document(1)["price"]) == (before, "5")
    assert changed(dependent)


def test_what_the_asking_session_alone_was_given_is_no_change(dependent: Rig):
    assert not changed(dependent)
    assert not changed(dependent, TimeZone="Asia/Kolkata", default_text_search_config="pg_catalog.german")


def test_what_the_configuration_pins_is_what_counts(dependent: Rig):
    toml = dependent.config.read_text()
    dependent.configure(toml=toml.replace("mapping =", 'settings = { "app.media" = "pinned" }\nmapping ='))
    assert changed(dependent)
    dependent.reindex()
    assert "pinned" in dependent.document(1)["name"]
    assert not changed(dependent, app__media="other")


def test_a_generation_of_an_older_idxctl_needs_no_rebuild(dependent: Rig):
    old = ["search_path", "TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output"]
    generation = dependent.generation()
    definition = replace(generation.definition, local={name: generation.definition.local[name] for name in old})
    stored = {name: value for name, value in definition.stored().items() if name != "given"}
    dependent.sql("UPDATE opensearch_indexing_generations SET definition = %s, fingerprint = %s WHERE id = %s",
                  json.dumps(stored), definition.fingerprint, generation.id)  # fmt: skip
    assert not changed(dependent)


def test_an_index_sees_a_search_path_of_its_own(items: Rig):
    items.sql(
        "CREATE SCHEMA t0; CREATE TABLE t0.items (LIKE public.items INCLUDING ALL); INSERT INTO t0.items SELECT * FROM public.items WHERE id < 4"
    )
    items.configure(toml=items.config.read_text().replace("mapping =", 'search_path = ["t0", "public"]\nmapping =', 1))
    items.reindex()
    assert items.document(3) is not None
    assert items.document(9) is None
