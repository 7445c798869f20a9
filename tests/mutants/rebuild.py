"""What a reindex rests on, left out: aliases, letters, copies, the check before the swap."""

from __future__ import annotations

from mutants.anchors import Code, Mutant, Words

MUTANTS = (
    Mutant(
        "G5: aliases move without what they carry",
        ("tests/integration/test_reindex_aliases.py::test_every_alias_comes_along_with_all_that_it_carries",),
        (Code('{"index": new, "alias": name, **more}', '{"index": new, "alias": name}'),),
    ),
    Mutant(
        "G5: aliases are those of the start, not of the swap",
        (
            "tests/integration/test_reindex_aliases.py::test_what_is_put_on_the_live_index_while_another_is_built_comes_along_too",
        ),
        (Code("held = aliases.standing(client, behind) or {}", "held = {index: {}}"),),
    ),
    Mutant(
        "G5: an index that an alias stands on is deleted",
        ("tests/integration/test_reindex_aliases.py::test_a_retired_index_that_an_alias_stands_on_is_kept_and_said",),
        (
            Code(
                """
                if here(not held):
                    delete(client, name)
            """,
                "True",
            ),
        ),
    ),
    Mutant(
        "G5: aliases that came with a new index stay on it",
        (
            "tests/integration/test_reindex_aliases.py::test_a_template_that_came_meanwhile_is_found_when_the_index_is_made",
        ),
        (Code("require_bare(client, plan)", ""),),
    ),
    Mutant(
        "T5: a rebuild heals letters of what it refused",
        ("tests/integration/test_reindex_aliases.py::test_letters_of_what_the_rebuild_refused_and_newer_ones_stay",),
        (
            Code(
                'return write_letters(conn, REBUILD["failures_to_letters"], index=new.index, generation=new.id)',
                """
                conn.run(REBUILD["drop_failures"], generation=new.id)
                return 0
            """,
            ),
        ),
    ),
    Mutant(
        "T5: what the generation before lacked is forgotten with its letters",
        (
            "tests/integration/test_rollback.py::test_letters_that_the_rebuild_healed_are_remembered_of_the_generation_before",
        ),
        (Code('conn.run(SQL["letters_to_failures"], index=new.index, generation=old.id)', ""),),
    ),
    Mutant(
        "after a rollback an old refresh is searched",
        ("tests/integration/test_rollback.py::test_what_the_standby_holds_is_searched_at_once",),
        (Code("aliases.refresh(client, wanted.to.name)", ""),),
    ),
    Mutant(
        "a standby is retired while it is brought back",
        (
            "tests/integration/test_rollback.py::test_a_standby_whose_time_is_over_is_not_retired_while_it_is_brought_back",
        ),
        (
            Words(
                "AND (intent IS NULL OR (intent ->> 'at')::timestamptz < clock_timestamp() - interval '10 minutes')",
                "",
            ),
        ),
    ),
    Mutant(
        "G4: a rollback that was made and not recorded is forgotten",
        ("tests/faults/test_rollback_killed.py::test_killed_rollback_is_brought_to_its_end_by_the_same_command",),
        (Code("live is None or aliases.targets(client, index) != [to.name]", "True"),),
    ),
    Mutant(
        "T5: a letter written again since it was looked at is healed",
        (
            "tests/integration/test_reindex_aliases.py::test_letters_that_came_during_the_build_are_healed_where_the_new_generation_took_the_document",
        ),
        (Words("WHERE p.id = l.id AND p.token = l.token)", "WHERE p.id = l.id)"),),
    ),
    Mutant(
        "a swap does not wait for replicas that have a place",
        (
            "tests/integration/test_reindex_settings.py::test_a_swap_waits_for_replicas_that_have_a_place_and_have_not_begun",
        ),
        (
            Code(
                """
                if here(can):
                    return __
            """,
                "False",
            ),
        ),
    ),
    Mutant(
        "writes to a new index wait for copies that are not there yet",
        ("tests/integration/test_reindex_settings.py::test_an_index_that_could_take_no_write_is_not_put_into_service",),
        (Code("found.fewest < needed", "False"),),
    ),
    Mutant(
        "a reindex over a broken live query takes any difference for lag",
        ("tests/integration/test_expand.py::test_what_no_waiting_task_will_mend_keeps_such_a_reindex_from_its_swap",),
        (Code("drift = stuck.not_waiting(conn, generation.index, drift)", "drift = []"),),
    ),
    Mutant(
        "a reindex over a broken live query takes lag for drift",
        ("tests/integration/test_expand.py::test_a_reindex_does_not_wait_for_tasks_that_wait_for_it",),
        (Code("drift = stuck.not_waiting(conn, generation.index, drift)", "pass"),),
    ),
    Mutant(
        "documents are compared by one strict parser",
        ("tests/integration/test_reindex.py::test_texts_that_few_parsers_read_are_compared",),
        (Code("return json.loads(row)", "raise"),),
    ),
    Mutant(
        "a row that breaks the query stops the check of the others",
        (
            "tests/integration/test_reindex.py::test_a_row_that_breaks_the_query_becomes_a_letter_and_the_others_are_checked",
        ),
        (
            Code(
                """
                if reading.is_too_slow(error):
                    ...
                elif here(not reading.is_of_values(error)):
                    raise
            """,
                "token is None or not reading.is_of_values(error)",
            ),
        ),
    ),
)
