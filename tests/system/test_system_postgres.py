"""What only a PostgreSQL of the system can do: the one from the package is built without ICU. Needs Debian's postgresql."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from idxctl.embedded.postgres import Postgres
from support.capture import Captured

pytestmark = pytest.mark.system

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: int(one.parent.name))


@pytest.fixture
def db(tmp_path, migrate):
    if not PROGRAMS:
        pytest.fail("no PostgreSQL on this machine: apt-get install postgresql")
    with Postgres(tmp_path / "postgres", bin=PROGRAMS[-1], fsync=False) as server:
        migrate(server.url)
        captured = Captured(server.url)
        yield captured
        captured.conn.close()


def test_a_composite_key_of_a_collation_that_calls_different_texts_equal(db):
    db.sql(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE docs (a text COLLATE ci, b int, v int, PRIMARY KEY (a, b))",
    )
    db.watch({"table": "docs", "key": ("a", "b"), "ignore": ("v",)}, key=("a", "b"))
    assert db.after("INSERT INTO docs VALUES ('A:', 1, 1), ('b', 2, 1)") == Counter(["A%3A:1", "b:2"])
    assert db.after("UPDATE docs SET a = lower(a)") == Counter(["A%3A:1", "a%3A:1"])
