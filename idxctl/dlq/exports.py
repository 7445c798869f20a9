"""Letters as lines of JSON, each whole: to be kept, or read by other programs, before they are purged or without that."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from idxctl.core import legible
from idxctl.core.to_json import as_json
from idxctl.dlq.letters import SQL, Letter, Selection
from idxctl.dlq.new_file import new_file
from idxctl.postgres.connect import Connection

_TOLD_EVERY = 1000  # letters


@dataclass(frozen=True)
class _Head(Letter):
    """What a line has before the letter's own JSON, which goes out as PostgreSQL writes it: numbers keep every digit."""

    not_before: datetime | None
    origin: str
    token: int


@dataclass(frozen=True)
class Exported:
    """
    Which letters were written, each in the version that the line shows.

    Sixteen bytes a letter: there may be millions.
    """

    ids: array[int] = field(default_factory=lambda: array("q"))
    versions: array[int] = field(default_factory=lambda: array("q"))  # their rows' xmin

    def pieces(self, size: int) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the ids and versions, *size* at a time."""
        for start in range(0, len(self.ids), size):
            yield self.ids[start : start + size].tolist(), self.versions[start : start + size].tolist()


def lines(
    conn: Connection, selection: Selection, *, newest: datetime | None = None, into: Exported | None = None
) -> Iterator[bytes]:
    """
    Yield a line of JSON a letter, by number, none created after *newest*; read while they are taken, in one snapshot.

    The keys are those of `LetterInFull`. *into* gets what each line is of.
    """
    for *head, history, data, version in conn.stream(SQL["export"], **selection.parameters(), newest=newest):
        if into is not None:
            into.ids.append(head[0])
            into.versions.append(version)
        begun = as_json(_Head(*head)).rstrip(b"}\n")
        yield legible.in_json(begun + f',"history":{history},"data":{data}}}\n'.encode("utf-8", "surrogatepass"))


def export(
    conn: Connection,
    selection: Selection,
    path: Path,
    *,
    newest: datetime | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> Exported:
    """
    Write the letters to the new file *path*: it is on the disk when this returns, and not there at all when this raises.

    *told* hears now and then how many there are. No letter is locked: what becomes of one meanwhile is in its version.
    """
    done = Exported()
    with new_file(path) as stream:
        for number, line in enumerate(lines(conn, selection, newest=newest, into=done), 1):
            stream.write(line)
            if number % _TOLD_EVERY == 0:
                told(number)
    told(len(done.ids))
    return done
