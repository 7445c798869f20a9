"""``/metrics``: the process's counters, and the gauges as PostgreSQL has them, read at most every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from idxctl.core import metrics
from idxctl.core.errors import IdxctlError
from idxctl.core.metrics import Gauges, Kind
from idxctl.core.tally import Tally
from idxctl.status.gauges import UNREADABLE

CACHE_SECONDS = 3.0


class Exporter(Collector):
    """Answers scrapes. *read* reads the gauges; while it cannot, the counters are told all the same."""

    def __init__(
        self, tally: Tally, read: Callable[[], Gauges], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tally = tally
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._gauges: tuple[float, Gauges] | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the page in the format that the scraper prefers, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def gauges(self) -> Gauges:
        """Return the gauges, a few seconds old at most."""
        with self._lock:
            if self._gauges is None or self._clock() - self._gauges[0] >= CACHE_SECONDS:
                try:
                    found = self._read()
                except IdxctlError:
                    found = UNREADABLE
                self._gauges = (self._clock(), found)
            found = self._gauges[1]
        self._tally.know(index for (index,) in found.get(metrics.QUEUE_SIZE.name, {}))
        return found

    def describe(self) -> list[Family]:
        """Return nothing: registering must not read the database."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield every metric with its children."""
        gauges = self.gauges()
        for metric in metrics.ALL:
            if metric.kind is Kind.COUNTER:
                counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
                for labels, value in self._tally.counters(metric).items():
                    counter.add_metric(labels, value)
                yield counter
            elif metric.kind is Kind.HISTOGRAM:
                yield self._histogram(metric)
            elif metric.name in gauges:
                gauge = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
                for labels, value in gauges[metric.name].items():
                    gauge.add_metric(labels, value)
                yield gauge

    def _histogram(self, metric: metrics.Metric) -> Family:
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        bounds = [*map(str, metric.buckets), "+Inf"]
        for labels, one in self._tally.histograms(metric).items():
            family.add_metric(
                labels, list(zip(bounds, map(float, accumulate(one.counts)), strict=True)), sum_value=one.sum
            )
        return family
