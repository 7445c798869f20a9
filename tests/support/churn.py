"""Changes of every kind to every table of a schema, at random and from a seed: what an application might do, and what nobody would."""

from __future__ import annotations

import random

import psycopg
from psycopg import sql

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, NULL), a.attgenerated <> '' AS generated,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY (i.indkey)) AS key
FROM pg_attribute a WHERE a.attrelid = %s::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_TABLES = """
SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'idxctl')
ORDER BY n.nspname, c.relname
"""


def churn(connection: psycopg.Connection, changes: int, seed: int) -> int:
    """
    Make about so many changes, each a transaction of its own; returns how many were no error.

    A value is another row's, NULL, or of a text its reverse; a key is another row's or a new one; rows are deleted and copied.
    """
    chance = random.Random(seed)
    tables = connection.execute(_TABLES).fetchall()
    columns = {oid: connection.execute(_COLUMNS, (oid,)).fetchall() for oid, _, _ in tables}
    made = 0
    for _ in range(changes):
        oid, schema, name = chance.choice(tables)
        table = sql.Identifier(schema, name)
        statement = _statement(chance, table, columns[oid])
        try:
            with connection.transaction():
                made += connection.execute(statement).rowcount > 0
        except psycopg.Error:
            continue  # a constraint says no: it is not what is tested here
    return made


def _statement(chance: random.Random, table: sql.Identifier, columns: list) -> sql.Composed:
    some = sql.SQL("(SELECT ctid FROM {table} OFFSET floor({x} * (SELECT count(*) FROM {table})) LIMIT {n})").format(
        table=table, x=sql.Literal(chance.random()), n=sql.Literal(chance.choice([1, 1, 1, 3]))
    )
    kind = chance.random()
    if kind < 0.1:
        return sql.SQL("DELETE FROM {table} WHERE ctid IN {some}").format(table=table, some=some)
    if kind < 0.3:
        return _copy(chance, table, columns, some)
    name, of, _, _ = chance.choice([one for one in columns if not one[2]])
    column = sql.Identifier(name)
    other = sql.SQL("(SELECT {column} FROM {table} OFFSET floor({x} * (SELECT count(*) FROM {table})) LIMIT 1)").format(
        column=column, table=table, x=sql.Literal(chance.random())
    )
    value = sql.SQL("NULL") if chance.random() < 0.15 else other
    if of in {"text", "character varying"} and chance.random() < 0.7:
        value = sql.SQL("reverse({}) || {}").format(column, sql.Literal(chance.randint(0, 9)))
    return sql.SQL("UPDATE {table} SET {column} = {value} WHERE ctid IN {some}").format(
        table=table, column=column, value=value, some=some
    )


def _copy(chance: random.Random, table: sql.Identifier, columns: list, some: sql.Composed) -> sql.Composed:
    """Copy rows under a new key, as far as its type lets one be made."""
    names, values = [], []
    for name, of, generated, key in columns:
        if generated:
            continue
        names.append(sql.Identifier(name))
        new = key and chance.random() < 0.8
        if new and of in {"integer", "bigint", "smallint"}:
            values.append(sql.SQL("{} + {}").format(sql.Identifier(name), sql.Literal(chance.randint(1, 60))))
        elif new and of == "uuid":
            values.append(sql.SQL("gen_random_uuid()"))
        else:
            values.append(sql.Identifier(name))
    return sql.SQL("INSERT INTO {table} ({names}) SELECT {values} FROM {table} WHERE ctid IN {some}").format(
        table=table, names=sql.SQL(", ").join(names), values=sql.SQL(", ").join(values), some=some
    )
