"""What a process counts: numbers by metric and labels, from which a scrape is answered."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from idxctl.core.metrics import COUNTED, MODES, MOST_INDEXES, OTHER, Kind, Metric


@dataclass
class Distribution:
    """A histogram: how many values fell into each bucket (the last is beyond all bounds), and their sum."""

    counts: list[int]
    sum: float = 0.0


class Tally:
    """
    Counters and histograms of one process; thread-safe.

    The children of an index exist, at zero, from when it is known, so that a rate sees its first failure.
    """

    def __init__(self, indexes: Iterable[str] = (), *, modes: tuple[str, ...] = MODES) -> None:
        self._lock = threading.Lock()
        self._modes = modes
        self._known: set[str] = set()
        self._counters: dict[str, dict[tuple[str, ...], float]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], Distribution]] = {}
        for metric in COUNTED:
            if metric.kind is Kind.COUNTER:
                self._counters[metric.name] = {}
            else:
                self._histograms[metric.name] = {}
            if "index" not in metric.labels:
                self._counters[metric.name] = dict.fromkeys(metric.children("", modes), 0.0)
        self.know(indexes)

    def know(self, indexes: Iterable[str]) -> None:
        """Make the children of *indexes*, at zero."""
        for index in sorted(set(indexes) - self._known - {OTHER}):
            with self._lock:
                if len(self._known) >= MOST_INDEXES:
                    return
                self._known.add(index)
                for metric in COUNTED:
                    for labels in metric.children(index, self._modes):
                        if metric.kind is Kind.COUNTER:
                            self._counters[metric.name].setdefault(labels, 0.0)
                        else:
                            self._distribution(metric, labels)

    def add(self, metric: Metric, *labels: str, amount: float = 1.0) -> None:
        """Count *amount* more."""
        labels = self._bounded(metric, labels)
        with self._lock:
            values = self._counters[metric.name]
            values[labels] = values.get(labels, 0.0) + amount

    def observe(self, metric: Metric, values: Iterable[float], *labels: str) -> None:
        """Sort *values* into the metric's buckets."""
        bounds, labels = metric.buckets, self._bounded(metric, labels)
        with self._lock:
            into = self._distribution(metric, labels)
            for value in values:
                into.counts[bisect_left(bounds, value)] += 1
                into.sum += value

    def _bounded(self, metric: Metric, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return labels of which there are not too many: what is counted of yet another index is `OTHER`'s."""
        if metric.labels[:1] != ("index",) or labels[0] in self._known:
            return labels
        self.know([labels[0]])
        return labels if labels[0] in self._known else (OTHER, *labels[1:])

    def _distribution(self, metric: Metric, labels: tuple[str, ...]) -> Distribution:
        found = self._histograms[metric.name].get(labels)
        if found is None:
            found = self._histograms[metric.name][labels] = Distribution([0] * (len(metric.buckets) + 1))
        return found

    def counters(self, metric: Metric) -> dict[tuple[str, ...], float]:
        """Return a counter's values by its labels."""
        with self._lock:
            return dict(self._counters[metric.name])

    def histograms(self, metric: Metric) -> dict[tuple[str, ...], Distribution]:
        """Return a histogram's values by its labels."""
        with self._lock:
            found = self._histograms[metric.name]
            return {labels: Distribution(list(one.counts), one.sum) for labels, one in found.items()}
