"""An id that cannot be one of its index's key has no row and no document: it is settled, and nothing else hears of it."""

from __future__ import annotations

import psycopg
import pytest

from idxctl.core import keys
from idxctl.indexes import ids
from idxctl.indexes.definitions import Definition
from idxctl.indexes.ids import possible_ids
from support.rig import Rig

KEYS = {
    "smallint": (["7", "-3", " 7"], ["x", "", "1.5", "99999", "1e3", "seven"]),
    "integer": (["7", "+7"], ["2147483648", "--1", "٣", "7;"]),
    "bigint": (["9223372036854775807"], ["9223372036854775808", "9" * 5000, "0x", "no-number", "7 7"]),
    "uuid": (
        ["018f2f7e-0000-7000-8000-000000000000", "{018F2F7E-0000-7000-8000-000000000000}"],
        ["018f2f7e-0000-7000-8000-00000000000", "x" * 32, "7"],
    ),
    "boolean": (["true", "f", "on"], ["maybe", "2"]),
    "date": (["2024-02-29", "0044-03-15 BC", "infinity", "12024-01-01"], ["2024-13-01", "yesterdays", "x"]),
    "text": (["", "anything", "\x7f é €"], []),
    "mood": (["sad", "so so"], ["glad", "Sad"]),
}


@pytest.mark.parametrize("of", KEYS)
def test_ids_are_sifted_by_the_type_of_the_key(items: Rig, of: str, monkeypatch):
    items.sql("CREATE TYPE mood AS ENUM ('sad', 'so so')")
    possible, impossible = KEYS[of]
    query = "SELECT 1 AS document_id, '{}'::json AS document"
    definition = Definition(query, ("document_id",), (of,), "json", local={"search_path": "public"})
    asked = [one for pair in zip(possible, [*impossible, *possible], strict=False) for one in pair]
    asked = list(dict.fromkeys([*asked, *impossible]))
    assert set(possible_ids(items.conn, definition, asked)) == set(possible)
    monkeypatch.setattr(ids, "_ASKS_WITHOUT_ERROR", 10**9)  # as before PostgreSQL 16
    assert set(possible_ids(items.conn, definition, asked)) == set(possible)


def test_parts_of_a_composite_key_are_sifted_each(items: Rig):
    definition = Definition("SELECT 1", ("a", "b"), ("integer", "uuid"), "json")
    good = "7:018f2f7e-0000-7000-8000-000000000000"
    asked = [good, "x:018f2f7e-0000-7000-8000-000000000000", "7:7", "7", good + ":1"]
    assert possible_ids(items.conn, definition, asked) == [good]


def test_five_hundred_ids_that_are_no_keys_are_settled_among_the_others(items: Rig):
    items.sql("UPDATE items SET name = name || '!'")
    items.sql("SELECT opensearch_indexing_enqueue(%s, 'no-' || i) FROM generate_series(1, 500) i", items.index)
    items.sql("UPDATE items SET name = name || '?'")
    ran: list[str] = []
    execute = psycopg.Connection.execute

    def counted(self, query, *rest, **more):
        ran.append(str(query))
        return execute(self, query, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", counted)
        worker = items.drain(workers=1)
    assert worker.counters.batches <= 3
    assert len(ran) < 120, "statements grow with the number of such ids"
    assert items.letters() == {}
    assert items.sql("SELECT * FROM opensearch_indexing_pauses") == []
    assert items.differences() == []


def test_ids_that_are_no_keys_are_deleted_where_an_index_holds_them(items: Rig):
    name = items.generation().name
    items.ask("PUT", f"/{name}/_doc/stranger?version=1&version_type=external&refresh=true", {"name": "left by another"})
    items.enqueue("stranger")
    items.drain()
    assert items.document("stranger") is None
    assert items.letters() == {}


def test_every_id_that_postgresql_takes_fits():
    for of, (possible, _) in KEYS.items():
        assert all(keys.fits(one, of) for one in possible)
