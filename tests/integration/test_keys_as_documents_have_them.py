"""A key that SQL makes reads as the document's id does, whatever the writer's and the worker's sessions are set to."""

from __future__ import annotations

import pytest

from idxctl.capture.status import status
from support.rig import Rig

ID = "concat_ws('|', {0}.at, {0}.at::date, {0}.span, {0}.raw, {0}.f, {0}.price, to_char({0}.at, 'HH24'))"
SCHEMA = """
CREATE TABLE logs (id int PRIMARY KEY, at timestamptz, span interval, raw bytea, f float8, price money, body text);
CREATE TABLE notes (log int, body text);
INSERT INTO logs SELECT i, '2024-01-31 20:00+00'::timestamptz + i * interval '1 hour', '-1 day 02:03:04', '\\x00ff', 0.1::float8 + 0.2, i, 'a'
FROM generate_series(1, 5) i;
"""
DOCUMENT = f"""
SELECT {ID.format("l")} AS document_id,
    jsonb_build_object('name', l.body, 'parts', (SELECT jsonb_agg(n.body) FROM notes n WHERE n.log = l.id)) AS document
FROM logs l
"""
RENDERED = {
    "TimeZone": "Asia/Kolkata", "DateStyle": "German", "IntervalStyle": "sql_standard", "extra_float_digits": "-3",
    "bytea_output": "escape",
}  # fmt: skip
WATCHES = f"""
[indexes.NAME.settings]
{chr(10).join(f'{name} = "{value}"' for name, value in RENDERED.items())}

[[indexes.NAME.watch]]
table = "logs"
key_sql = '''{ID.format("logs")}'''

[[indexes.NAME.watch]]
table = "notes"
keys = '''SELECT {ID.format("l")} FROM logs l JOIN changed c ON c.log = l.id'''
"""


@pytest.fixture
def logs(items: Rig) -> Rig:
    items.sql(SCHEMA)
    toml = items.config.read_text()
    head = toml[: toml.index("[[indexes.")]
    items.configure(document=DOCUMENT, toml=head + WATCHES.replace("NAME", items.index))
    items.watch()
    items.reindex()
    items.watch()  # documents are rendered under other settings now
    return items


def test_the_document_of_a_key_made_of_times_and_floats_is_found(logs: Rig):
    for odd in (
        "TimeZone = 'America/Lima'",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = iso_8601",
        "extra_float_digits = 1",
    ):
        logs.sql(f"SET {odd}")
    logs.sql("UPDATE logs SET body = 'b' WHERE id = 1")
    logs.sql("INSERT INTO notes VALUES (2, 'x')")
    logs.sql("UPDATE logs SET at = at + interval '1 day' WHERE id = 3")
    logs.sql("DELETE FROM logs WHERE id = 4")
    logs.sql("INSERT INTO logs SELECT 9, at, span, raw, f, 9, 'new' FROM logs WHERE id = 5")
    logs.drain()
    for name, value in RENDERED.items():  # for who compares
        logs.sql(f"ALTER DATABASE {logs.application.info.dbname} SET {name} = '{value}'")
    assert logs.differences() == []
    logs.sql("ALTER TABLE logs DISABLE TRIGGER USER; UPDATE logs SET body = 'unseen' WHERE id = 2")
    logs.watch()  # and a coarse task
    logs.drain()
    assert logs.differences() == []
    assert logs.one("SELECT current_setting('TimeZone')") == "America/Lima"  # the writer's own stay as they were


def test_a_rebuild_under_other_settings_makes_the_triggers_outdated_until_they_are_installed(logs: Rig):
    assert {one.state for one in status(logs.conn, logs.settings.indexes)} == {"ok"}
    logs.configure(toml=logs.config.read_text().replace("Asia/Kolkata", "America/Lima"))
    assert {one.state for one in status(logs.conn, logs.settings.indexes)} == {"ok"}  # documents are as they were
    logs.reindex()
    assert {one.state for one in status(logs.conn, logs.settings.indexes)} == {"outdated", "ok"}
    logs.watch()
    assert {one.state for one in status(logs.conn, logs.settings.indexes)} == {"ok"}


def test_settings_that_this_server_has_not_any_more_fail_no_write(logs: Rig):
    """As after a restore on another machine: what a statement changed is unknown then."""
    logs.sql(
        "UPDATE opensearch_indexing_generations SET definition = jsonb_set(definition, '{local,lc_time}', '\"xx_XX\"')"
    )
    logs.watch()
    logs.sql("UPDATE logs SET body = 'b' WHERE id = 1")
    assert logs.one("SELECT payload ->> 'coarse' FROM opensearch_indexing_queue") == "22023"
