"""reindex rollback and forward: instant, current, each in its own shape; refused where the standby lacks documents; finish ends it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from idxctl.core.errors import IdxctlError, Locked
from idxctl.indexes import generations, retire
from idxctl.opensearch import aliases
from idxctl.rebuild import finish, rollback
from support import judge
from support.rig import ITEMS_DOCUMENT, ITEMS_MAPPING, Rig

FILTER = {"term": {"category": "category 1"}}
NEW_SHAPE = ITEMS_DOCUMENT.replace("'name', i.name", "'name', i.name || ' (new)'")
MAPPINGS = ITEMS_MAPPING["mappings"]
AS_WORD = {
    "settings": ITEMS_MAPPING["settings"],
    "mappings": {**MAPPINGS, "properties": {**MAPPINGS["properties"], "price": {"type": "keyword"}}},
}
DAY = timedelta(days=1)


@pytest.fixture
def cli(idxctl, items: Rig):
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


def turn(rig: Rig, verb: str, *, force: bool = False, keep: timedelta = DAY) -> rollback.Turned:
    wanted = rollback.plan(rig.conn, rig.client, rig.index, verb, force=force)
    return rollback.turn(rig.conn, rig.client, wanted, keep=keep)


def states(rig: Rig) -> dict[int, str]:
    return {one.number: one.state for one in generations.of_index(rig.conn, rig.index)}


def standing(rig: Rig, index: str) -> dict[str, dict]:
    return rig.ask("GET", f"/{index}/_alias")[index]["aliases"]


def equal(rig: Rig, query: str) -> bool:
    """Both generations are current; the alias serves the shape of *query*."""
    rig.drain()
    shapes = {f"{rig.index}-000001": ITEMS_DOCUMENT, f"{rig.index}-000002": NEW_SHAPE, rig.index: query}
    return all(judge.differences(rig.database, shape, rig.opensearch, name) == [] for name, shape in shapes.items())


@pytest.fixture
def twice(items: Rig) -> Rig:
    """Generation 2 of a new shape is live, 1 of the old one its standby."""
    items.configure(document=NEW_SHAPE)
    items.reindex()
    return items


def test_back_and_forward_serve_each_shape_with_every_change(twice: Rig):
    twice.sql("UPDATE items SET name = name || '!' WHERE id <= 7")
    twice.sql("DELETE FROM items WHERE id = 9")
    twice.drain()
    done = turn(twice, "rollback")
    assert (done.generation, done.previous) == (f"{twice.index}-000001", f"{twice.index}-000002")
    assert states(twice) == {1: "live", 2: "standby"}
    assert twice.document(1)["name"] == "item 1!"
    assert equal(twice, ITEMS_DOCUMENT)
    twice.sql("UPDATE items SET name = name || '?' WHERE id <= 12")
    twice.sql("INSERT INTO items (id, name, category_id) VALUES (100, 'late', 1)")
    assert equal(twice, ITEMS_DOCUMENT)
    turn(twice, "forward")
    assert states(twice) == {1: "standby", 2: "live"}
    twice.sql("UPDATE items SET name = name || '.' WHERE id <= 3")
    assert equal(twice, NEW_SHAPE)
    assert twice.letters() == {}


def test_what_the_standby_holds_is_searched_at_once(twice: Rig):
    """An index that nobody searched shows what it held at its last refresh."""
    twice.ask("PUT", f"/{twice.index}-000001/_settings", {"index": {"refresh_interval": "-1"}})
    twice.sql("UPDATE items SET name = 'seen' WHERE id = 4")
    twice.drain()
    turn(twice, "rollback")
    assert twice.ask("GET", f"/{twice.index}/_count?q=name:seen")["count"] == 1


def test_every_alias_goes_along_with_what_it_carries(twice: Rig):
    live = f"{twice.index}-000002"
    actions = [
        {"add": {"index": live, "alias": twice.index, "filter": FILTER, "is_write_index": True}},
        {"add": {"index": live, "alias": f"{twice.index}-public", "filter": FILTER}},
        {"add": {"index": live, "alias": f"{twice.index}-routed", "routing": "1"}},
    ]
    assert twice.ask("POST", "/_aliases", {"actions": actions}) == {"acknowledged": True}
    before = standing(twice, live)
    done = turn(twice, "rollback")
    assert done.aliases == (f"{twice.index}-public", f"{twice.index}-routed")
    assert standing(twice, f"{twice.index}-000001") == before
    assert standing(twice, live) == {}
    turn(twice, "forward")
    assert standing(twice, live) == before


def test_a_filter_that_the_standby_has_no_place_for_is_named(twice: Rig):
    live = f"{twice.index}-000002"
    twice.ask("PUT", f"/{live}/_mapping", {"properties": {"made": {"type": "nested"}}})
    nested = {"nested": {"path": "made", "query": {"match_all": {}}}}
    twice.ask(
        "POST", "/_aliases", {"actions": [{"add": {"index": live, "alias": f"{twice.index}-made", "filter": nested}}]}
    )
    with pytest.raises(IdxctlError, match=f"filter of alias {twice.index}-made"):
        turn(twice, "rollback")
    assert states(twice) == {1: "standby", 2: "live"}


# What a standby lacks -------------------------------------------------------------------------------------------------


def block(rig: Rig, index: str, *, on: bool) -> None:
    assert rig.ask("PUT", f"/{index}/_settings", {"index": {"blocks.write": on or None}}) == {"acknowledged": True}


def test_a_standby_that_is_blocked_is_refused_and_one_that_missed_writes_until_they_are_made_again(twice: Rig, cli):
    block(twice, f"{twice.index}-000001", on=True)
    twice.sql("UPDATE items SET name = 'missed' WHERE id IN (3, 4)")
    twice.drain()
    blocked = cli("reindex", "rollback")
    assert blocked.status == 1
    assert "is blocked: index.blocks.write" in blocked.stderr
    block(twice, f"{twice.index}-000001", on=False)
    refused = cli("reindex", "rollback")
    assert refused.status == 1
    assert "of 2 documents that the live index has it lacks the last write (2 missed): " in refused.stderr
    heal = next(line for line in refused.stderr.splitlines() if line.startswith("hint:")).split()[1:]
    assert heal[:5] == ["idxctl", "queue", "add", "--index", twice.index]
    assert cli(*heal[1:7]).status == 0
    twice.drain()
    done = cli("reindex", "rollback")
    assert done.status == 0, done.stderr
    assert equal(twice, ITEMS_DOCUMENT)


def test_what_was_missed_is_written_again_where_it_is_gone_on_with(twice: Rig):
    block(twice, f"{twice.index}-000001", on=True)
    twice.sql("UPDATE items SET name = 'missed' WHERE id <= 8")
    twice.drain()
    block(twice, f"{twice.index}-000001", on=False)
    with pytest.raises(IdxctlError, match="8 missed") as refused:
        turn(twice, "rollback")
    assert f"idxctl verify --index {twice.index} --generation 1 --repair --wait" in str(refused.value.hint)
    assert turn(twice, "rollback", force=True).tasks == 8
    assert equal(twice, ITEMS_DOCUMENT)


def test_a_generation_is_behind_no_longer_once_it_has_taken_what_it_missed(twice: Rig):
    block(twice, f"{twice.index}-000001", on=True)
    twice.sql("UPDATE items SET name = 'missed' WHERE id = 3")
    twice.drain()
    block(twice, f"{twice.index}-000001", on=False)
    behind = "SELECT count(*) FROM opensearch_indexing_generations WHERE behind_since IS NOT NULL"
    generations.note_caught_up(twice.conn)
    assert twice.one(behind) == 1
    twice.enqueue(3)
    twice.drain()
    generations.note_caught_up(twice.conn)
    assert twice.one(behind) == 0


@pytest.fixture
def looser(items: Rig) -> Rig:
    """Generation 2 takes prices that 1 refuses."""
    items.configure(mapping=AS_WORD)
    items.reindex()
    return items


def test_what_the_standby_refused_is_counted_and_becomes_letters_where_it_is_gone_on_with(looser: Rig, cli):
    looser.sql("UPDATE items SET price = 'a lot' WHERE id <= 3")
    looser.drain()
    assert looser.letters() == {}
    refused = cli("reindex", "rollback", "--index", looser.index)
    assert refused.status == 1
    assert "of 3 documents that the live index has it lacks the last write (3 refused): " in refused.stderr
    assert "mapper_parsing_exception" in refused.stderr
    preview = cli("reindex", "rollback", "--force", "--dry-run", "-o", "json").json
    assert (preview["letters"], preview["tasks"], preview["dry_run"]) == (3, 0, True)
    done = cli("reindex", "rollback", "--force", "-o", "json")
    assert (done.status, done.json["letters"]) == (0, 3), done.stderr
    assert sorted(looser.letters()) == ["1", "2", "3"]
    forward = cli("reindex", "forward", "-o", "json")  # it has them all: nothing is lost, and no letter stays
    assert (forward.status, forward.json["healed"]) == (0, 3), forward.stderr
    assert looser.letters() == {}
    assert looser.differences() == []


def test_letters_that_the_rebuild_healed_are_remembered_of_the_generation_before(items: Rig, cli):
    items.sql("UPDATE items SET price = 'a lot' WHERE id <= 3")
    items.drain()
    assert len(items.letters()) == 3
    items.configure(mapping=AS_WORD)
    items.reindex()
    assert items.letters() == {}
    refused = cli("reindex", "rollback")
    assert "3 refused" in refused.stderr
    items.sql("UPDATE items SET price = '1' WHERE id = 2")
    items.drain()
    assert "2 refused" in cli("reindex", "rollback").stderr
    assert turn(items, "rollback", force=True).letters == 2
    assert sorted(items.letters()) == ["1", "3"]


def test_a_new_generation_that_refuses_much_is_left_with_its_letters_healed(items: Rig, cli):
    """The deployment that people roll back from: its mapping refuses what the old one takes."""
    items.configure(mapping=AS_WORD)
    items.reindex()
    items.configure(mapping=ITEMS_MAPPING)
    items.reindex()
    items.sql("UPDATE items SET price = 'a lot' WHERE id <= 9")
    items.drain()
    assert len(items.letters()) == 9
    done = cli("reindex", "rollback", "-o", "json")
    assert (done.status, done.json["healed"], done.json["letters"]) == (0, 9, 0), done.stderr
    assert items.letters() == {}
    assert items.differences() == []
    assert "9 refused" in cli("reindex", "forward").stderr  # and nobody forgets what it lacks
    assert turn(items, "forward", force=True).letters == 9


def test_a_document_that_both_refuse_is_no_obstacle_and_stays_a_letter(twice: Rig, cli):
    twice.sql("UPDATE items SET price = 'a lot' WHERE id = 5")
    twice.drain()
    done = cli("reindex", "rollback", "-o", "json")
    assert (done.status, done.json["healed"]) == (0, 0), done.stderr
    assert list(twice.letters()) == ["5"]
    assert twice.document(5)["price"] == "1"


def test_a_letter_whose_document_is_not_as_its_row_is_not_healed(twice: Rig):
    twice.sql("UPDATE items SET price = 'a lot' WHERE id = 5")
    twice.drain()
    twice.sql("DELETE FROM opensearch_indexing_generation_failures")  # as if nobody had noted it
    turn(twice, "rollback")
    assert rollback.heal(twice.conn, twice.client, twice.index) == 0
    assert list(twice.letters()) == ["5"]


# What is refused ------------------------------------------------------------------------------------------------------


def test_without_a_standby_there_is_nothing_to_go_back_to(items: Rig, cli):
    done = cli("reindex", "rollback")
    assert done.status == 1
    assert f"has no standby generation: {items.index}-000001 is live" in done.stderr


def test_a_rollback_that_was_made_is_not_made_twice(twice: Rig, cli):
    assert cli("reindex", "rollback").status == 0
    again = cli("reindex", "rollback")
    assert again.status == 1
    assert f"is rolled back already: {twice.index}-000001 is live" in again.stderr
    assert f"idxctl reindex forward --index {twice.index}" in again.stderr
    assert states(twice) == {1: "live", 2: "standby"}
    assert "the newest already" in (cli("reindex", "forward") and cli("reindex", "forward")).stderr


def test_a_standby_whose_index_is_gone_is_refused(twice: Rig):
    aliases.delete(twice.client, f"{twice.index}-000001")
    with pytest.raises(IdxctlError, match=f"index of standby {twice.index}-000001 is gone"):
        turn(twice, "rollback")


def test_an_alias_that_others_moved_elsewhere_is_left_there(twice: Rig):
    twice.ask("PUT", f"/{twice.index}x")
    aliases.swap(twice.client, twice.index, new=f"{twice.index}x", old=f"{twice.index}-000002")
    with pytest.raises(IdxctlError, match="and not on the live index"):
        turn(twice, "rollback")
    assert list(twice.ask("GET", f"/_alias/{twice.index}")) == [f"{twice.index}x"]


def test_an_alias_moved_back_by_hand_is_recorded_and_the_others_follow(twice: Rig, cli):
    old, new = f"{twice.index}-000001", f"{twice.index}-000002"
    twice.ask("POST", "/_aliases", {"actions": [{"add": {"index": new, "alias": f"{twice.index}-public"}}]})
    aliases.swap(twice.client, twice.index, new=old, old=new, carried={twice.index: {"filter": FILTER}})
    refused = cli("reindex")
    assert refused.status == 4
    assert f"idxctl reindex rollback --index {twice.index}" in refused.stderr
    assert cli("reindex", "rollback").status == 0
    assert states(twice) == {1: "live", 2: "standby"}
    assert standing(twice, old) == {twice.index: {"filter": FILTER}, f"{twice.index}-public": {}}


def test_an_alias_taken_away_right_before_the_call_costs_nothing(twice: Rig, stops):
    new, gone = f"{twice.index}-000002", f"{twice.index}-gone"
    twice.ask("POST", "/_aliases", {"actions": [{"add": {"index": new, "alias": gone}}]})
    stops.do("rollback.intended", lambda: aliases.take_off(twice.client, new, [gone]))
    turn(twice, "rollback")
    assert standing(twice, f"{twice.index}-000001") == {twice.index: {}}


def test_while_a_reindex_is_under_way_it_is_locked(twice: Rig, cli, stops):
    seen = []
    stops.do("reindex.filled", lambda: seen.append(cli("reindex", "rollback")))
    twice.reindex()
    assert seen[0].status == 6
    assert "a reindex of" in seen[0].stderr


def test_two_rollbacks_at_once_are_one(twice: Rig, stops):
    stops.do("rollback.intended", lambda: turn(twice, "rollback"))
    with pytest.raises(Locked, match="put into service, by another process"):
        turn(twice, "rollback")
    assert states(twice) == {1: "live", 2: "standby"}
    acts = twice.one("SELECT count(*) FROM opensearch_indexing_audit WHERE action = 'reindex rollback'")
    assert acts == 1
    assert equal(twice, ITEMS_DOCUMENT)


def test_a_standby_whose_time_is_over_is_not_retired_while_it_is_brought_back(twice: Rig, stops):
    def sweep() -> None:
        twice.sql(
            "UPDATE opensearch_indexing_generations SET standby_until = now() - interval '1 s' WHERE state = 'standby'"
        )
        retire.sweep_up(twice.conn, twice.client, age_limit=timedelta(0))
        with pytest.raises(Locked, match="just being put into service"):
            finish.finish(twice.conn, twice.index, finish.to_finish(twice.conn, twice.client, twice.index))

    stops.do("rollback.intended", sweep)
    turn(twice, "rollback")
    assert states(twice) == {1: "live", 2: "standby"}


def test_a_standby_that_was_retired_meanwhile_is_not_brought_back(twice: Rig):
    wanted = rollback.plan(twice.conn, twice.client, twice.index, "rollback")
    finish.finish(twice.conn, twice.index, finish.to_finish(twice.conn, twice.client, twice.index))
    with pytest.raises(Locked, match="standby no longer"):
        rollback.turn(twice.conn, twice.client, wanted, keep=DAY)
    assert list(twice.ask("GET", f"/_alias/{twice.index}")) == [f"{twice.index}-000002"]


# The command line -----------------------------------------------------------------------------------------------------


def test_json_and_the_audit_say_what_was_done_by_whom_and_why(twice: Rig, cli):
    done = cli("reindex", "rollback", "--reason", "prices are wrong", "--keep", "3d", "-o", "json")
    assert done.status == 0, done.stderr
    found = done.json
    assert set(found) == {
        "index", "verb", "generation", "previous", "standby_until", "aliases", "letters", "tasks", "healed", "seconds", "dry_run",
    }  # fmt: skip
    assert (found["verb"], found["generation"], found["dry_run"]) == ("rollback", f"{twice.index}-000001", False)
    assert twice.one(
        "SELECT standby_until > now() + interval '2 days' FROM opensearch_indexing_generations WHERE state = 'standby'"
    )
    (row,) = cli("audit", "list", "--action", "reindex rollback", "-o", "json").json
    assert (row["what"], row["reason"], row["channel"]) == (twice.index, "prices are wrong", "cli")
    assert row["detail"]["live"] == f"{twice.index}-000001"


def test_a_dry_run_changes_nothing_and_options_before_the_verb_are_refused(twice: Rig, cli):
    assert "would go live in place of" in cli("reindex", "rollback", "--dry-run").stdout
    done = cli("reindex", "--dry-run", "rollback")
    assert done.status == 2
    assert "--dry-run stands before rollback" in done.stderr
    assert states(twice) == {1: "standby", 2: "live"}


def test_finish_asks_and_then_the_index_is_deleted_once_no_late_write_can_come(twice: Rig, cli):
    asked = cli("reindex", "finish")
    assert (asked.status, "--yes" in asked.stderr, f"{twice.index}-000001" in asked.stderr) == (2, True, True)
    assert cli("reindex", "finish", "--dry-run", "-o", "json").json == {
        "index": twice.index, "retired": [f"{twice.index}-000001"], "dry_run": True,
    }  # fmt: skip
    done = cli("reindex", "finish", "--yes", "--reason", "all is well", "-o", "json")
    assert (done.status, done.json["retired"]) == (0, [f"{twice.index}-000001"])
    assert states(twice) == {1: "retired", 2: "live"}
    assert retire.sweep_up(twice.conn, twice.client, age_limit=timedelta(hours=1)) == []
    assert retire.sweep_up(twice.conn, twice.client, age_limit=timedelta(0)) == [f"{twice.index}-000001"]
    assert cli("reindex", "rollback").status == 1
    again = cli("reindex", "finish")
    assert (again.status, "no standby is kept" in again.stdout) == (0, True)
    reasons = [one["reason"] for one in cli("audit", "list", "--action", "reindex finish", "-o", "json").json]
    assert reasons == ["all is well"]


def test_a_standby_that_is_searched_is_not_finished(twice: Rig, cli):
    old = f"{twice.index}-000001"
    twice.ask("PUT", f"/{old}/_alias/{twice.index}-yesterday")
    done = cli("reindex", "finish", "--yes")
    assert done.status == 1
    assert f"DELETE /{old}/_alias/{twice.index}-yesterday" in done.stderr
    assert states(twice)[1] == "standby"
