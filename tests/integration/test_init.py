"""``idxctl init``: files that pass every check, capture every change, and overwrite nothing."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest

from support import churn
from support.rig import Rig

SCHEMAS = Path(__file__).parent.parent / "support" / "schemas"
TABLES = {"odd": "product", "school": 'campus."Course"', "shop": "listings"}
CHANGES = 500


def load(url: str, name: str) -> None:
    """Put the tables of a schema into an empty database, and rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        if name == "shop":
            from idxctl.demo.shop import load_shop

            load_shop(connection, 60)
        else:
            connection.execute((SCHEMAS / f"{name}.sql").read_text())


@pytest.fixture
def home(idxctl, database, opensearch_url):
    """The command line in an empty folder, on an empty database and a real OpenSearch."""
    idxctl.use(database=database, opensearch=opensearch_url)
    return idxctl


@pytest.mark.parametrize("name", TABLES)
def test_what_init_wrote_passes_every_check_and_captures_every_change(
    home, database, opensearch_url, unique_name, name
):
    load(database, name)
    made = home("init", TABLES[name], "--index", unique_name, "--yes")
    assert made.status == 0, made.stderr
    checked = home("config", "validate")
    assert checked.status == 0, checked.stdout
    unindexed = [
        line for line in checked.stderr.splitlines() if "scans the whole of" not in line
    ]  # which init has said
    assert unindexed == []
    for command in (["migrate", "up"], ["watch", "install"], ["reindex"]):
        done = home(*command)
        assert done.status == 0, (command, done.stdout, done.stderr)
    rig = Rig(database, opensearch_url, unique_name, home.cwd)
    try:
        rig.sql("SET search_path = public, idxctl")
        separator = ":" if rig.settings.indexes[unique_name].key else ""
        named = {"name": lambda row: ":".join(map(str, row[:-1]))} if separator else {}
        assert rig.differences(**named) == []
        for seed in range(3):
            with psycopg.connect(database, autocommit=True) as application:
                assert churn.churn(application, CHANGES // 3, seed) > CHANGES // 10
            rig.drain()
            assert rig.letters() == {}
            assert rig.differences(**named) == []
    finally:
        rig.close()


def test_a_second_table_is_added_and_nothing_that_is_there_is_touched(home, database):
    load(database, "shop")
    assert home("init", "listings").status == 0
    config = home.cwd / "idxctl.toml"
    before = "# ours\n" + config.read_text() + "# the end, without a line break"
    config.write_text(before)
    again = home("init", "listings")
    assert (again.status, config.read_text()) == (2, before)
    assert "search/listings.sql is there already" in again.stderr
    for kind in ("sql", "json"):
        (home.cwd / "search" / f"listings.{kind}").rename(home.cwd / "search" / f"elsewhere.{kind}")
    before = before.replace("search/listings.", "search/elsewhere.")
    config.write_text(before)
    again = home("init", "listings")
    assert (again.status, config.read_text()) == (2, before)
    assert "has an index listings already" in again.stderr
    assert home("init", "--table", "storefronts", "--index", "shops").status == 0
    assert config.read_text().startswith(before)
    assert set(home("config", "show", "-o", "json").json["settings"]) >= {
        "indexes.shops.document",
        "indexes.listings.document",
    }


def test_a_configuration_that_takes_no_table_at_its_end_is_left_as_it_is(home, database):
    load(database, "shop")
    config = home.cwd / "idxctl.toml"
    config.write_text("indexes = {}\n")
    refused = home("init", "listings")
    assert (refused.status, config.read_text()) == (4, "indexes = {}\n")
    assert "[indexes.NAME]" in refused.stderr
    assert not (home.cwd / "search").exists()


def test_a_dry_run_prints_all_and_writes_nothing(home, database):
    load(database, "shop")
    shown = home("init", "listings", "--dry-run", "-o", "json").json
    assert not list(home.cwd.iterdir())
    assert shown["dry_run"] is True
    assert [Path(one["path"]).name for one in shown["files"]] == ["listings.sql", "listings.json", "idxctl.toml"]
    assert json.loads(shown["files"][1]["text"])["mappings"]["properties"]["location"] == {"type": "geo_point"}
    assert "'images', (" in home("init", "listings", "--dry-run").stdout


def test_what_is_left_out_is_said_with_the_way_to_have_it(home, database):
    load(database, "school")
    shown = home("init", 'campus."Course"', "--dry-run", "-o", "json").json
    left = {one["what"]: one["way"] for one in shown["left_out"]}
    assert left['campus."Person" ("eMail", phone)'] == "--private"
    shown = home(
        "init", 'campus."Course"', "--private", "--without", 'campus."Chapter"', "--dry-run", "-o", "json"
    ).json
    (query, _, _) = shown["files"]
    assert "'eMail'" in query["text"]
    assert "chapters" not in query["text"]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute('CREATE TABLE campus."Order" (id serial PRIMARY KEY, course int REFERENCES campus."Course")')
    shown = home("init", 'campus."Course"', "--dry-run", "-o", "json").json
    assert {one["what"]: one["way"] for one in shown["left_out"]}['campus."Order"'] == '--with campus."Order"'
    shown = home("init", 'campus."Course"', "--with", 'campus."Order"', "--dry-run", "-o", "json").json
    assert 'FROM campus."Order"' in shown["files"][0]["text"]


@pytest.mark.parametrize(
    ("statement", "table", "status", "said"),
    [
        ("CREATE TABLE bare (a int)", "bare", 4, "nothing in bare can identify a document"),
        ("CREATE TABLE bare (a numeric PRIMARY KEY)", "bare", 4, "1.0 and 1.00 are equal and have two texts"),
        ("CREATE TABLE listing (id int PRIMARY KEY)", "listings", 2, "did you mean 'listing'?"),
        ("CREATE VIEW seen AS SELECT 1 AS id", "seen", 4, "it is a view"),
        ("SELECT 1", "listings", 2, "there are no tables in this database"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_indexed_is_refused_with_the_way_out(home, database, statement, table, status, said):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(statement)
    refused = home("init", table)
    assert (refused.status, list(home.cwd.iterdir())) == (status, [])
    assert said in refused.stderr


def test_a_unique_key_without_nulls_will_do_and_files_are_closed_to_others(home, database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE places (code text NOT NULL UNIQUE, lat float8, lng float8, views_count int, x xml, b bytea)"
        )
    assert home("init", "places").status == 0
    query = (home.cwd / "search" / "places.sql").read_text()
    assert "p.code AS document_id" in query
    assert "'location', CASE WHEN p.lat BETWEEN -90 AND 90" in query
    for path in (home.cwd / "search", home.cwd / "search" / "places.sql", home.cwd / "idxctl.toml"):
        assert path.stat().st_mode & 0o022 == 0


def test_the_package_brings_its_statements():
    assert (files("idxctl.init") / "init.sql").is_file()
