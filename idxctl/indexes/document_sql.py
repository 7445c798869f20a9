"""
The query that has PostgreSQL write the lines of a bulk body: the document's own SQL, wrapped. Pure.

The definition's search path is the application's, for its document query and routing alone. All that we put around them is
in the same statement, and so names pg_catalog for every function, operator and type: see `idxctl.postgres.connect`.
"""

from __future__ import annotations

from psycopg import sql

from idxctl.indexes.definitions import Definition, rows_of
from idxctl.indexes.key_sql import id_text

LARGE_BYTES = 256 * 1024  # a document of more is a message of its own in any case
_AND = sql.SQL("OPERATOR(pg_catalog.||)")


def lines(definition: Definition, condition: sql.Composable, token: int | None) -> sql.Composed:
    """Return the query for two columns: the id as a JSON string, and the document's lines."""
    ident = id_text(definition)
    body: sql.Composable = sql.SQL("d.document::pg_catalog.text")
    if definition.document_type == "json":  # may hold raw line breaks between tokens; inside strings they are escaped
        body = sql.SQL("pg_catalog.translate(d.document::pg_catalog.text, E'\\n\\r', '  ')")
    name: sql.Composable = sql.SQL("pg_catalog.to_json({})").format(ident)
    routing = _routing_over(definition, ident) if definition.routing is not None else None
    if token is None and routing is not None:
        name = sql.SQL("pg_catalog.json_build_array({}, ({})::pg_catalog.text)").format(ident, routing)
    if token is not None:
        route: sql.Composable = sql.SQL("''")
        if routing is not None:
            route = sql.SQL(
                "coalesce(',\"routing\":' OPERATOR(pg_catalog.||) "
                "pg_catalog.to_json(({})::pg_catalog.text)::pg_catalog.text, '')"
            ).format(routing)
        # external_gte and not external: the same token may reach a document twice, after an unknown outcome.
        body = sql.SQL(
            """'{{"index":{{"_id":' {and_} pg_catalog.to_json({ident})::pg_catalog.text """
            """{and_} {version} {and_} {routing} {and_} E'}}}}\\n' {and_} {body}"""
        ).format(
            and_=_AND,
            ident=ident,
            version=sql.Literal(f',"version":{token},"version_type":"external_gte"'),
            routing=route,
            body=body,
        )
    return sql.SQL(
        "SELECT {name}::pg_catalog.text AS k, {body} {and_} E'\\n' AS t FROM {rows} WHERE {condition}"
    ).format(name=name, body=body, and_=_AND, rows=rows_of(definition), condition=condition)


def grouped(lines: sql.Composed, group: int) -> sql.Composed:
    """
    Return *lines* with *group* rows in one, and in a third column the names of those too large for that.

    The window keeps the planner from rendering a document twice, once to test it for NULL.
    """
    if group == 1:
        return sql.SQL("SELECT '[' {and_} k {and_} ']', t, NULL::pg_catalog.text FROM ({lines}) AS l").format(
            and_=_AND, lines=lines
        )
    return sql.SQL(
        "SELECT '[' {and_} pg_catalog.string_agg(k, ',') FILTER (WHERE n.small) {and_} ']', "
        "pg_catalog.string_agg(t, '') FILTER (WHERE n.small), "
        "'[' {and_} pg_catalog.string_agg(k, ',') FILTER (WHERE NOT n.small) {and_} ']' "
        "FROM (SELECT k, t, pg_catalog.octet_length(t) OPERATOR(pg_catalog.<=) {large} AS small, "
        "(pg_catalog.row_number() OVER () OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog./) {group} AS g "
        "FROM ({lines}) AS l) AS n GROUP BY g"
    ).format(and_=_AND, large=sql.Literal(LARGE_BYTES), group=sql.Literal(group), lines=lines)


def _routing_over(definition: Definition, ident: sql.Composable) -> sql.Composed:
    """Return the routing expression over nothing but document_id (T7)."""
    assert definition.routing is not None
    typed = ident if definition.composite else sql.SQL("d.{}").format(sql.Identifier(definition.key[0]))
    return sql.SQL("SELECT ({expression}\n) FROM (SELECT {ident} AS document_id) AS r").format(
        expression=sql.SQL(definition.routing),
        ident=typed,
    )
