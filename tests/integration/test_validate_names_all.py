"""`config validate` names every problem at once: of the files, of the database and of OpenSearch; commands say what nobody captures."""

from __future__ import annotations

import pytest

from idxctl.opensearch import templates
from support.rig import ITEMS_DOCUMENT, ITEMS_MAPPING, Rig


@pytest.fixture
def cli(items: Rig, idxctl):
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


def problems(cli) -> list[str]:
    told = cli("config", "validate", "-o", "json")
    assert told.status == 4
    return [f"{one['where']}: {one['what']}" for one in told.json["problems"]]


def test_a_missing_file_hides_nothing_that_the_servers_know(items: Rig, cli):
    broken = {**ITEMS_MAPPING, "mappings": {"properties": {"name": {"type": "keyward"}}}}
    items.configure(mapping=broken)
    text = items.config.read_text().replace('document = "document.sql"', 'document = "dokument.sql"')
    items.config.write_text(
        text.replace('key = "item_id"', 'key = "artikel_id"').replace('table = "categories"', 'table = "kategories"')
    )
    found = "\n".join(problems(cli))
    for wanted in (
        "dokument.sql",
        '"artikel_id" does not exist',
        "table kategories does not exist",
        "No handler for type [keyward]",
    ):
        assert wanted in found
    assert len(found.splitlines()) == 4


def test_two_indexes_each_with_a_fault_that_another_server_knows_are_both_named(items: Rig, cli):
    (items.directory / "other.sql").write_text("SELECT id AS document_id, to_jsonb(nom) AS document FROM items")
    items.config.write_text(items.config.read_text() + f'\n[indexes.{items.index}-b]\ndocument = "other.sql"\n')
    settings = {**ITEMS_MAPPING["settings"], "index.nonsense": 1}
    items.configure(mapping={**ITEMS_MAPPING, "settings": settings})
    found = "\n".join(problems(cli))
    assert 'column "nom" does not exist' in found
    assert "unknown setting [index.nonsense]" in found


def test_a_mapping_is_tried_and_nothing_is_made(items: Rig):
    before = (
        items.ask("GET", "/_index_template"),
        items.ask("GET", "/_cat/indices/opensearch-indexing-nowhere*?format=json"),
    )
    assert templates.refusal(items.client, ITEMS_MAPPING) is None
    assert templates.refusal(items.client, {}) is None
    analysis = {"analysis": {"analyzer": {"x": {"tokenizer": "nope"}}}}
    assert "failed to find tokenizer under name [nope]" in (
        templates.refusal(items.client, {"settings": analysis}) or ""
    )
    assert (
        items.ask("GET", "/_index_template"),
        items.ask("GET", "/_cat/indices/opensearch-indexing-nowhere*?format=json"),
    ) == before


def test_a_server_that_is_away_hides_no_problem_of_the_files(items: Rig, cli):
    items.config.write_text(items.config.read_text().replace("document.sql", "dokument.sql"))
    cli.use(database="postgresql://nobody@127.0.0.1:1/x", opensearch="http://127.0.0.1:1")
    assert len(problems(cli)) == 1
    assert "the database was not asked" in cli("config", "validate").stderr


def test_without_opensearch_the_rest_is_validated_and_that_is_said(items: Rig, cli):
    cli.use(opensearch="http://127.0.0.1:1")
    told = cli("config", "validate")
    assert told.status == 0
    assert "OpenSearch was not asked whether it takes the mappings" in told.stderr


def test_what_no_watch_captures_is_said_by_every_command_that_looks(items: Rig, cli):
    items.sql("CREATE TABLE extras (item_id bigint)")
    items.sql("CREATE INDEX ON extras (item_id)")
    items.configure(
        document=ITEMS_DOCUMENT.replace(
            "i.name,", "i.name || i.seen || (SELECT count(*) FROM extras e WHERE e.item_id = i.id),"
        )
    )
    commands = [
        ("config", "validate"),
        ("watch", "status"),
        ("reindex", "--dry-run"),
        ("reindex", "--if-changed"),
        ("reindex", "--if-changed"),
    ]
    for command in commands:
        told = cli(*command)
        assert told.status == 0, told
        assert "reads table extras (item_id), which no watch of this index covers" in told.stderr, command
        assert "shows items (seen), which its watch ignores" in told.stderr, command
    assert cli("watch", "status", "--exit-code").status == 7


def test_where_all_is_captured_nothing_is_said(cli):
    for command in (("config", "validate"), ("watch", "status", "--exit-code"), ("reindex", "--if-changed")):
        told = cli(*command)
        assert (told.status, told.stderr) == (0, ""), command
