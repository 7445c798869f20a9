"""The check before the swap finds what is not as it was sent, proves the rest without its rows, and leaves nothing behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from idxctl.core.errors import IdxctlError
from idxctl.indexes import ids, render
from idxctl.opensearch import by_sequence
from idxctl.rebuild import check, process
from idxctl.verify import compare
from support.hostile import Hostile, response
from support.rig import Rig

ROWS = 300
EMPTY = {"name": "x", "price": "1", "share": 100, "category": None, "parts": []}


@pytest.fixture
def many(items: Rig) -> Rig:
    """Twenty items and some hundred more, the generation live, and no row that is looked at whatever agrees."""
    items.sql("INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, 1 FROM generate_series(1000, %s) i", 999 + ROWS)  # fmt: skip
    items.drain()
    return items


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch):
    """Look at no rows but those that a difference asks for."""
    monkeypatch.setattr(check, "_LOOKED_AT", 0)


@pytest.fixture
def checks(monkeypatch) -> Iterator[list[check.Checked]]:
    """What each check found."""
    seen: list[check.Checked] = []
    real = check.check

    def spy(*args, **options):
        seen.append(real(*args, **options))
        return seen[-1]

    monkeypatch.setattr(process, "check", spy)
    return seen


@pytest.fixture
def compared(monkeypatch) -> list[str]:
    """The ids of all documents that were compared with their rows one by one."""
    ids: list[str] = []
    real = compare.compare_ids

    def spy(conn, client, generation, wanted, **options):
        ids.extend(wanted)
        return real(conn, client, generation, wanted, **options)

    monkeypatch.setattr(compare, "compare_ids", spy)
    return ids


def building(rig: Rig) -> str:
    return rig.generation("building").name


def behind_our_back(rig: Rig, ident: str, source: dict | None, *, version: int | None = None) -> None:
    """Write or delete a document of the generation that is built, under the version that it has or any other."""
    name = building(rig)
    rig.ask("POST", f"/{name}/_refresh")
    version = version or rig.version(ident, name)
    place = f"/{name}/_doc/{ident}?version={version}&version_type=external_gte"
    answer = rig.ask("DELETE", place) if source is None else rig.ask("PUT", place, source)
    assert "error" not in answer, answer


def a_chunk_token(rig: Rig) -> int:
    return rig.one("SELECT max(token) FROM opensearch_indexing_reindex_chunks")


FAULTS = {
    "altered under the same version": lambda rig: behind_our_back(rig, "1005", EMPTY),
    "deleted": lambda rig: behind_our_back(rig, "1005", None),
    "altered under another version": lambda rig: behind_our_back(
        rig, "1005", EMPTY, version=rig.version("1005", building(rig)) + 1
    ),
    "added under a version of nobody's": lambda rig: behind_our_back(rig, "999999", EMPTY, version=5),
    "added under the token of a chunk": lambda rig: behind_our_back(
        rig, "999999", EMPTY, version=a_chunk_token(rig)
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_done_behind_our_back_is_found_and_written_again(many: Rig, stops, checks, compared, fault):
    stops.do("reindex.filled", lambda: FAULTS[fault](many))
    assert many.reindex().swapped
    assert many.differences() == []
    assert set(compared) == {"999999" if "added" in fault else "1005"}
    assert checks[0].rows_read <= 1


@pytest.mark.parametrize("fault", FAULTS)
def test_unchecked_it_stays(many: Rig, stops, fault):
    """What the tests above see repaired is not repaired by anything else."""
    stops.do("reindex.filled", lambda: FAULTS[fault](many))
    done = many.reindex(check="none")
    assert (done.swapped, done.checked) == (True, "none")
    assert len(many.differences()) == 1
    assert many.one("SELECT count(*) FROM opensearch_indexing_audit WHERE detail ->> 'check' = 'none'") == 1


@pytest.mark.parametrize("fault", [name for name in FAULTS if "altered under the same" not in name])
def test_versions_alone_find_all_but_what_keeps_its_version(many: Rig, stops, fault):
    stops.do("reindex.filled", lambda: FAULTS[fault](many))
    assert many.reindex(check="versions").checked == "versions"
    assert many.differences() == []


def test_versions_alone_read_no_document(many: Rig, stops, monkeypatch):
    asked = []
    real = by_sequence.read
    monkeypatch.setattr(
        by_sequence, "read", lambda *given, sources: asked.append(sources) or real(*given, sources=sources)
    )
    stops.do("reindex.filled", lambda: FAULTS["altered under the same version"](many))
    assert many.reindex(check="versions").swapped
    assert set(asked) == {False}
    assert len(many.differences()) == 1


def test_where_nothing_happened_no_row_is_read_again(many: Rig, checks, compared, monkeypatch):
    reads = []
    real = render.stream
    monkeypatch.setattr(
        render, "stream", lambda *given, **options: reads.append(options["token"]) or real(*given, **options)
    )
    done = many.reindex()
    assert (done.documents, done.failed, done.checked) == (ROWS + 20, 0, "content")
    assert (checks[0].rows_read, compared) == (0, [])
    assert None not in reads  # what is read to be written has a token


def test_changes_during_the_build_are_compared_and_nothing_else(many: Rig, stops, checks, compared):
    """Changed, added and deleted behind the backfill, each through the queue; one is changed twice."""

    def change() -> None:
        many.sql("UPDATE items SET name = 'changed' WHERE id BETWEEN 1010 AND 1019")
        many.sql("DELETE FROM items WHERE id IN (1030, 1031)")
        many.sql("INSERT INTO items (id, name) VALUES (5000, 'new')")
        many.drain()
        many.sql("UPDATE items SET name = 'again' WHERE id = 1010")

    stops.do("reindex.filled", change)
    done = many.reindex()
    assert many.differences() == []
    assert done.documents == ROWS + 20 - 2 + 1
    assert checks[0].rows_read == 11  # those deleted are on neither side
    assert sorted(set(compared)) == sorted([*(f"{one}" for one in range(1010, 1020)), "5000"])


def test_all_documents_of_several_shards_are_proved(items: Rig, checks):
    mapping = json.loads((items.config.parent / "mapping.json").read_text())
    mapping["settings"]["number_of_shards"] = 3
    items.configure(mapping=mapping)
    items.sql("INSERT INTO items (id, name) SELECT i, 'more' FROM generate_series(100, 399) i")
    items.drain()
    assert items.reindex().documents == 320
    assert checks[0].rows_read == 0
    assert items.differences() == []


def test_pages_are_no_larger_than_the_index_allows(items: Rig, checks):
    mapping = json.loads((items.config.parent / "mapping.json").read_text())
    mapping["settings"]["max_result_window"] = 7
    items.configure(mapping=mapping)
    items.sql("INSERT INTO items (id, name) SELECT i, 'more' FROM generate_series(100, 140) i")
    items.drain()
    assert items.reindex().documents == 61
    assert checks[0].rows_read == 0


def test_where_a_pipeline_changes_documents_rows_are_read(items: Rig, checks, unique_name):
    items.ask("PUT", f"/_ingest/pipeline/{unique_name}", {"processors": []})
    try:
        toml = items.config.read_text().replace('document = "document.sql"', f'document = "document.sql"\npipeline = "{unique_name}"')  # fmt: skip
        items.configure(toml=toml)
        assert items.reindex().documents == 20
        assert checks[0].rows_read == 20
    finally:
        items.ask("DELETE", f"/{items.index}")
        items.ask("DELETE", f"/_ingest/pipeline/{unique_name}")


def test_where_the_source_is_cut_rows_are_read(items: Rig, checks):
    mapping = json.loads((items.config.parent / "mapping.json").read_text())
    mapping["mappings"]["_source"] = {"excludes": ["share"]}
    toml = items.config.read_text().replace('document = "document.sql"', 'document = "document.sql"\nverify_ignore = ["share"]')  # fmt: skip
    items.configure(mapping=mapping, toml=toml)
    assert items.reindex().swapped
    assert checks[0].rows_read == 20


def test_where_most_documents_are_not_as_sent_rows_are_read(many: Rig, stops, checks, monkeypatch):
    monkeypatch.setattr("idxctl.verify.proof._ENOUGH_SEEN", 100)

    def rewrite() -> None:
        many.ask("POST", f"/{building(many)}/_refresh")
        script = {"source": "ctx._source.name = ctx._source.name + 'x'", "lang": "painless"}
        assert many.ask("POST", f"/{building(many)}/_update_by_query", {"script": script})["updated"] == ROWS + 20

    stops.do("reindex.filled", rewrite)
    many.reindex()
    assert checks[0].rows_read == ROWS + 20
    assert many.differences() == []


def test_a_run_that_an_older_program_filled_is_compared_with_its_rows(many: Rig, stops, checks):
    stops.do("reindex.filled", lambda: many.sql("DELETE FROM opensearch_indexing_reindex_digests WHERE chunk = 0"))
    assert many.reindex().documents == ROWS + 20
    assert checks[0].rows_read == ROWS + 20


def test_a_chunk_that_was_never_sent_is_compared_with_its_rows(many: Rig, stops, checks):
    stops.do(
        "reindex.filled",
        lambda: many.sql("UPDATE opensearch_indexing_reindex_chunks SET done_at = NULL WHERE number = 0"),
    )
    many.reindex()
    assert checks[0].rows_read == ROWS + 20


def test_a_chunk_planned_after_the_last_look_for_one_is_filled(many: Rig, stops, monkeypatch):
    """One reader looks, finds none, and the planner adds the only one before the reader knows that there are no more."""
    looked = threading.Event()
    real = ids.next_boundary

    def plan(*given, **options):
        assert looked.wait(30)
        return real(*given, **options)

    def wait_for_the_planner() -> None:
        looked.set()
        for one in threading.enumerate():
            if one.name == "planner":
                one.join(30)

    monkeypatch.setattr("idxctl.rebuild.backfill.next_boundary", plan)
    stops.do("chunk.committed", wait_for_the_planner)
    assert many.reindex(check="none", readers=1).documents == ROWS + 20


def test_some_rows_are_looked_at_whatever_agrees(many: Rig, stops, checks, monkeypatch):
    """A row that changed behind every watch differs from its document, although that is as it was sent."""
    monkeypatch.setattr(check, "_LOOKED_AT", 2)

    def change() -> None:
        many.sql("ALTER TABLE items DISABLE TRIGGER ALL; UPDATE items SET name = 'unseen'; ALTER TABLE items ENABLE TRIGGER ALL")  # fmt: skip

    stops.do("reindex.filled", change)
    assert many.reindex().swapped
    assert many.differences() == []


def test_what_was_sent_is_forgotten_when_the_run_has_ended(many: Rig, stops):
    assert many.one("SELECT count(*) FROM opensearch_indexing_reindex_digests") == 0
    kept = []
    stops.do("reindex.checked", lambda: kept.append(many.one("SELECT sum(length(digests)) FROM opensearch_indexing_reindex_digests")))  # fmt: skip
    many.reindex()
    chunks = many.one("SELECT count(*) FROM opensearch_indexing_reindex_chunks WHERE documents > 0 AND run = (SELECT max(id) FROM opensearch_indexing_reindex_runs)")  # fmt: skip
    assert kept == [16 * (ROWS + 20) + 8 * chunks]
    assert many.one("SELECT count(*) FROM opensearch_indexing_reindex_digests") == 0

    def fail() -> None:
        raise IdxctlError("it ends here")

    stops.do("reindex.filled", fail)
    with pytest.raises(IdxctlError, match="it ends here"):
        many.reindex()
    assert many.one("SELECT count(*) FROM opensearch_indexing_reindex_digests") == 0


SPOILT = {
    "half of the documents": lambda _: response(b'{"timed_out":false,"_shards":{"total":1,"successful":1,"failed":0},"hits":{"total":{"value":9,"relation":"eq"},"hits":[]}}'),
    "a timeout": lambda _: response(b'{"timed_out":true,"_shards":{"total":1,"successful":1,"failed":0},"hits":{"total":{"value":0,"relation":"eq"},"hits":[]}}'),
    "503": lambda _: response(b"", status="503 Service Unavailable"),
    "closed without a word": lambda _: b"",
    "overload": lambda _: response(b'{"error":{"type":"circuit_breaking_exception","reason":"Data too large"},"status":429}', status="429 Too Many Requests"),
}  # fmt: skip


@pytest.mark.parametrize("answer", SPOILT)
def test_an_answer_that_is_none_is_asked_for_again(many: Rig, stops, checks, answer):
    with Hostile(many.opensearch) as hostile, many.by_way_of(opensearch=hostile.url):
        stops.do(
            "reindex.filled",
            lambda: hostile.spoil(lambda _, path: path.endswith("/_search"), SPOILT[answer], times=2),
        )
        assert many.reindex().documents == ROWS + 20
        assert hostile.spoilt == 2
    assert checks[0].rows_read == 0
    assert many.differences() == []
