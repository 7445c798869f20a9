"""Changes made while triggers were off are captured by nobody; what puts the triggers right has everything looked at again."""

from __future__ import annotations

import pytest

from idxctl.capture.status import status
from support.rig import Rig

OFF = {
    "disabled and enabled again": ("ALTER TABLE items DISABLE TRIGGER ALL", "ALTER TABLE items ENABLE TRIGGER ALL"),
    "still disabled": ("ALTER TABLE items DISABLE TRIGGER USER", ""),
    "one of them": ("ALTER TABLE items DISABLE TRIGGER opensearch_indexing_update", ""),
}


@pytest.mark.parametrize("how", OFF)
def test_what_was_written_meanwhile_is_in_the_index_after_an_installation(items: Rig, how: str):
    off, on = OFF[how]
    if "opensearch_indexing_update" in off:
        name = items.one(
            "SELECT min(tgname) FROM pg_trigger WHERE tgrelid = 'items'::regclass AND tgname LIKE 'opensearch%%update%%'"
        )
        off = off.replace("opensearch_indexing_update", name)
    items.sql(off)
    items.sql("UPDATE items SET price = '77' WHERE id < 5")
    if on:
        items.sql(on)
    assert items.queued() == 0
    assert "ok" not in {one.state for one in status(items.conn, items.settings.indexes) if one.table.endswith("items")}
    items.watch()
    items.drain()
    assert items.document(1)["price"] == "77"
    assert items.differences() == []
    assert {one.state for one in status(items.conn, items.settings.indexes)} == {"ok"}


def test_an_installation_that_finds_all_well_asks_for_nothing(items: Rig):
    items.watch()
    assert items.queued() == 0


def test_a_table_swapped_by_rename_is_seen_and_put_right(items: Rig):
    items.sql("CREATE TABLE parts_new (LIKE parts INCLUDING ALL)")
    items.sql("INSERT INTO parts_new SELECT id, item_id, name || ' new' FROM parts")
    items.sql("BEGIN; ALTER TABLE parts RENAME TO parts_old; ALTER TABLE parts_new RENAME TO parts; COMMIT")
    (of_parts,) = [one for one in status(items.conn, items.settings.indexes) if one.table.endswith("parts")]
    assert of_parts.losing
    items.watch()
    items.drain()
    assert items.differences() == []
    items.sql("UPDATE parts SET name = 'later' WHERE item_id = 3")
    items.drain()
    assert items.document(3)["parts"] == ["later"]
