"""What `idxctl init` calls things."""

from __future__ import annotations

import pytest

from idxctl.init import words


@pytest.mark.parametrize(
    ("columns", "table", "field"),
    [
        (("category_id",), "categories", "category"),
        (("brandId",), "Brand", "brand"),
        (("id",), "people", "people"),
        (("billing_address_id",), "addresses", "billing_address"),
        (("tenant", "wh"), "warehouses", "warehouse"),
        (("owner",), "users", "owner"),
    ],
)
def test_a_lookup_is_called_like_its_foreign_key(columns, table, field):
    assert words.field_of_lookup(columns, table) == field


@pytest.mark.parametrize(
    ("child", "parent", "field"),
    [
        ("listing_images", "listings", "images"),
        ("listings_tags", "listings", "tags"),
        ("category_translation", "categories", "translations"),
        ("CourseText", "Course", "Texts"),
        ("reviews", "listings", "reviews"),
        ("product_media", "products", "media"),
        ("listingly", "listings", "listinglies"),
    ],
)
def test_children_are_called_without_their_parent(child, parent, field):
    assert words.field_of_children(child, parent, single=False) == field


def test_one_child_is_called_in_the_singular():
    assert words.field_of_children("user_profiles", "users", single=True) == "profile"


@pytest.mark.parametrize(
    ("table", "taken", "alias"),
    [
        ("listing_images", (), "li"),
        ("CourseText", (), "ct"),
        ("categories", ("c",), "c2"),
        ("order_rows", (), "or2"),  # a word that SQL keeps for itself
        ("äpfel", (), "t"),
    ],
)
def test_aliases_are_short_and_no_words_of_sql(table, taken, alias):
    assert words.alias(table, taken) == alias


@pytest.mark.parametrize(
    ("table", "index"),
    [
        ("listings", "listings"),
        ("PlaceNotes", "place_notes"),
        ("Place Notes", "place_notes"),
        ("_x", "x"),
        ("Ž", "documents"),
    ],
)
def test_an_index_has_a_name_that_opensearch_takes(table, index):
    assert words.index_name(table) == index
