"""What triggers and their installation rest on, left out."""

from __future__ import annotations

from mutants.anchors import HISTORIES, Code, Mutant

MUTANTS = (
    Mutant(
        "C1: lookups are expanded in the writer's transaction",
        (
            "tests/integration/test_expand.py::test_a_listing_that_moves_into_a_category_while_it_is_renamed_gets_the_new_name",
            HISTORIES,
        ),
        (
            Code("each.definition.user_code and not each.definition.keys", "each.definition.keys"),
            Code(
                """
                if watch.definition.guarded:
                    return self._append_guarded(watch, distinct)
            """,
                r"""
                one = watch.definition
                values = ", ".join(f"{literal(name)}, d.value OPERATOR(pg_catalog.->) {place}" for place, name in enumerate(one.columns))
                record = f"pg_catalog.jsonb_populate_record(NULL::{quoted(one.table_schema)}.{quoted(one.table_name)}, pg_catalog.jsonb_build_object({values}))"
                if one.keys:
                    return (
                        f"INSERT INTO {self._queue} (index_name, document_id, priority, origin)\n"
                        f"SELECT DISTINCT {literal(watch.index)}, k.id::text, 0, 'trigger' FROM (\n"
                        f"WITH changed AS (SELECT r.* FROM {distinct} CROSS JOIN LATERAL {record} AS r)\n{one.keys}) AS k (id) WHERE k.id IS NOT NULL;"
                    )
                if one.guarded:
                    return self._append_guarded(watch, distinct)
            """,
            ),
        ),
    ),
    Mutant(
        "a virtual column is read from the transition table",
        ("tests/integration/test_capture_odd_tables.py::test_a_virtual_column_as_key",),
        (
            Code(
                """
                if here(not one.virtual):
                    return __
            """,
                "True",
            ),
        ),
    ),
    Mutant(
        "an aggregate is taken for a key",
        ("tests/integration/test_capture_odd_tables.py::test_a_key_that_takes_many_rows_together_is_refused",),
        (Code("_require_row_by_row(conn, over, table.name, text, path)", ""),),
    ),
    Mutant(
        "a lookup's columns are stored under the writer's settings",
        (
            "tests/integration/test_capture_odd_tables.py::test_what_a_lookup_stores_does_not_depend_on_the_writers_settings",
        ),
        (Code("settings += _SAME_TEXT", "pass"),),
    ),
    Mutant(
        "a key expression is read under the writer's kind of strings",
        (
            "tests/integration/test_capture_odd_tables.py::test_a_backslash_in_a_key_expression_means_the_same_to_every_writer",
        ),
        (Code('settings.append("SET standard_conforming_strings = on")', "pass"),),
    ),
    Mutant(
        "the triggers of another idxctl are taken",
        (
            "tests/integration/test_capture_odd_tables.py::test_a_table_that_another_idxctl_captures_is_refused_and_stays_captured",
        ),
        (
            Code(
                """
                refuse_captured_elsewhere(conn, todo)
                _apply(conn, todo, __locks)
            """,
                "_apply(conn, todo, __locks)",
            ),
        ),
    ),
    Mutant(
        "a column that is gone by both its names is taken for one without values",
        (
            "tests/integration/test_capture_renames.py::test_a_column_that_is_renamed_and_retyped_is_coarse_and_the_write_goes_through",
        ),
        (Code('condition = f"({here} <> {_RECORD} OR {there} <> {_RECORD})"', 'condition = "true"'),),
    ),
    Mutant(
        "a key that SQL makes is made under the writer's settings",
        (
            "tests/integration/test_keys_as_documents_have_them.py::test_the_document_of_a_key_made_of_times_and_floats_is_found",
        ),
        (Code("return replace(made, written=tuple((name, value) for name, value in rows))", "return made"),),
    ),
)
