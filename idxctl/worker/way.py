"""
The way to OpenSearch, or the body on it: which of the two has failed.

A gateway's page, a connection that is cut, silence: none of these is a word of OpenSearch's, and the same may come of an
outage and of one document that a firewall dislikes. Evidence decides. A *control* is a body that writes nothing, sent to
the same index through the same pipeline. It does not pass: the way is down, nobody is charged (P4). It does: the body may
be halved, which costs nothing but requests, until what fails is alone (P3).

To charge that document takes more, for a server that goes down and comes up again lets controls pass as well. So document
and control are sent several times each, in an order that is drawn: whatever the times at which the way fails, if they do not
depend on what is sent, all documents fail and all controls pass in one of 924 orders. Where failing means to be kept
waiting, controls are sent while the document waits.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from idxctl.core.errors import OpenSearchRefused, OpenSearchUnreachable
from idxctl.indexes.generations import Generation
from idxctl.opensearch import bulk
from idxctl.opensearch.bulk import Body
from idxctl.opensearch.client import Client
from idxctl.worker import outcomes
from idxctl.worker.outcomes import Kind, Verdict

TURNS = 6  # of the document and of the control each: one order of 924
_MEANWHILE = 5  # controls while a document is waited for
_CONTROL_SECONDS = 5.0
_REMEMBERED = 10_000  # documents that failed
_CONTROL_ID = "a control, never written"
_NO_SEQUENCE_NUMBER = 2**62  # no document has it: the item is a conflict, and nothing is written, not even a tombstone


@dataclass(frozen=True)
class Controls:
    """Bodies that write nothing, on the way to one index. With *beside*, to the shard of the document in that body."""

    client: Client
    generation: Generation
    beside: Body | None = None
    seconds: float = _CONTROL_SECONDS

    def pass_(self) -> bool:
        """Send one; True when OpenSearch itself answered for it."""
        body = self._body()
        pipeline = self.generation.definition.pipeline
        patience = min(self.seconds, self.client.patience_seconds)  # never more than the body had
        try:
            answers = bulk.send(self.client, self.generation.name, body, pipeline=pipeline, timeout_seconds=patience)
        except (OpenSearchRefused, OpenSearchUnreachable):
            return False
        verdicts = [outcomes.of_item(one.status, one.error_type, one.reason) for one in answers]
        return all(one.kind is not Kind.TRANSIENT for one in verdicts)

    def _body(self) -> Body:
        """Return a document without a field: a pipeline is run for it, and then its condition is not met."""
        place = {"_id": _CONTROL_ID} if self.beside is None else _place(self.beside)
        head = {"index": {**place, "if_seq_no": _NO_SEQUENCE_NUMBER, "if_primary_term": 1}}
        return Body([place["_id"]], orjson.dumps(head) + b"\n{}\n")


def _place(body: Body) -> dict[str, str]:
    """Return the id and the routing of a body's first document."""
    (head,) = orjson.loads(body.text[: body.text.index(b"\n")]).values()
    return {name: head[name] for name in ("_id", "routing") if name in head}


class Witnesses:
    """
    Whether other documents have passed since the way was first seen to fail on one. Thread-safe; one for a process.

    A control has no fields, so it passes a pipeline that hangs on whatever a document holds: there a control proves little.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._passed: dict[int, float] = {}
        self._failed: dict[tuple[int, str], float] = {}
        self._lock = threading.Lock()

    def passed(self, generation: int) -> None:
        """Take note of documents that a generation took."""
        with self._lock:
            self._passed[generation] = self._clock()

    def speak_against(self, document_id: str, generation: int, *, since: float) -> bool:
        """Tell whether others have passed since this one first failed, at *since* or before."""
        with self._lock:
            if len(self._failed) >= _REMEMBERED:
                self._failed.clear()
            first = self._failed.setdefault((generation, document_id), since)
            return self._passed.get(generation, first) > first


@dataclass(frozen=True)
class Found:
    """What a trial has shown: ``verdict`` of the last failure, None when the document passed; ``down`` when the way failed."""

    verdict: Verdict | None
    down: bool = False
    guilty: bool = False


def by_turns(
    send: Callable[[], Verdict | None], controls: Controls, *, shuffle: Callable[[list[bool]], None] = random.shuffle
) -> Found:
    """Send a document and controls in an order that is drawn, until one of either contradicts: a few quick requests."""
    turns = [True] * TURNS + [False] * TURNS
    shuffle(turns)
    verdict: Verdict | None = None
    for own in turns:
        if own:
            verdict = send()
            if verdict is None or not verdict.suspect:
                return Found(verdict)
        elif not controls.pass_():
            return Found(verdict, down=True)
    return Found(verdict, guilty=True)


def meanwhile(send: Callable[[], Verdict | None], controls: Controls, *, every: float) -> Found:
    """Send a document, and controls while it is waited for: they pass on the same way at the same time."""
    passed: list[bool] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every):
            passed.append(controls.pass_())

    watcher = threading.Thread(target=watch, name="controls", daemon=True)
    watcher.start()
    try:
        verdict = send()
    finally:
        over.set()
        watcher.join()
    if verdict is None or not verdict.suspect:
        return Found(verdict)
    if not all(passed):
        return Found(verdict, down=True)
    return Found(verdict, guilty=len(passed) >= _MEANWHILE - 1)


def interval(took: float) -> float:
    """Return the seconds between controls while a document is waited for that was waited for *took* seconds before."""
    return max(took / _MEANWHILE, 0.02)
