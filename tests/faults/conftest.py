"""Fixtures that these tests share."""

from support.fixtures import items, items_template, many, stops, untriggered  # noqa: F401 - pytest finds them by name here
