"""
Every metric there is, defined once: exporter, documentation, alert rules and dashboard are made from here.

Counters and histograms are counted by the process that does the work; gauges are read from PostgreSQL when someone
scrapes, so that every process that answers tells the same. Labels are index, action, reason, mode and kind, never an id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import product

from idxctl.core import conditions

PREFIX = "opensearch_indexing_"
ACTIONS = ("index", "delete")
MODES = ("sync", "async")
OTHER = "other"  # the index that is named where there is none of that name, or too many
MOST_INDEXES = 1000  # labels that Prometheus is given of them: each makes some eighty series


class Kind(Enum):
    """What a metric is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric. ``name`` is without the suffixes that counters and histograms get; ``reasons`` says what each value means."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which it is scraped."""
        if self.kind is Kind.COUNTER:
            return (f"{self.name}_total",)
        if self.kind is Kind.HISTOGRAM:
            return tuple(self.name + suffix for suffix in ("_bucket", "_sum", "_count"))
        return (self.name,)

    @property
    def counted(self) -> bool:
        """Whether the process counts it; otherwise it is read from PostgreSQL."""
        return self.kind is not Kind.GAUGE

    def children(self, index: str, modes: tuple[str, ...] = MODES) -> Iterator[tuple[str, ...]]:
        """Yield the values of its labels for one index, every combination there can be; of none, what belongs to no index."""
        values = {
            "index": (index,),
            "action": ACTIONS,
            "mode": modes,
            "reason": tuple(self.reasons),
            "kind": tuple(self.reasons),
        }
        yield from product(*(values[label] for label in self.labels))


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_DOCUMENTS = (1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 2000.0, 5000.0)
_BYTES = (1e3, 1e4, 1e5, 5e5, 1e6, 2.5e6, 5e6, 1e7, 2.5e7)

SUCCESS = Metric(
    PREFIX + "success",
    Kind.COUNTER,
    "Documents indexed, or deleted from the index.",
    ("index", "action", "mode"),
)
FAILURE = Metric(
    PREFIX + "failure",
    Kind.COUNTER,
    "Documents given up: each became a dead letter.",
    ("index", "action", "reason"),
    reasons={
        "refused": "OpenSearch refuses the document: its mapping, an id too long",
        "unreadable": "the document query fails for it",
        "duplicate": "the document query returns its id more than once",
        "too_large": "alone it is larger than OpenSearch takes",
        "attempts": "it failed as often as max_attempts allows",
    },
)
RETRY = Metric(
    PREFIX + "retry",
    Kind.COUNTER,
    "Tasks put back into the queue to be tried again.",
    ("index", "action", "reason"),
    reasons={
        "unreachable": "OpenSearch, or a shard of it, did not answer; no attempt is spent",
        "overload": "OpenSearch turned the request away; no attempt is spent",
        "blocked": "the index takes no writes; no attempt is spent",
        "outdated": "what was read had grown too old to be sent, or needs a newer token; no attempt is spent",
        "attempt": "the document's own failure; an attempt is spent",
    },
)
LATENCY = Metric(
    PREFIX + "latency_seconds",
    Kind.HISTOGRAM,
    "Seconds from enqueued to indexed; sync is what an application indexed inline.",
    ("index", "mode"),
    buckets=_SECONDS,
)
BATCH_SIZE = Metric(PREFIX + "batch_size", Kind.HISTOGRAM, "Documents of one claim.", ("index",), buckets=_DOCUMENTS)
BATCH_BYTES = Metric(
    PREFIX + "batch_bytes", Kind.HISTOGRAM, "Bytes sent to OpenSearch for one claim.", ("index",), buckets=_BYTES
)
POSTGRES_UP = Metric(
    PREFIX + "postgres_up",
    Kind.GAUGE,
    "1 when PostgreSQL answered this scrape; at 0 the other gauges are missing and the counters are the process's own.",
)
QUEUE_SIZE = Metric(
    PREFIX + "queue_size",
    Kind.GAUGE,
    "Due document tasks of normal and high priority: what the capacity is measured against.",
    ("index",),
)
QUEUE_CAPACITY = Metric(
    PREFIX + "queue_capacity",
    Kind.GAUGE,
    "Tasks at which the queue counts as full: the greatest --queue-size among live workers, otherwise the configured one.",
)
QUEUED = Metric(PREFIX + "queued", Kind.GAUGE, "All tasks that wait, lookups and later ones too.", ("index",))
IN_FLIGHT = Metric(PREFIX + "in_flight", Kind.GAUGE, "Tasks claimed by a worker and not yet settled.", ("index",))
DLQ_SIZE = Metric(PREFIX + "dlq_size", Kind.GAUGE, "Dead letters.", ("index",))
OLDEST_AGE = Metric(
    PREFIX + "oldest_age_seconds",
    Kind.GAUGE,
    "Age of the oldest open change, which is the lag; 0 when none is open.",
    ("index",),
)
PAUSED = Metric(
    PREFIX + "paused",
    Kind.GAUGE,
    "1 while nothing is claimed from the index.",
    ("index", "reason"),
    reasons={
        "operator": "an operator paused it; until idxctl resume",
        "blocked": "OpenSearch refuses its writes; it is probed and resumes by itself",
    },
)
COARSE = Metric(
    PREFIX + "coarse",
    Kind.GAUGE,
    "Tasks after which all of an index is looked at again, since capture could not see what changed.",
    ("index",),
)
GAPS = Metric(
    PREFIX + "gaps",
    Kind.GAUGE,
    "Statements that left no task, since the queue was away; a worker that finds them looks at every index again.",
)
CONDITION = Metric(
    PREFIX + "condition",
    Kind.GAUGE,
    "What is wrong, by kind: 1 to look at, 2 to act on. The index is empty where it is all of them; of others, what does not hold has no series.",
    ("index", "kind"),
    reasons={kind.value: f"{one.group.value}: {one.means}" for kind, one in conditions.MEANINGS.items()},
)
BREAKER_OPEN = Metric(
    PREFIX + "breaker_open", Kind.GAUGE, "Live workers that claim nothing because OpenSearch as a whole fails."
)
WORKERS_ALIVE = Metric(PREFIX + "workers_alive", Kind.GAUGE, "Worker processes seen within the last ten seconds.")
REINDEX_RUNNING = Metric(PREFIX + "reindex_running", Kind.GAUGE, "1 while a reindex is under way.", ("index",))
REINDEX_DOCUMENTS = Metric(
    PREFIX + "reindex_documents", Kind.GAUGE, "Documents that the reindex under way has written.", ("index",)
)
REINDEX_FAILED = Metric(
    PREFIX + "reindex_failed", Kind.GAUGE, "Documents refused in the reindex under way.", ("index",)
)
VERIFIED = Metric(PREFIX + "verified", Kind.COUNTER, "Documents that scrubs compared with their rows.", ("index",))
DRIFT = Metric(
    PREFIX + "drift",
    Kind.COUNTER,
    "Documents that scrubs found to differ from their rows, with nothing on its way that changes that.",
    ("index", "kind"),
    reasons={
        "missing": "a row, and no document",
        "stale": "the document is not what its row says",
        "orphan": "a document, and no row",
        "dead": "any of these, and a dead letter: it is left to its retries",
    },
)
DRIFT_REPAIRED = Metric(
    PREFIX + "drift_repaired",
    Kind.COUNTER,
    "Documents that scrubs enqueued, to be written again.",
    ("index", "kind"),
    reasons={kind: text for kind, text in DRIFT.reasons.items() if kind != "dead"},
)
UNVERIFIED = Metric(
    PREFIX + "unverified_seconds",
    Kind.GAUGE,
    "Age of the oldest unverified range: no document of the index was compared with its row longer ago. Missing where there was no whole comparison and none is due.",
    ("index",),
)
SCRUB_PERIOD = Metric(
    PREFIX + "scrub_period_seconds",
    Kind.GAUGE,
    "In which all of the index is to be compared once; missing where it is not scrubbed.",
    ("index",),
)
HTTP_REFUSED = Metric(
    PREFIX + "http_refused",
    Kind.COUNTER,
    "Requests over HTTP that were turned away.",
    ("reason",),
    reasons={
        "wrong_token": "an unknown token; a few a minute are a script with an old one, many are guesses",
        "no_token": "none was sent where one is needed",
        "not_allowed": "not allowed: a viewer, another site's page, a proxy where no token is configured",
        "too_many": "more requests than rate_limit allows",
    },
)

ALL = (
    QUEUE_SIZE, SUCCESS, FAILURE, RETRY, LATENCY, DLQ_SIZE, OLDEST_AGE, QUEUE_CAPACITY, QUEUED, IN_FLIGHT, PAUSED, COARSE, GAPS, CONDITION,
    BREAKER_OPEN, WORKERS_ALIVE, BATCH_SIZE, BATCH_BYTES, REINDEX_RUNNING, REINDEX_DOCUMENTS, REINDEX_FAILED, POSTGRES_UP,
    VERIFIED, DRIFT, DRIFT_REPAIRED, UNVERIFIED, SCRUB_PERIOD, HTTP_REFUSED,
)  # fmt: skip
COUNTED = tuple(one for one in ALL if one.counted)

Values = Mapping[tuple[str, ...], float]  # by the values of the labels, in the metric's order
Gauges = Mapping[str, Values]  # by the metric's name
