"""``idxctl explain``: a document that is missing or stale, each for a reason of its own; the first line names the reason."""

from __future__ import annotations

import json
import socket
import urllib.parse
from collections.abc import Callable

import pytest

from idxctl.doctor import look
from idxctl.doctor.look import Explained
from idxctl.doctor.words import MEANINGS, Kind
from idxctl.queue import pause, stats
from idxctl.status.overview import Looks
from idxctl.worker import registry
from support.calls import VIEWER, served
from support.rig import ITEMS_DOCUMENT, ITEMS_MAPPING, Rig

KEYS = {
    "index", "document_id", "verdict", "asked", "key", "possible", "row", "generations", "queued", "in_flight", "fan_outs",
    "moving", "unsteady", "letters", "acts", "watches", "conditions", "workers", "opensearch", "untold", "queue_untold",
}  # fmt: skip
UNWATCHED = ITEMS_DOCUMENT.replace("i.name,", "i.name || (SELECT count(*) FROM extras e WHERE e.item_id = i.id),")


@pytest.fixture
def cli(idxctl, items):
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


def explained(items: Rig, document_id: object = 7) -> Explained:
    looks = Looks(lambda: items.client)
    return look.explain(items.conn, items.client, items.settings, looks, items.index, str(document_id))


def alive(items: Rig, worker: str = "host:1:aaaa", **more) -> None:
    """Have a worker stand there as its heartbeats show it, which takes nothing."""
    registry.beat(
        items.conn, worker, state="running", threads=1, queue_size=1000, indexes=None, counters={}, patience_seconds=5,
        breaker=more.get("breaker"),
    )  # fmt: skip


def put(items: Rig, ident: str, body: dict, *, more: str = "") -> None:
    """Write a document as no idxctl does."""
    name = urllib.parse.quote(ident, safe="")
    items.ask("PUT", f"/{items.generation().name}/_doc/{name}?refresh=true{more}", body)


# Each leaves document 7 missing or stale, and returns the verdict's kind with words of its line -------------------------
def queued(items: Rig) -> tuple[Kind, str]:
    alive(items)
    items.sql("UPDATE items SET name = 'new' WHERE id IN (6, 7)")
    return Kind.LAGGING, "queued"


def in_flight(items: Rig) -> tuple[Kind, str]:
    hand = items.hand()
    alive(items, hand.worker.id)
    items.sql("UPDATE items SET name = 'new' WHERE id = 7")
    hand.claim()
    return Kind.LAGGING, f"in flight with worker {hand.worker.id}"


def in_flight_with_one_that_is_gone(items: Rig) -> tuple[Kind, str]:
    alive(items)
    items.sql("UPDATE items SET name = 'new' WHERE id = 7")
    items.hand().claim()
    return Kind.LAGGING, "which is not heard of: it is taken back when its lease lapses"


def backing_off(items: Rig) -> tuple[Kind, str]:
    alive(items)
    items.sql("UPDATE items SET name = 'new' WHERE id = 7")
    again = "attempts = 1, last_error = 'the disk is full', available_at = now() + interval '10 minutes'"
    items.sql(f"UPDATE opensearch_indexing_queue SET {again}")
    return Kind.RETRIED, "attempt 1 failed, tried again in 9 min: the disk is full"


def dead(items: Rig) -> tuple[Kind, str]:
    items.sql("UPDATE items SET price = 'dear' WHERE id = 7")
    items.hand().rest()
    number = items.one("SELECT id FROM opensearch_indexing_dlq")
    return Kind.DEAD_LETTER, f"dead letter {number}: failed to parse field [price]"


def paused(items: Rig) -> tuple[Kind, str]:
    alive(items)
    items.sql("UPDATE items SET name = 'new' WHERE id = 7")
    pause.pause(items.conn, items.index, reason="migration of the shop", by="ops")
    return Kind.HELD_UP, f"{items.index} is paused: migration of the shop"


def read_only(items: Rig) -> tuple[Kind, str]:
    items.ask("PUT", f"/{items.generation().name}/_settings", {"index.blocks.write": True})
    items.sql("UPDATE items SET name = 'new' WHERE id = 7")
    hand = items.hand()
    alive(items, hand.worker.id)
    hand.step()
    return Kind.HELD_UP, "index write"


def circuit_open(items: Rig) -> tuple[Kind, str]:
    items.sql("UPDATE items SET name = 'new' WHERE id = 7")
    alive(items, breaker={"state": "open", "reason": "503 from everywhere", "since": 1.0, "next_probe_seconds": 4})
    return Kind.HELD_UP, "503 from everywhere"


def nobody_works(items: Rig) -> tuple[Kind, str]:
    items.sql("UPDATE items SET name = 'new' WHERE id = 7")
    return Kind.HELD_UP, "no worker is running"


def scheduled(items: Rig) -> tuple[Kind, str]:
    items.ask("DELETE", f"/{items.generation().name}/_doc/7?refresh=true")
    items.sql("SELECT opensearch_indexing_enqueue(%s, '7', available_at => now() + interval '61 minutes')", items.index)
    return Kind.SCHEDULED, "queued for later, due in 1 h"


def a_lookup_waits(items: Rig) -> tuple[Kind, str]:
    alive(items)
    items.sql("UPDATE categories SET name = 'renamed'")
    return Kind.LAGGING, "a lookup, or a look at the whole index, is under way"


def triggers_off(items: Rig) -> tuple[Kind, str]:
    items.sql("ALTER TABLE parts DISABLE TRIGGER ALL")
    items.sql("UPDATE parts SET name = 'unseen' WHERE item_id = 7")
    return Kind.NOT_CAPTURED, "triggers on table parts are disabled"


def triggers_dropped(items: Rig) -> tuple[Kind, str]:
    for (name,) in items.sql(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'items'::regclass AND tgname LIKE 'opensearch%'"
    ):
        items.sql(f'DROP TRIGGER "{name}" ON items')
    items.sql("UPDATE items SET name = 'unseen' WHERE id = 7")
    return Kind.NOT_CAPTURED, "table items has lost its triggers"


def nobody_watches(items: Rig) -> tuple[Kind, str]:
    items.sql("CREATE TABLE extras (item_id bigint)")
    items.configure(document=UNWATCHED)
    items.reindex()
    items.sql("INSERT INTO extras VALUES (7)")
    return Kind.NOT_CAPTURED, "reads table extras (item_id), which no watch of this index covers"


def ignored(items: Rig) -> tuple[Kind, str]:
    items.configure(document=ITEMS_DOCUMENT.replace("i.name,", "i.name || i.seen,"))
    items.reindex()
    items.sql("UPDATE items SET seen = 5 WHERE id = 7")
    return Kind.NOT_CAPTURED, "shows items (seen), which its watch ignores"


def table_swapped(items: Rig) -> tuple[Kind, str]:
    items.sql("CREATE TABLE parts_new (LIKE parts INCLUDING ALL)")
    items.sql("INSERT INTO parts_new SELECT * FROM parts")
    items.sql("ALTER TABLE parts RENAME TO parts_old")
    items.sql("ALTER TABLE parts_new RENAME TO parts")
    items.sql("UPDATE parts SET name = 'unseen' WHERE item_id = 7")
    return Kind.NOT_CAPTURED, "table parts is another one since it was swapped by rename: its triggers are on parts_old"


def altered(items: Rig) -> tuple[Kind, str]:
    put(items, "7", {"name": "altered"}, more=f"&version_type=external&version={2**52}")
    return Kind.ALTERED, f"version {2**52} is none of this database's"


def written_again(items: Rig) -> tuple[Kind, str]:
    items.ask("DELETE", f"/{items.generation().name}/_doc/7?refresh=true")
    items.sql("SELECT nextval('opensearch_indexing_token') FROM generate_series(1, 100)")
    items.ask("POST", f"/{items.generation().name}/_update/8?refresh=true", {"doc": {"name": "altered"}})
    return Kind.DIFFERS, "missing from the index; nothing is under way and capture is in place"


def changed_in_place(items: Rig) -> tuple[Kind, str]:
    items.reindex()
    items.sql("UPDATE items SET name = 'new' WHERE id IN (7, 8)")
    items.drain()
    items.sql("UPDATE items SET name = 'newer' WHERE id = 8")
    items.drain()  # so that the version which the next line makes is the number of a token
    items.ask("POST", f"/{items.generation().name}/_update/7?refresh=true", {"doc": {"name": "altered"}})
    return (
        Kind.ALTERED,
        f"something else changed it here; {items.index}-000001, which the same tasks are written to, is right",
    )


def cancelled(items: Rig) -> tuple[Kind, str]:
    items.sql("UPDATE items SET name = 'new' WHERE id = 7")
    stats.cancel(items.conn, index=items.index, ids=None, documents=["7"])
    return Kind.CANCELLED, "stale: differs in name: its task was cancelled by "


def unreadable(items: Rig) -> tuple[Kind, str]:
    items.sql("ALTER TABLE items DISABLE TRIGGER ALL")
    items.sql("UPDATE items SET divisor = 0 WHERE id = 7")
    return Kind.UNREADABLE, "its document cannot be made: division by zero [22012]"


def query_broken(items: Rig) -> tuple[Kind, str]:
    items.sql("ALTER TABLE items RENAME COLUMN price TO cost")
    return Kind.UNREADABLE, "its document cannot be made: column i.price does not exist [42703]"


def misplaced(items: Rig) -> tuple[Kind, str]:
    shards = {"number_of_shards": 5, "number_of_replicas": 0}
    items.configure(mapping={**ITEMS_MAPPING, "settings": shards})
    items.reindex()
    items.ask("DELETE", f"/{items.generation().name}/_doc/7?refresh=true")
    for routing in "abcdefgh":  # one of which is not the document's own shard
        put(items, "7", {"name": "elsewhere"}, more=f"&routing={routing}")
        if items.document(7) is None:
            return (
                Kind.MISPLACED,
                f"missing from the index: it stands under routing {routing}, and belongs under no routing",
            )
        items.ask("DELETE", f"/{items.generation().name}/_doc/7?refresh=true&routing={routing}")
    raise AssertionError("every routing led to one shard")


def index_deleted(items: Rig) -> tuple[Kind, str]:
    items.ask("DELETE", f"/{items.generation().name}")
    return Kind.INDEX_MISSING, f"the live index {items.index}-000001 is not in OpenSearch"


def alias_moved(items: Rig) -> tuple[Kind, str]:
    alias, live = items.index, items.generation().name
    items.ask("PUT", f"/{alias}-stranger")
    moved = [{"remove": {"index": live, "alias": alias}}, {"add": {"index": f"{alias}-stranger", "alias": alias}}]
    items.ask("POST", "/_aliases", {"actions": moved})
    return Kind.NOT_SEARCHED, f"alias {alias} stands on {alias}-stranger"


def unsteady(items: Rig) -> tuple[Kind, str]:
    now = items.generation().definition.document.replace("i.name,", "clock_timestamp()::text,")
    items.sql(
        "UPDATE opensearch_indexing_generations SET definition = jsonb_set(definition, '{document}', to_jsonb(%s::text))",
        now,
    )
    return Kind.UNSTEADY, "the document query makes name anew each time"


def refused_by_the_next(items: Rig) -> tuple[Kind, str]:
    properties = {**ITEMS_MAPPING["mappings"]["properties"], "name": {"type": "integer"}}
    made = items.register(mappings={**ITEMS_MAPPING["mappings"], "properties": properties})
    items.sql("UPDATE items SET name = 'new' WHERE id = 7")
    items.hand().rest()
    return Kind.GENERATION_DIFFERS, f"{made.name}, which is building, has it missing: failed to parse field [name]"


BREAKS = [
    queued, in_flight, in_flight_with_one_that_is_gone, backing_off, dead, paused, read_only, circuit_open, nobody_works, scheduled,
    a_lookup_waits, triggers_off, triggers_dropped, nobody_watches, ignored, table_swapped, altered, written_again, changed_in_place, cancelled,
    unreadable, query_broken, misplaced, index_deleted, alias_moved, unsteady, refused_by_the_next,
]  # fmt: skip


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda one: one.__name__)
def test_the_first_line_names_the_reason(items: Rig, break_it: Callable[[Rig], tuple[Kind, str]]):
    kind, words = break_it(items)
    found = explained(items)
    assert (found.verdict.kind, words in found.verdict.reason) == (kind, True), (found.verdict.reason, found.facts)
    assert found.verdict.fix or found.verdict.state.value == "look" or kind is Kind.UNREADABLE
    assert json.loads(json.dumps(found.verdict.shown()))["kind"] == kind.value
    assert found.shown().keys() == KEYS
    assert explained(items, 3).verdict.kind is not Kind.DIFFERS  # its neighbour


# Documents that are as they should be, or cannot be ---------------------------------------------------------------------
def test_what_equals_its_row_is_equal_and_what_has_none_says_why(items: Rig):
    found = explained(items)
    assert (found.verdict.kind, found.verdict.reason, found.verdict.fix) == (Kind.EQUAL, "equal", "")
    (held,) = found.facts.generations
    assert held.version == items.version(7)
    assert held.token_after is not None
    items.sql("DELETE FROM items WHERE id = 7")
    items.drain()
    assert explained(items).verdict.reason == "no row: deleted, or never there"
    items.configure(document=f"{ITEMS_DOCUMENT} WHERE i.price <> '-1'")
    items.reindex()
    items.sql("UPDATE items SET price = '-1' WHERE id = 8")
    items.drain()
    assert explained(items, 8).verdict.reason == "no row: items has it, and the document query leaves it out"
    assert explained(items, 8).verdict.kind is Kind.FILTERED


def test_an_id_is_taken_as_the_application_knows_it(items: Rig):
    assert explained(items, "007").facts.document_id == "7"
    assert explained(items, " 7").verdict.kind is Kind.EQUAL
    assert (
        explained(items, "x").verdict.reason
        == f"no row can have the id x: the key of {items.index} is document_id (bigint)"
    )
    for nobodys in ("\0", "\udcff", ":", "x" * 600):
        assert explained(items, nobodys).verdict.kind is Kind.IMPOSSIBLE
    put(items, "x", {"name": "stranger"})
    put(items, "008", {"name": "stranger"})
    for stranger in ("x", "008"):
        found = explained(items, stranger)
        assert (found.verdict.kind, found.facts.document_id) == (Kind.ALTERED, stranger)
        assert found.verdict.fix == f"idxctl queue add --index {items.index} {stranger}"


def test_what_fix_says_of_an_altered_document_fixes_it(items: Rig, cli):
    altered(items)
    put(items, "x", {"name": "stranger"})
    for ident in ("7", "x"):
        cli(*explained(items, ident).verdict.fix.split()[1:])
    items.drain()
    assert items.differences() == []
    assert explained(items).verdict.kind is Kind.EQUAL


def test_all_differences_are_named_by_their_place(items: Rig):
    items.sql("INSERT INTO parts (item_id, name) VALUES (7, 'more')")
    items.drain()
    put(items, "7", {**items.document(7), "name": "altered", "parts": ["part of 7", "other"], "share": 1})
    found = explained(items)
    told = {one.path: (one.row, one.index) for one in found.facts.generations[0].differences}
    assert told == {"name": ("item 7", "altered"), "parts[1]": ("more", "other"), "share": (100, 1)}


def test_a_composite_key_is_one_word_or_one_a_column(items: Rig, cli):
    made = items.generation().definition
    query = made.document.replace("AS document_id,", "AS document_id, 'e:n'::text AS language,")
    changed = {**made.stored(), "document": query, "key": ["document_id", "language"], "key_types": ["bigint", "text"]}
    items.sql("UPDATE opensearch_indexing_generations SET definition = %s::jsonb", json.dumps(changed))
    put(items, "7:e%3An", items.document(7))
    for words in (("7:e%3An",), ("7", "e:n"), ("007", "e:n")):
        told = cli("explain", items.index, *words, "-o", "json").json
        assert (told["document_id"], told["row"]["state"], told["generations"][0]["comparison"]) == (
            "7:e%3An",
            "found",
            "equal",
        )
    wrong = cli("explain", items.index, "7", "e:n", "x")
    assert (wrong.status, "2 columns: document_id, language" in wrong.stderr) == (2, True)
    assert "document_id (bigint), language (text)" in cli("explain", items.index, "77").stderr


# What keeps it from telling -----------------------------------------------------------------------------------------------
@pytest.fixture
def nowhere() -> str:
    with socket.socket() as taken:  # bound and not listening: refused for as long as it is open
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_without_opensearch_it_tells_what_postgresql_knows(items: Rig, cli, nowhere):
    dead(items)
    items.sql("UPDATE items SET name = 'new' WHERE id = 8")
    cli.use(database=items.database, opensearch=nowhere, config=items.config)
    told = cli("explain", "7", "-o", "json")
    assert (told.json["verdict"]["kind"], told.status) == ("dead_letter", 7)
    assert told.json["row"]["document"]["price"] == "dear"
    assert nowhere.removeprefix("http://") in told.json["opensearch"]
    waits = cli("explain", "8", "-o", "json")
    assert waits.json["verdict"]["kind"] == "held_up"
    assert len(waits.json["queued"]) == 1
    nobody = cli("explain", "3")
    assert nobody.status == 5
    assert nobody.stdout.startswith("bad unknown: ")


def test_an_index_that_is_closed_is_not_asked_for_what_others_hold(items: Rig, cli):
    items.reindex()
    items.ask("POST", f"/{items.index}-000002/_close")
    told = cli("explain", "7")
    assert (told.status, told.stdout.startswith("bad unknown: ")) == (1, True)
    assert f"{items.index}-000001, standby: equal" in told.stdout
    assert "index_closed_exception" in told.stdout


def test_a_role_that_only_looks_is_told_what_it_may_see(items: Rig):
    role = f"{items.index}_viewer"
    items.sql(f"CREATE ROLE {role} LOGIN")
    try:
        dead(items)
        items.grant(viewer=role)
        with items.as_role(role) as viewer:
            found = explained(viewer)
            assert found.verdict.kind is Kind.DEAD_LETTER
            assert found.facts.row.state.value == "untold"
            assert "the past of dead letters: this role may not read it" in found.facts.untold
            assert explained(viewer, 3).verdict.reason.startswith("unknown: the row cannot be read: permission denied")
    finally:
        items.sql(f"DROP OWNED BY {role}")
        items.sql(f"DROP ROLE {role}")


def test_a_worker_s_role_has_its_answer(items: Rig):
    role = f"{items.index}_worker"
    items.sql(f"CREATE ROLE {role} LOGIN")
    try:
        items.grant(worker=role)
        with items.as_role(role) as worker:
            assert explained(worker).verdict.kind is Kind.EQUAL
    finally:
        items.sql(f"DROP OWNED BY {role}")
        items.sql(f"DROP ROLE {role}")


def test_values_that_may_not_be_kept_are_not_quoted(items: Rig):
    items.sql("ALTER TABLE items DISABLE TRIGGER ALL")
    items.configure(document=ITEMS_DOCUMENT.replace("i.price,", "i.price::numeric,"))
    items.reindex()
    items.sql("UPDATE items SET price = 'secret' WHERE id = 7")
    assert 'numeric: "secret"' in explained(items).verdict.reason
    items.conn.keep_values = False
    assert "secret" not in explained(items).verdict.reason


# The command line and HTTP ------------------------------------------------------------------------------------------------
def test_the_answer_is_the_first_line_and_the_status(items: Rig, cli):
    assert cli("explain", items.index, "7").stdout.splitlines()[0] == "ok equal"
    assert cli("explain", "--index", items.index, "7").status == 0
    queued(items)
    lags = cli("explain", "7")
    assert (lags.status, lags.stdout.splitlines()[0].startswith("warn lagging ")) == (0, True)
    triggers_off(items)
    items.sql("DELETE FROM opensearch_indexing_queue")
    told = cli("explain", "7")
    assert told.status == 7
    assert told.stdout.splitlines()[0] == "bad not captured: triggers on table parts are disabled"
    assert "idxctl watch install" in told.stdout
    assert 'parts[0]: "unseen" in the row, "part of 7" in the index' in told.stdout
    assert "parts (item_id): disabled" in told.stdout
    assert cli("explain", items.index, "x").status == 2
    assert cli("explain", items.index, "7", "8").status == 2
    assert cli("explain", "nothing", "7").status == 2
    assert cli("explain", items.index, "").status == 2
    for shape in ("json", "ndjson", "csv", "markdown", "table"):
        assert "not captured" in cli("explain", "7", "-o", shape).stdout


def test_render_prints_the_very_bytes_and_nothing_else(items: Rig, cli):
    wanted = items.one(f"SELECT document::text FROM ({items.query}) d WHERE document_id = 7")
    assert cli("explain", "7", "--render").stdout == f"{wanted}\n"
    gone = cli("explain", "99", "--render")
    assert (gone.status, gone.stdout) == (1, "")
    items.sql("UPDATE items SET divisor = 0 WHERE id = 7")
    assert "division by zero" in cli("explain", "7", "--render").stderr


def test_the_line_s_help_is_there_for_every_kind():
    assert set(MEANINGS) == set(Kind)


def test_http_tells_the_same_to_a_viewer(items: Rig, cli):
    altered(items)
    put(items, "a/b c?d", {"name": "stranger"})
    with served(items.settings) as api:
        asked = api.get(f"/documents/{items.index}/7", token=VIEWER)
        told = cli("explain", "7", "-o", "json").json
        assert asked.status == 200
        for changing in ("acts", "conditions"):
            asked.json.pop(changing), told.pop(changing)
        assert asked.json["verdict"] == told["verdict"]
        assert asked.json.keys() | {"acts", "conditions"} == KEYS
        odd = api.get(f"/documents/{items.index}/{urllib.parse.quote('a/b c?d', safe='')}")
        assert (odd.json["document_id"], odd.json["verdict"]["kind"]) == ("a/b c?d", "altered")
        assert api.get("/documents/nothing/7").is_problem
        assert api.get("/documents/nothing/7").status == 404
        assert api.get(f"/documents/{items.index}/7", token=None).status == 401
        assert api.get(f"/documents/{items.index}/{'x' * 5000}").status == 400
