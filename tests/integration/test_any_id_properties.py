"""Ids and texts of any characters and length, in databases of four encodings, through every table and what reads and moves it."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import idxctl
from idxctl import dlq
from idxctl.core import keys, texts
from idxctl.core.errors import IdxctlError, PostgresRefused
from idxctl.core.reasons import Kind, Reason
from idxctl.postgres.connect import Connection
from idxctl.queue import enqueue, rescue, settle, stats
from idxctl.queue.outcomes import Again, Failure, Outcomes
from support.pages import pages, take
from support.rig import Rig

pytestmark = pytest.mark.full

ANY = st.one_of(
    st.text(st.characters(codec=None), max_size=40),
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.text("ab:%'\\\"{},\n", max_size=40),
)
TEXTS = st.builds(lambda text, times: text * times, ANY, st.sampled_from([1, 1, 1, 13, 250]))  # to 10,000 characters


@pytest.fixture(params=["UTF8", "LATIN1", "SQL_ASCII", "EUC_JP"])
def encoded(request, postgres_url, opensearch_url, unique_name, tmp_path, migrate):
    with pages(postgres_url, opensearch_url, unique_name, tmp_path, migrate, request.param) as rig:
        yield rig


OUTCOMES = ("done", "again", "dead", "doubtful", "blamed", "lost", "given back")


@dataclass(frozen=True)
class Tried:
    """An id, how it comes into the queue, what becomes of it, and the sentence that comes with that."""

    name: str
    way: str
    outcome: str
    text: str


TRIED = st.lists(
    st.builds(Tried, TEXTS, st.sampled_from(["row", "function", "library", "engine"]), st.sampled_from(OUTCOMES), TEXTS),
    min_size=1, max_size=12, unique_by=lambda one: one.name,
)  # fmt: skip


def kept(conn: Connection, name: str) -> str | None:
    """What the database makes of a text, None where it cannot hold it; EUC_JP has one character for some two."""
    try:
        with conn.transaction():
            ((found,),) = conn.execute(b"SELECT %s::text", (name,))
    except PostgresRefused:
        return None
    return found


def come(rig: Rig, one: Tried, library: idxctl.Indexer) -> bool:
    """Have an id enqueued in one of the ways; what a way refuses leaves nothing."""
    before = rig.queued()
    try:
        if one.way == "row":
            rig.conn.execute(
                b"INSERT INTO opensearch_indexing_queue (index_name, document_id, action, last_error) VALUES (%s, %s, 'index', %s)",
                (rig.index, one.name, rig.conn.storable(one.text)),
            )
        elif one.way == "function":
            rig.conn.execute(b"SELECT opensearch_indexing_enqueue(%s, %s)", (rig.index, one.name))
        elif one.way == "library":
            library.index(rig.index, one.name)
        else:
            enqueue.enqueue(rig.conn, index=rig.index, ids=[one.name])
    except IdxctlError:
        assert rig.queued() == before
        return False
    came = rig.queued() > before
    assert came or one.name == ""
    return came


def outcomes_of(batch, wanted: dict[str, Tried], generation: int) -> Outcomes:
    tasks = {task.document_id: task for task in batch.tasks}

    def failures(outcome: str, **more) -> list[Failure]:
        return [
            Failure(tasks[name], one.text or "type", "abcdef", one.text, permanent=outcome != "doubtful", **more)
            for name, one in wanted.items() if one.outcome == outcome
        ]  # fmt: skip

    blamed = failures("blamed", generation=generation)
    done = [task for name, task in tasks.items() if name in wanted and wanted[name].outcome in {"done", "blamed"}]
    return Outcomes(
        done=done,
        again=[
            Again(tasks[name], 0.0, Reason(Kind.FAILED, one.text))
            for name, one in wanted.items()
            if one.outcome == "again"
        ],
        failed=[*failures("dead"), *failures("doubtful")],
        blamed=blamed,
    )


def places(conn: Connection) -> Counter[tuple[str, str]]:
    """Where each id is now."""
    return Counter(
        (place, name)
        for place, table in (("queue", "opensearch_indexing_queue"), ("letter", "opensearch_indexing_dlq"))
        for (name,) in conn.execute(
            f"SELECT {'coalesce(whole_id, document_id)' if place == 'letter' else 'document_id'} FROM {table}".encode()
        )
    )


def test_each_id_is_in_one_place_whatever_it_is_and_whatever_is_said_of_it(encoded: Rig):
    rig = encoded
    building = rig.register().id
    library = idxctl.Indexer(rig.settings)
    rig.conn.execute(b"SELECT 1")

    @settings(
        max_examples=25,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(TRIED)
    def through_it_all(tried: list[Tried]) -> None:
        for table in ("queue", "dlq", "inflight", "generation_failures"):
            rig.sql(f"DELETE FROM opensearch_indexing_{table}")
        library._is_synchronous = lambda: False
        tried = [one for one in tried if kept(rig.conn, one.name) in {one.name, None}]
        came = {one.name: one for one in tried if come(rig, one, library)}
        for one in tried:
            if one.name not in came and one.name and kept(rig.conn, one.name) is not None:
                assert one.way in {"function", "library"}, "nothing else refuses what the database can hold"
                assert keys.too_long(one.name)
        if not came:
            return
        through(rig, came, building)
        through_the_lists(rig, came)

    through_it_all()
    library.shutdown(timeout=10)


def through(rig: Rig, came: dict[str, Tried], building: int) -> None:
    """Claim, settle with each outcome, lose and rescue; each id is where its outcome puts it."""
    batch = take(rig)
    assert {task.document_id for task in batch.tasks} == set(came)
    left = {name: one for name, one in came.items() if one.outcome in {"lost", "given back"}}
    settled = {name: one for name, one in came.items() if name not in left}
    rest = Outcomes(again=[Again(task, 0.0, Reason(Kind.FAILED)) for task in batch.tasks if task.document_id in left])
    given_ = outcomes_of(batch, settled, building)
    done = settle.settle(
        rig.conn, batch, Outcomes(given_.done, [*given_.again, *rest.again], given_.failed, given_.blamed), max_attempts=3
    )  # fmt: skip
    assert done.held
    expected = {
        ("letter" if one.outcome == "dead" else "queue", name)
        for name, one in came.items()
        if one.outcome not in {"done", "blamed"}
    }
    assert places(rig.conn) == Counter(expected)
    noted = rig.conn.execute(
        b"SELECT coalesce(whole_id, document_id) FROM opensearch_indexing_generation_failures"
    ).fetchall()
    assert {name for (name,) in noted} == {name for name, one in came.items() if one.outcome == "blamed"}
    if any(place == "queue" for place, _ in expected):
        rig.sql("UPDATE opensearch_indexing_queue SET available_at = now() - interval '1 s'")
        take(rig)  # in the hands of a worker that dies, or ends
        if any(one.outcome == "given back" for one in came.values()):
            rescue.give_back(
                rig.conn,
                "test:1:a",
                held=(),
                why=Reason(Kind.REFUSED, max((one.text for one in came.values()), key=len)),
            )
        else:
            rig.sql("UPDATE opensearch_indexing_inflight SET lease_until = '-infinity'")
            rescue.rescue(rig.conn, max_attempts=3)
        assert places(rig.conn) == Counter(expected)


def through_the_lists(rig: Rig, came: dict[str, Tried]) -> None:
    """List, show, retry, cancel and purge."""
    waiting = {task.document_id for task in stats.tasks(rig.conn, limit=100)}
    letters = list(dlq.every_letter(rig.conn, dlq.Selection()))
    assert waiting | {one.document_id for one in letters} == {name for _, name in places(rig.conn)}
    assert stats.stats(rig.conn).queued == len(waiting)
    for one in letters:
        assert dlq.show(rig.conn, str(one.id)).document_id == one.document_id
    assert dlq.stats(rig.conn).total == len(letters)
    _, moved = dlq.requeue(rig.conn, dlq.Selection(), limit=1)
    assert len(moved) == min(1, len(letters))
    names = [name for place, name in places(rig.conn) if place == "queue"]
    if names:
        assert stats.cancel(rig.conn, index=rig.index, ids=None, documents=names[:1]) == 1
    with contextlib.suppress(StopIteration):
        dlq.purge(rig.conn, dlq.Selection(), everything=True)
    assert not [name for place, name in places(rig.conn) if place == "letter"]


@pytest.mark.parametrize("output", ["table", "json", "ndjson", "csv", "markdown", "plain"])
def test_every_list_of_the_command_line_shows_any_id(encoded: Rig, idxctl, output: str):
    rig = encoded
    names = [
        one
        for one in ("caf\xe9", "\u20ac", "\u6f22", "\U0001f600", "\x1b[31m", "a\nb", "\u202e", "x" * 5000, "-")
        if kept(rig.conn, one) == one
    ]
    for name in names:
        rig.conn.execute(
            b"INSERT INTO opensearch_indexing_queue (index_name, document_id, action) VALUES (%s, %s, 'index')",
            (rig.index, name),
        )
        rig.conn.execute(
            b"INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, last_error) VALUES (%s, %s, 'index', %s)",
            (rig.index, name, name),
        )
    idxctl.use(database=rig.database, opensearch=rig.opensearch, config=rig.config)
    if output == "json":
        assert {one["document_id"] for one in json.loads(idxctl("queue", "list", "-o", "json").stdout)} == set(names)
        assert {one["document_id"] for one in json.loads(idxctl("dlq", "list", "-o", "json").stdout)} == set(names)
        short = [name for name in names if not keys.too_long(name) and name != "-"]
        assert idxctl("queue", "add", "--index", rig.index, "--", *short).status == 0
        assert idxctl("queue", "cancel", "--yes", *(f"--document={name}" for name in short)).status == 0
    for command in (("queue", "list"), ("queue", "stats"), ("dlq", "list"), ("dlq", "stats")):
        told = idxctl(*command, "-o", output)
        assert told.status == 0
        assert "\x1b[31m" not in told.stdout


def test_the_matrix_holds_texts_that_each_encoding_lacks():
    assert texts.unknown_to("\u20ac", "LATIN1")
    assert texts.unknown_to("\ud800", "UTF8")
    assert texts.unknown_to("a\0", "SQL_ASCII")
