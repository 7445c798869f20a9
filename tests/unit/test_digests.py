"""What was sent is crossed off as it is found; whatever is not told to be proved is told by name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idxctl.verify.digests import Digests, Ledger, Left, Sent, of_id


@dataclass(frozen=True)
class Document:
    id: str
    version: int
    source: bytes


def sent(documents: dict[str, bytes]) -> Sent:
    kept = Sent()
    kept.add(list(documents), b"".join(b'{"index":{}}\n%b\n' % one for one in documents.values()))
    return kept


def ledger(chunks: dict[int, dict[str, bytes]], **options) -> Ledger:
    packed = {token: sent(documents).packed() for token, documents in chunks.items()}
    return Ledger(packed.keys(), packed.__getitem__, **options)


def rest(one: Ledger) -> dict[int, frozenset[int]]:
    return {left.token: left.ids for left in one.rest()}


AS_SENT = {7: {"a": b'{"n":1}', "b": b'{"n":2}'}, 9: {"c": b"{}"}}
HELD = [Document("a", 7, b'{"n":1}'), Document("b", 7, b'{"n":2}'), Document("c", 9, b"{}")]


def test_documents_that_are_as_they_were_sent_are_proved_and_nothing_is_left():
    book = ledger(AS_SENT)
    taken = book.take(HELD)
    assert (taken.proved, list(taken.others), rest(book)) == (3, [], {})


@pytest.mark.parametrize(
    "wrong",
    [
        Document("a", 7, b'{"n":3}'),  # altered under the same version
        Document("a", 9, b'{"n":1}'),  # under another chunk's token
        Document("a", 8, b'{"n":1}'),  # under a token of no chunk
        Document("x", 7, b'{"n":1}'),  # never sent
    ],
)
def test_a_document_that_is_not_as_it_was_sent_is_told_by_name(wrong):
    book = ledger(AS_SENT)
    taken = book.take([wrong, *HELD[1:]])
    assert (taken.proved, list(taken.others)) == (2, [wrong.id])
    assert rest(book) == ({7: {of_id("a")}} if wrong.id == "x" else {})  # what became of "a" is known but for there


def test_a_document_that_is_there_twice_is_proved_once():
    assert ledger(AS_SENT).take([HELD[0], HELD[0]]).others == ["a"]


def test_a_document_that_is_gone_is_left_under_its_token():
    book = ledger(AS_SENT)
    book.take(HELD[:1])
    assert rest(book) == {7: {of_id("b")}, 9: {of_id("c")}}


def test_a_document_written_since_explains_why_it_is_not_there_as_it_was_sent():
    book = ledger(AS_SENT)
    assert book.take([Document("a", 12, b"{}")]).others == ["a"]
    book.take(HELD[1:])
    assert rest(book) == {}


def test_by_tokens_alone_contents_do_not_matter():
    book = ledger(AS_SENT, contents=False)
    taken = book.take([Document("a", 7, b""), Document("b", 8, b"")])
    assert (taken.proved, list(taken.others)) == (1, ["b"])


def test_refused_documents_are_left_out():
    kept = sent(AS_SENT[7])
    kept.leave_out(["a"])
    assert Digests.unpacked(kept.packed()).of.keys() == {of_id("b")}


def test_blanks_around_a_document_are_no_part_of_it():
    packed = {7: sent({"a": b' {"n": 1}\t'}).packed()}
    assert Ledger(packed.keys(), packed.__getitem__).take([Document("a", 7, b'{"n": 1}')]).proved == 1


def test_the_same_bytes_have_other_digests_under_another_seed():
    assert sent(AS_SENT[7]).packed() != sent(AS_SENT[7]).packed()


@pytest.mark.parametrize("packed", [b"", b"1234", b"12345678" * 2])
def test_what_are_no_digests_is_refused(packed):
    with pytest.raises(ValueError, match="no digests"):
        Digests.unpacked(packed)


def test_chunks_are_closed_for_room_and_what_comes_later_is_told_by_name():
    book = ledger({token: {f"{token}-{n}": b"{}" for n in range(4)} for token in range(6)}, most_held=10)
    closed: list[Left] = []
    others: list[str] = []
    for number in range(4):  # of each chunk one document, then of each another: nothing is together
        for token in range(6):
            taken = book.take([Document(f"{token}-{number}", token, b"{}")])
            closed += taken.closed
            others += taken.others
    open_at_the_end = rest(book)
    left = {one for each in closed for one in each.ids}
    assert closed
    assert {of_id(one) for one in others} <= left
    assert open_at_the_end == {}


names = st.text(min_size=1, max_size=4)
contents = st.binary(max_size=6).map(lambda raw: b"{" + raw.replace(b"\n", b"") + b"}")


@given(
    chunks=st.dictionaries(st.integers(0, 5), st.dictionaries(names, contents, max_size=6), max_size=4),
    strangers=st.lists(st.builds(Document, names, st.integers(0, 8), contents), max_size=4),
    data=st.data(),
)
def test_whatever_differs_is_told(chunks, strangers, data):
    """Each document found is proved or told by name; each one sent is proved, or told by name or by the digest of its id."""
    whole = [Document(one, token, source) for token, held in chunks.items() for one, source in held.items()]
    kept = [one for one in whole if data.draw(st.booleans())]
    found = data.draw(st.permutations([*kept, *strangers]))
    book = ledger(chunks, most_held=data.draw(st.integers(1, 12)))
    proved: list[Document] = []
    told: set[int] = set()
    for one in found:
        taken = book.take([one])
        proved += [one] * taken.proved
        told |= {*map(of_id, taken.others), *(each for left in taken.closed for each in left.ids)}
        assert taken.proved + len(taken.others) == 1
    told |= {each for left in book.rest() for each in left.ids}
    assert all(one in whole for one in proved)
    assert all(one in proved or of_id(one.id) in told for one in whole)
