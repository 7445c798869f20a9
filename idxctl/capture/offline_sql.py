"""What `install` would do, as a script for the owner of the tables or a DBA to read and run."""

from __future__ import annotations

from collections.abc import Sequence

from idxctl.capture.catalog import SQL, literal, quoted, require_tables, thrown_away
from idxctl.capture.diff import Addition, RowChanges, TriggerChanges, row_changes, tables_of, trigger_changes
from idxctl.capture.install import addition_values, in_force, refuse_captured_elsewhere, statements
from idxctl.capture.plan import CapturePlan
from idxctl.capture.watches import installed_watches
from idxctl.postgres.connect import Connection

_LOCK_TIMEOUT = "2s"

_NOTES = """\
-- Capture triggers of idxctl, for the owner of the tables or a DBA.
--
-- Locks. CREATE TRIGGER and ENABLE ALWAYS TRIGGER take SHARE ROW EXCLUSIVE on the table: reads go on, writes wait until
-- COMMIT. DROP TRIGGER takes ACCESS EXCLUSIVE: reads wait as well. No table is scanned or rewritten; the whole takes
-- milliseconds once the locks are had. While it waits for one, later writers queue behind it: hence lock_timeout below.
-- If that strikes, run the script again at a quieter moment; nothing has been changed. The old triggers, if there are any,
-- are in force until COMMIT, so no change is lost.
--
-- Rights. The functions are SECURITY DEFINER, with a fixed search_path: the application needs no rights on the queue.
-- They belong to the owner of idxctl's tables, so that later changes of the configuration need no owner of yours.
--
-- Not captured, since PostgreSQL fires nothing: ATTACH, DETACH and DROP of a partition, ALTER TABLE ... TYPE, refreshes of
-- materialized views, sessions with the triggers disabled. idxctl queue add --where enqueues what such a step touched.
"""


def sql(conn: Connection, plan: CapturePlan, indexes: Sequence[str]) -> str:
    """
    Return the script; it does what `install` would do now, and leaves nothing to do for it.

    Nothing is changed but the sequence of the watches' numbers, from which the new ones are drawn.
    """
    require_tables(conn)
    stored = installed_watches(conn)
    rows = row_changes(stored, plan.watches, indexes)
    numbers = [_next_number(conn) for _ in rows.added]
    watches = (*rows.kept, *(in_force(each, number) for each, number in zip(rows.added, numbers, strict=True)))
    planned = {table.key for table in plan.tables}
    others = tables_of(conn, [watch for watch in watches if watch.definition.table not in planned])
    with thrown_away(conn):
        todo = trigger_changes(conn, watches, (*plan.tables, *others))
    refuse_captured_elsewhere(conn, todo)
    if not rows.any and not todo.any:
        return "-- Nothing to do: the triggers are as configured.\n"
    parts = [
        _NOTES
        + _to_be_run_by(conn, todo)
        + "".join(f"-- Warning: {_one_line(warning)}.\n" for warning in plan.warnings),
        f"BEGIN;\nSET LOCAL lock_timeout = '{_LOCK_TIMEOUT}';",
        "\n".join(_rows(conn, rows, numbers)),
        "\n\n".join(f"{statement};" for statement in [*statements(todo, always=True), *_owners(conn, todo)]),
        "\n".join(f"DROP FUNCTION {quoted(conn.schema)}.{quoted(each.name)}();" for each in todo.orphans),
        "COMMIT;",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _next_number(conn: Connection) -> int:
    return int(conn.value(SQL["next_watch"], watches=f"{quoted(conn.schema)}.opensearch_indexing_watches"))


def _rows(conn: Connection, rows: RowChanges, numbers: Sequence[int]) -> list[str]:
    table = f"{quoted(conn.schema)}.opensearch_indexing_watches"
    lines = []
    if rows.ended:
        ids = ", ".join(str(watch.id) for watch in rows.ended)
        lines.append(f"UPDATE {table} SET removed_at = clock_timestamp() WHERE id IN ({ids}) AND removed_at IS NULL;")
    # Two watches may change places: by way of places that nothing holds.
    lines += [f"UPDATE {table} SET position = {-1 - place} WHERE id = {number};" for number, place in rows.moved]
    lines += [f"UPDATE {table} SET position = {place} WHERE id = {number};" for number, place in rows.moved]
    return lines + [_insert(table, each, number) for each, number in zip(rows.added, numbers, strict=True)]


def _insert(table: str, addition: Addition, number: int) -> str:
    given = addition_values(addition)
    watermark = literal(given["watermark"].isoformat()) if given["watermark"] else "now()" if given["at"] else "NULL"
    return (
        f"INSERT INTO {table}\n"
        "    (id, index_name, position, table_schema, table_name, definition, fingerprint, at_watermark)\n"
        f"OVERRIDING SYSTEM VALUE VALUES ({number}, {literal(given['index'])}, {given['position']}, "
        f"{literal(given['schema'])}, {literal(given['table'])},\n"
        f"    {literal(given['definition'])},\n"
        f"    {literal(given['fingerprint'])}, {watermark});"
    )


def _owners(conn: Connection, todo: TriggerChanges) -> list[str]:
    """C5: the functions run with the rights of whoever owns the queue, not with those of the DBA who made them."""
    owner = _queue_owner(conn)
    gap = f"ALTER SEQUENCE {quoted(conn.schema)}.opensearch_indexing_gap OWNER TO {owner}"
    return [gap for _ in todo.functions[:1]] + [
        f"ALTER FUNCTION {function.qualified}() OWNER TO {owner}" for function in todo.functions
    ]


def _queue_owner(conn: Connection) -> str:
    return str(conn.value(SQL["queue_owner"], queue=f"{quoted(conn.schema)}.opensearch_indexing_queue"))


def _to_be_run_by(conn: Connection, todo: TriggerChanges) -> str:
    """Name the owners that PostgreSQL will ask for."""
    owners = {each.member.owner for each in todo.missing} | {each.owner for each in todo.extra} | {_queue_owner(conn)}
    return f"--\n-- To be run by a superuser, or by a role that is a member of each of: {', '.join(_one_line(owner) for owner in sorted(owners))}.\n"


def _one_line(text: str) -> str:
    """Names of others stand in comments: a line of its own would be a statement, run by a DBA."""
    return " ".join(text.split())
