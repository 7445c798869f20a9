"""C7: what a document shows and nobody captures is found, whichever way the query comes to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from idxctl.capture import introspect
from idxctl.capture.coverage import Hole, Uncovered, uncovered
from idxctl.capture.watches import Definition
from idxctl.core.errors import PostgresRefused
from support.capture import Captured

LISTINGS = Definition("public", "listings", key=("id",), ignore=("views_count",))


@pytest.fixture
def shop(clone, shop_template, migrate) -> Iterator[Captured]:
    with clone(shop_template) as url:
        migrate(url)
        captured = Captured(url)
        yield captured
        captured.conn.close()


def found(shop: Captured, document: str, *watches: Definition) -> list[tuple]:
    holes = uncovered(shop.conn, document, dict(enumerate(watches or (LISTINGS,))), local={"search_path": "public"})
    return [(one.hole, one.what, one.columns, one.view) for one in holes]


def test_a_table_without_a_watch_is_named_with_the_columns_that_are_read(shop):
    document = "SELECT l.id AS document_id, to_jsonb(c.name) AS document FROM listings l JOIN categories c ON c.id = l.category_id"
    assert found(shop, document) == [(Hole.UNWATCHED, "categories", ("id", "name"), None)]
    categories = Definition("public", "categories", keys="SELECT 1")
    assert found(shop, document, LISTINGS, categories) == []


def test_an_ignored_column_is_found_where_it_is_read_and_not_beside_it(shop):
    assert found(shop, "SELECT id AS document_id, jsonb_build_object('title', title) AS document FROM listings") == []
    for shown in ("to_jsonb(views_count)", "to_jsonb(title) /* */", "'{}'::jsonb"):
        document = f"SELECT id AS document_id, {shown} AS document FROM listings WHERE views_count >= 0"
        assert found(shop, document) == [(Hole.IGNORED, "listings", ("views_count",), None)], shown


@pytest.mark.parametrize(
    "document",
    [
        "SELECT l.id AS document_id, to_jsonb(l) AS document FROM listings l",
        "SELECT l.id AS document_id, to_jsonb(l.*) AS document FROM listings l JOIN categories c ON c.id = l.category_id",
        "SELECT d.id AS document_id, to_jsonb(d) AS document FROM (SELECT * FROM listings) d",
        "SELECT c.id AS document_id, (SELECT jsonb_agg(l) FROM listings l WHERE l.category_id = c.id) AS document FROM categories c",
        "WITH w AS (SELECT l FROM listings l) SELECT (w.l).id AS document_id, to_jsonb((w.l).title) AS document FROM w",
    ],
)
def test_a_whole_row_shows_the_ignored_column_too(shop, document):
    categories = Definition("public", "categories", keys="SELECT 1")
    assert (Hole.IGNORED, "listings", ("views_count",), None) in found(shop, document, LISTINGS, categories)


def test_a_whole_row_of_one_table_is_none_of_another(shop):
    document = "SELECT l.id AS document_id, to_jsonb(c) || to_jsonb(l.title) AS document FROM listings l JOIN categories c ON c.id = l.category_id"
    assert found(shop, document, LISTINGS, Definition("public", "categories", keys="SELECT 1")) == []


def test_a_column_that_one_of_two_watches_ignores_is_captured_by_the_other(shop):
    document = "SELECT id AS document_id, to_jsonb(views_count) AS document FROM listings"
    assert found(shop, document, LISTINGS, Definition("public", "listings", keys="SELECT 1")) == []


def test_views_are_unfolded_and_named(shop):
    shop.sql(
        "CREATE VIEW named AS SELECT c.id, c.name FROM categories c",
        "CREATE VIEW shown AS SELECT l.id, l.title, l.views_count, n.name FROM listings l JOIN named n ON n.id = l.category_id",
    )
    document = "SELECT id AS document_id, to_jsonb(name) AS document FROM shown"
    assert found(shop, document) == [
        (Hole.UNWATCHED, "categories", ("id", "name"), "shown"),
        (Hole.IGNORED, "listings", ("views_count",), "shown"),  # the view reads it; the document may not
    ]


def test_functions_are_followed_where_their_bodies_are_sql_and_named_where_they_are_text(shop):
    shop.sql(
        "CREATE FUNCTION known(bigint) RETURNS text STABLE BEGIN ATOMIC SELECT name FROM categories WHERE id = $1; END",
        "CREATE FUNCTION opaque(bigint) RETURNS text STABLE LANGUAGE sql AS 'SELECT name FROM storefronts WHERE id = $1'",
        "CREATE FUNCTION pure(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT upper($1)'",
    )
    document = "SELECT id AS document_id, to_jsonb(known(category_id) || opaque(storefront_id) || pure(title)) AS document FROM listings"
    assert found(shop, document) == [
        (Hole.UNWATCHED, "categories", ("id", "name"), None),
        (Hole.OPAQUE, "opaque()", (), None),
    ]


def test_a_materialized_view_is_a_blind_spot_for_its_refresh_fires_nothing(shop):
    shop.sql("CREATE MATERIALIZED VIEW totals AS SELECT category_id, count(*) AS n FROM listings GROUP BY 1")
    document = "SELECT l.id AS document_id, to_jsonb(t.n) AS document FROM listings l JOIN totals t USING (category_id)"
    assert found(shop, document) == [(Hole.UNREFRESHED, "totals", (), None)]


def test_a_partition_is_covered_by_the_watch_of_its_root(shop):
    shop.sql(
        "CREATE TABLE parted (id bigint, at int) PARTITION BY RANGE (at)",
        "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
    )
    document = "SELECT id AS document_id, to_jsonb(at) AS document FROM parted_1"
    assert found(shop, document, Definition("public", "parted", key=("id",))) == []


def test_tables_of_the_same_name_are_told_apart_by_the_path_that_the_query_sees(shop):
    shop.sql("CREATE SCHEMA other", "CREATE TABLE other.listings (id bigint, title text)")
    document = "SELECT id AS document_id, to_jsonb(title) AS document FROM listings"
    holes = uncovered(shop.conn, document, {0: LISTINGS}, local={"search_path": "other, public"})
    assert [one.what for one in holes] == ["other.listings"]


def test_a_lookup_that_reads_a_table_nobody_watches_is_named_by_its_watch(shop):
    lookup = Definition(
        "public", "categories", keys="SELECT 1", reads=(("public", "storefronts"), ("public", "listings"))
    )
    holes = uncovered(
        shop.conn, "SELECT id AS document_id, to_jsonb(title) AS document FROM listings", {0: LISTINGS, 1: lookup},
        local={"search_path": "public"},
    )  # fmt: skip
    assert holes == (Uncovered(Hole.UNWATCHED, "storefronts", watch=2),)
    assert holes[0].reader == "the keys query of watch 2"


def test_an_index_that_its_application_feeds_has_nothing_to_cover(shop):
    assert uncovered(shop.conn, "SELECT 1 AS document_id", {}, local={}) == ()


def test_a_look_leaves_nothing_and_waits_for_no_migration(shop):
    before = shop.conn.execute("SELECT count(*) FROM pg_class").fetchone()
    document = "SELECT id AS document_id, to_jsonb(title) AS document FROM listings"
    found(shop, document)
    assert shop.conn.execute("SELECT count(*) FROM pg_class").fetchone() == before
    other = shop.connect()
    with other.transaction():
        other.execute("LOCK TABLE public.listings")
        with pytest.raises(PostgresRefused) as caught:
            found(shop, document)
    assert caught.value.sqlstate == "55P03"
    assert found(shop, document) == []


def test_a_role_that_may_make_no_view_is_told(shop, unique_name):
    shop.sql(f"CREATE ROLE {unique_name}", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {unique_name}")
    shop.sql("REVOKE TEMPORARY ON DATABASE " + shop.conn.raw.info.dbname + " FROM PUBLIC")
    try:
        shop.sql(f"SET ROLE {unique_name}")
        with pytest.raises(introspect.CannotLook):
            found(shop, "SELECT id AS document_id, to_jsonb(title) AS document FROM listings")
    finally:
        shop.sql("RESET ROLE", f"DROP OWNED BY {unique_name}", f"DROP ROLE {unique_name}")


@pytest.mark.parametrize("without", ["- 'views_count'", "- '{title, views_count}'::text[]", "- ARRAY['views_count']"])
def test_an_ignored_column_that_is_taken_out_of_a_whole_row_is_no_alarm(shop, without):
    """As README has it; whether it really is taken out cannot be seen, so it stays something to look at."""
    whole = "SELECT l.id AS document_id, to_jsonb(l) {} AS document FROM listings l"
    holes = [
        uncovered(shop.conn, whole.format(taken), {0: LISTINGS}, local={"search_path": "public"})
        for taken in (without, "", "- 'views_counted'")
    ]
    assert [[one.sure for one in each] for each in holes] == [[False], [True], [True]]
