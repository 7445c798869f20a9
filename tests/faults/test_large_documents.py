"""Documents of 20 MB among small ones: bodies are bounded by bytes while they are read, and memory with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from psycopg import sql

from idxctl.indexes import render
from support.rig import ITEMS_MAPPING, Rig

MEASURED = Path(__file__).parent.parent / "support" / "measured.py"
LARGE, SIZE = 8, 20_000_000
MOST_MB = 350  # a process that held them all would have a gigabyte


def test_large_documents_among_small_ones_are_never_held_together(items: Rig):
    properties = {
        **ITEMS_MAPPING["mappings"]["properties"],
        "blob": {"type": "keyword", "index": False, "doc_values": False},
    }
    items.configure(mapping={**ITEMS_MAPPING, "mappings": {"dynamic": "strict", "properties": properties}})
    items.reindex()
    items.sql("INSERT INTO items (id, name) SELECT i, 'small' FROM generate_series(1001, 1500) i")
    for number in range(LARGE):  # side by side, in the middle of the others
        blob = "jsonb_build_object('blob', repeat(md5(%s::text), %s::int))"
        items.sql(f"UPDATE items SET extra = {blob} WHERE id = %s", number, SIZE // 32, 1030 + number)
    environ = {**os.environ, "IDXCTL_DATABASE_URL": items.database, "IDXCTL_OPENSEARCH_URL": items.opensearch}
    command = [sys.executable, MEASURED, "--config", items.config, "worker", "start", "--until-empty", "--workers", "5"]
    done = subprocess.run(command, check=False, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) // 1024 < MOST_MB
    assert items.letters() == {}
    assert items.one("SELECT count(*) FROM opensearch_indexing_queue") == 0
    for number in range(LARGE):
        assert items.document(1030 + number)["blob"] == items.one(
            "SELECT repeat(md5(%s::text), %s::int)", number, SIZE // 32
        )
    items.ask("POST", f"/{items.index}/_refresh")
    assert items.ask("GET", f"/{items.index}/_count")["count"] == 520


def test_a_large_document_among_small_ones_comes_in_a_message_of_its_own(items: Rig):
    items.sql("UPDATE items SET extra = jsonb_build_object('blob', repeat('x', 300000)) WHERE id BETWEEN 5 AND 8")
    found = list(render.stream(items.conn, items.generation().definition, sql.SQL("true"), token=1, group=64))
    assert sorted(len(lines.ids) for lines in found) == [1, 1, 1, 1, 16]
    assert {one for lines in found for one in lines.ids} == {str(one) for one in range(1, 21)}
