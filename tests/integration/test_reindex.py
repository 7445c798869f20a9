"""reindex on schemas of all kinds, and everything it must refuse."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import psycopg
import pytest

from support import judge
from support.rig import Rig


@pytest.fixture
def build(database, migrate, opensearch_url, unique_name, tmp_path):
    """A function that makes a rig of SQL, a document query and watches."""
    migrate(database)
    made = []

    def make(schema: str, document: str, watches: str, *, index: str = "", mapping: dict | None = None) -> Rig:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(schema.encode())
        (tmp_path / "document.sql").write_text(document)
        (tmp_path / "mapping.json").write_text(json.dumps(mapping or {}))
        (tmp_path / "idxctl.toml").write_text(
            f'[indexes.{unique_name}]\ndocument = "document.sql"\nmapping = "mapping.json"\n{index}\n'
            + watches.replace("NAME", unique_name)
        )
        rig = Rig(database, opensearch_url, unique_name, tmp_path)
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def cli(idxctl, database, opensearch_url, tmp_path):
    idxctl.use(database=database, opensearch=opensearch_url, config=tmp_path / "idxctl.toml")
    return idxctl


ONE = '[[indexes.NAME.watch]]\ntable = "things"\nkey = "id"\n'
THINGS = "CREATE TABLE things (id bigint PRIMARY KEY, name text); INSERT INTO things SELECT i, 'n' || i FROM generate_series(1, 50) i;"
DOCUMENT = "SELECT id AS document_id, to_jsonb(t) AS document FROM things t"


def held(rig: Rig) -> dict[str, dict]:
    return dict(judge.held_documents(rig.opensearch, rig.index))


def test_empty_table_makes_an_empty_index(build):
    rig = build("CREATE TABLE things (id bigint PRIMARY KEY)", DOCUMENT, ONE)
    rig.watch()
    assert rig.reindex().swapped
    assert held(rig) == {}


def test_uuid_keys(build):
    rig = build("CREATE TABLE things (id uuid PRIMARY KEY, name text)", DOCUMENT, ONE)
    ids = [str(uuid.uuid4()) for _ in range(700)]
    for one in ids:
        rig.sql("INSERT INTO things VALUES (%s, 'x')", one)
    rig.watch()
    rig.reindex()
    rig.sql("UPDATE things SET name = 'y' WHERE id = %s", ids[3])
    rig.sql("DELETE FROM things WHERE id = %s", ids[4])
    rig.drain()
    assert rig.differences() == []


ODD = [
    "a:b",
    "50%",
    'quo"te',
    "it's",
    "back\\slash",
    "tab\there",
    "žluťoučký",
    "🙂",
    "a b",
    "%3A",
    "/slash?x=1",
    "{}",
    "line\nbreak",
]


def test_text_keys_of_any_characters(build):
    rig = build(
        'CREATE TABLE things (id text COLLATE "C" PRIMARY KEY, name text)',
        DOCUMENT,
        ONE,
    )
    for one in ODD:
        rig.sql("INSERT INTO things VALUES (%s, 'x')", one)
    rig.watch()
    rig.reindex()
    assert sorted(held(rig)) == sorted(ODD)
    rig.sql("UPDATE things SET name = 'y'")
    rig.drain()
    assert rig.differences() == []
    rig.sql("DELETE FROM things")
    rig.drain()
    assert held(rig) == {}


def test_composite_keys_of_any_characters(build):
    rig = build(
        "CREATE TABLE things (tenant text, seq int, name text, PRIMARY KEY (tenant, seq))",
        "SELECT tenant, seq, to_jsonb(t) AS document FROM things t",
        '[[indexes.NAME.watch]]\ntable = "things"\nkey = ["tenant", "seq"]\n',
        index='key = ["tenant", "seq"]',
    )
    for number, one in enumerate(ODD):
        rig.sql("INSERT INTO things VALUES (%s, %s, 'x'), (%s, %s, 'x')", one, number, one, number + 1)
    rig.watch()
    rig.reindex()
    rig.sql("UPDATE things SET name = 'y' WHERE seq % 2 = 0")
    rig.sql("DELETE FROM things WHERE seq = 3")
    rig.drain()
    found = {(one["tenant"], one["seq"]): one["name"] for one in held(rig).values()}
    assert found == {(tenant, seq): name for tenant, seq, name in rig.sql("SELECT tenant, seq, name FROM things")}
    assert set(held(rig)) == {
        f"{tenant.replace('%', '%25').replace(':', '%3A')}:{seq}"
        for tenant, seq in rig.sql("SELECT tenant, seq FROM things")
    }


def test_quoted_table_in_a_schema_of_its_own_and_json_with_line_breaks(build):
    rig = build(
        'CREATE SCHEMA geo; CREATE TABLE geo."Place Notes" ("Id" int PRIMARY KEY, body json); '
        """INSERT INTO geo."Place Notes" SELECT i, E'{"a":\\n1,\\r\\n"b": "x\\\\ny"}' FROM generate_series(1, 30) i""",
        'SELECT "Id" AS document_id, body AS document FROM geo."Place Notes"',
        '[[indexes.NAME.watch]]\ntable = \'geo."Place Notes"\'\nkey = "Id"\n',
    )
    rig.watch()
    rig.reindex()
    rig.sql("""UPDATE geo."Place Notes" SET body = '{"a": 2}' WHERE "Id" = 7""")
    rig.drain()
    assert rig.differences() == []


def test_routing_is_derived_from_the_id(build):
    rig = build(
        THINGS,
        DOCUMENT,
        ONE,
        index='routing = "(document_id % 3)::text"',
        mapping={"settings": {"number_of_shards": 3, "number_of_replicas": 0}},
    )
    rig.watch()
    rig.reindex()
    rig.sql("UPDATE things SET name = 'y'")
    rig.sql("DELETE FROM things WHERE id < 10")
    rig.drain()
    assert rig.differences() == []
    rig.reindex()
    assert rig.differences() == []


def test_standby_stays_current_after_a_swap(build):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.watch()
    rig.reindex()
    rig.reindex()
    rig.sql("UPDATE things SET name = 'y' WHERE id < 20")
    rig.drain()
    standby = rig.generation("standby")
    assert rig.differences() == []
    assert rig.differences(standby.name) == []


def test_concrete_index_of_that_name_is_replaced_only_with_a_yes(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.watch()
    rig.ask("PUT", f"/{rig.index}", {})
    rig.ask("PUT", f"/{rig.index}/_doc/old?refresh=true", {"old": True})
    refused = cli("reindex")
    assert refused.status == 2
    assert "--yes" in refused.stderr
    assert "old" in held(rig)
    assert rig.sql("SELECT FROM opensearch_indexing_generations") == []
    assert cli("reindex", "--yes").status == 0
    assert rig.differences() == []
    assert list(rig.ask("GET", f"/_alias/{rig.index}")) == [rig.generation().name]


def test_alias_that_belongs_to_someone_else_is_left_alone(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.ask("PUT", f"/{rig.index}-theirs", {"aliases": {rig.index: {}}})
    refused = cli("reindex")
    assert refused.status == 4
    assert f"{rig.index}-theirs" in refused.stderr
    assert cli("reindex", "--take-alias").status == 0
    assert rig.differences() == []
    assert "error" not in rig.ask("GET", f"/{rig.index}-theirs")


REFUSED = {
    "no document_id": ("SELECT id, to_jsonb(t) AS document FROM things t", {}, "document_id"),
    "no document": ("SELECT id AS document_id FROM things t", {}, "document"),
    "document of text": ("SELECT id AS document_id, name AS document FROM things t", {}, "jsonb"),
    "does not parse": ("SELEC id", {}, "does not run"),
    "no such table": ("SELECT id AS document_id, '{}'::jsonb AS document FROM thinks", {}, "thinks"),
    "float key": ("SELECT id::float8 AS document_id, to_jsonb(t) AS document FROM things t", {}, "double precision"),
    "NULL id": ("SELECT nullif(id, 7) AS document_id, to_jsonb(t) AS document FROM things t", {}, "NULL"),
    "duplicate ids": (
        "SELECT id AS document_id, to_jsonb(t) AS document FROM things t, generate_series(1, 2)",
        {},
        "more than once",
    ),
    "mapping": (DOCUMENT, {"mappings": {"properties": {"name": {"type": "no_such_type"}}}}, "no_such_type"),
    "analyzer": (DOCUMENT, {"mappings": {"properties": {"name": {"type": "text", "analyzer": "mine"}}}}, "mine"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_its_name_and_leaves_nothing(build, cli, case):
    document, mapping, named = REFUSED[case]
    rig = build(THINGS, document, ONE, mapping=mapping)
    refused = cli("reindex")
    assert refused.status == 4, refused.stderr
    assert named in refused.stderr
    assert "Traceback" not in refused.stderr
    assert rig.sql("SELECT state FROM opensearch_indexing_generations WHERE state <> 'retired'") == []
    assert rig.ask("GET", f"/_alias/{rig.index}").get("status") == 404


def test_cast_that_misses_the_index_is_refused_on_a_large_table(build, cli):
    rig = build(
        "CREATE TABLE things (id bigint PRIMARY KEY); INSERT INTO things SELECT generate_series(1, 12000); ANALYZE things",
        "SELECT id::text AS document_id, to_jsonb(t) AS document FROM things t",
        ONE,
    )
    refused = cli("reindex")
    assert refused.status == 4
    assert "things" in refused.stderr
    rig.sql("CREATE INDEX ON things ((id::text))")
    rig.sql("ANALYZE things")
    assert cli("reindex").status == 0


def test_refused_documents_become_letters_at_the_swap(build, cli):
    rig = build(
        THINGS + "UPDATE things SET name = 'poison' WHERE id IN (7, 8)",
        "SELECT id AS document_id, jsonb_build_object('name', CASE name WHEN 'poison' THEN 'x' ELSE '1' END) AS document FROM things t",
        ONE,
        mapping={"mappings": {"properties": {"name": {"type": "integer"}}}},
    )
    rig.watch()
    done = cli("reindex", "-o", "json")
    assert done.status == 3
    assert (done.json["documents"], done.json["failed"], done.json["swapped"]) == (48, 2, True)
    assert sorted(rig.letters()) == ["7", "8"]
    assert rig.differences(but=[7, 8]) == []


def test_too_many_refused_documents_stop_the_swap(build, cli):
    rig = build(
        THINGS,
        "SELECT id AS document_id, jsonb_build_object('name', name) AS document FROM things t",
        ONE,
        mapping={"mappings": {"properties": {"name": {"type": "integer"}}}},
    )
    refused = cli("reindex")
    assert refused.status == 1
    assert "50 of 50" in refused.stderr
    assert rig.ask("GET", f"/_alias/{rig.index}").get("status") == 404
    assert rig.letters() == {}


def test_second_reindex_at_once_is_kept_out(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.sql(
        "INSERT INTO opensearch_indexing_reindex_runs (index_name, phase, owner) VALUES (%s, 'backfill', 'other')",
        rig.index,
    )
    assert cli("reindex").status == 6


def test_json_has_the_promised_fields(build, cli):
    rig = build(THINGS, DOCUMENT, ONE)
    rig.watch()
    preview = cli("reindex", "--dry-run", "-o", "json").json
    wanted = {"index", "generation", "documents", "failed", "seconds", "swapped"}
    assert wanted <= preview.keys()
    assert preview["dry_run"] is True
    done = cli("reindex", "-o", "json").json
    assert wanted <= done.keys()
    assert (done["index"], done["documents"], done["swapped"]) == (rig.index, 50, True)
    again = cli("reindex", "--if-changed", "-o", "json").json
    assert again["swapped"] is False


def test_schema_not_migrated_is_said(database, cli, tmp_path: Path):
    (tmp_path / "idxctl.toml").write_text("")
    refused = cli("reindex")
    assert refused.status == 4
    refused = cli("queue", "stats")
    assert (refused.status, "idxctl migrate up" in refused.stderr) == (4, True)
