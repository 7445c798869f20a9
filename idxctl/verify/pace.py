"""How fast a scrub goes: so that it is through in half of its period, and never faster than it has to be."""

from __future__ import annotations

from dataclasses import dataclass

_ROWS_SHARE, _IDS_SHARE = 0.4, 0.1  # of the period; the rest is head room
_LEAST_ROWS, _LEAST_IDS = 100.0, 1000.0  # a second: a small index is through within seconds, and at rest for the others
_RANGE_SECONDS = (
    2.0  # of the pace, in one range: so much is lost with a process, and live work waits for no more than it takes
)
_SMALLEST_RANGE, _LARGEST_RANGE = 200, 2_000  # documents
_CATCHING_UP = 4.0  # times the pace, where it is behind


@dataclass(frozen=True)
class Pace:
    """Documents a second, of all processes together: compared with their rows, and looked up by their ids."""

    rows: float
    ids: float

    @classmethod
    def of(cls, documents: int, every_seconds: float) -> Pace:
        """Return the pace at which so many documents are compared once in that time."""
        return cls(
            max(documents / (every_seconds * _ROWS_SHARE), _LEAST_ROWS),
            max(documents / (every_seconds * _IDS_SHARE), _LEAST_IDS),
        )

    @property
    def range_size(self) -> int:
        """Documents of a range."""
        return int(min(max(self.rows * _RANGE_SECONDS, _SMALLEST_RANGE), _LARGEST_RANGE))

    def seconds_for(self, rows: int, ids: int) -> float:
        """Return the seconds after its beginning at which a scrub is to be so far."""
        return rows / self.rows + ids / self.ids

    def at_most(self, state: str) -> float:
        """Return how many documents a second one process compares where the scrub is behind, in the pass of that name."""
        return _CATCHING_UP * (self.ids if state == "ids" else self.rows)
