"""
The alerts: when each fires, what it means and what to do, with the series that prove it.

Several processes export the same gauges, so that every expression takes their maximum by index before it sums; and one
Prometheus may see several installations, so that each is looked at for itself, by a label that tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from idxctl.core import metrics as m
from idxctl.core.conditions import MEANINGS

LABEL = "job"  # of Prometheus, which every series has
_PLACE = "INSTALLATION"  # stands for the label below


@dataclass(frozen=True)
class Proof:
    """Series for `promtool test rules`, and the alert's summary at a time, where it must fire then; None where it must not."""

    series: Mapping[str, str]
    at: str
    fires: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Alert:
    """One alert and its page in the runbook. ``proofs``: at least one at which it fires and one at which it does not."""

    name: str
    expr: str
    lasts: str
    severity: str
    summary: str
    meaning: str
    todo: tuple[str, ...]
    proofs: tuple[Proof, ...] = field(default=())

    @property
    def anchor(self) -> str:
        """Its heading on the runbook page, as links have it."""
        return self.name.lower()


def everywhere(metric: m.Metric, *, more: str = "") -> str:
    """Return a gauge by index, told once however many processes export it."""
    return f"max by (INSTALLATION, index) ({metric.series[0]}{more})"


def rate(metric: m.Metric, *, window: str = "2m") -> str:
    """Return what all processes of an installation count together, a second."""
    return f"sum by (INSTALLATION) (rate({metric.series[0]}[{window}]))"


_DLQ, _QUEUE, _OLDEST = m.DLQ_SIZE.series[0], m.QUEUE_SIZE.series[0], m.OLDEST_AGE.series[0]
_FAILURES = f'{m.FAILURE.series[0]}{{index="listings",action="index",reason="refused"}}'
_LISTINGS = '{index="listings"}'
_SHOP, _STOCK = '{INSTALLATION="shop",index="listings"}', '{INSTALLATION="stock",index="listings"}'
_AT_SHOP, _AT_STOCK = '{INSTALLATION="shop"}', '{INSTALLATION="stock"}'
_CONDITION = m.CONDITION.series[0]
_ALERTED = "|".join(kind.value for kind, one in MEANINGS.items() if one.alerted)
_AGE, _PERIOD = m.UNVERIFIED.series[0], m.SCRUB_PERIOD.series[0]
_DRIFT = m.DRIFT.series[0]
_UP, _ALIVE = m.POSTGRES_UP.series[0], m.WORKERS_ALIVE.series[0]

_WRITTEN = (
    Alert(
        "OpenSearchIndexingDeadLetters",
        f"sum by (INSTALLATION) ({everywhere(m.DLQ_SIZE)}) > 100",
        "5m",
        "warning",
        "{{ $value }} dead letters",
        "More than 100 documents could not be indexed for five minutes. Each is missing from the index, or is there in "
        "an older version; all others are fine.",
        (
            "`idxctl dlq stats` groups them by cause; most often it is one.",
            "A refused document: fix its row, and that change clears the letter; or fix the mapping and `idxctl reindex`.",
            "A cause outside the rows, once it is fixed: `idxctl dlq retry --limit 100`.",
            "Letters that cannot be fixed: `idxctl dlq purge --older-than 7d`.",
        ),
        (
            Proof({_DLQ + _LISTINGS: "60x10", _DLQ + '{index="storefronts"}': "60x10"}, "6m", "120 dead letters"),
            Proof({_DLQ + '{index="listings",instance="a"}': "60x10", _DLQ + '{index="listings",instance="b"}': "60x10"}, "6m"),
            Proof({_DLQ + _LISTINGS: "0x2 150x10"}, "6m"),
            Proof({_DLQ + _SHOP: "150x10", _DLQ + _STOCK: "60x10"}, "6m", "150 dead letters", {"INSTALLATION": "shop"}),
            Proof({_DLQ + _SHOP: "60x10", _DLQ + _STOCK: "60x10"}, "6m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingDeadLettersGrowing",
        f"sum by (INSTALLATION) ({everywhere(m.DLQ_SIZE)}) > sum by (INSTALLATION) ({everywhere(m.DLQ_SIZE, more=' offset 10m')})",
        "10m",
        "warning",
        "dead letters keep coming, {{ $value }} so far",
        "For ten minutes there have been more dead letters than ten minutes earlier: something keeps failing. Act before there "
        "are many.",
        (
            "`idxctl dlq stats` shows when each group began: compare with deployments and changes of the mapping.",
            "`idxctl dlq list --limit 5` shows the latest.",
            "A deployment that writes what the index refuses: roll it back, then `idxctl dlq retry`.",
        ),
        (
            Proof({_DLQ + _LISTINGS: "0+1x40"}, "35m", "dead letters keep coming, 35 so far"),
            Proof({_DLQ + _LISTINGS: "0+1x10 10x30"}, "35m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingQueueFull",
        f"sum by (INSTALLATION) ({everywhere(m.QUEUE_SIZE)}) / max by (INSTALLATION) ({m.QUEUE_CAPACITY.series[0]}) > 0.9",
        "1m",
        "warning",
        "the queue is at {{ $value | humanizePercentage }} of its size",
        "Documents come in faster than they are indexed. At its size the queue still takes every change, and nothing is lost; "
        "but the library falls back to indexing inline, and requests get slower.",
        (
            "`idxctl queue stats` says whether tasks move. If the index is paused or the circuit is open, see those alerts.",
            "They move: `idxctl worker start --preset high` (10 workers) or `--preset burst` (15), or more processes on more hosts.",
            "If tasks are retried for `overload`, OpenSearch is the limit, and more workers do not help.",
        ),
        (
            Proof({_QUEUE + _LISTINGS: "950x5", m.QUEUE_CAPACITY.series[0]: "1000x5"}, "2m", "the queue is at 95% of its size"),
            Proof({_QUEUE + _SHOP: "950x5", m.QUEUE_CAPACITY.series[0] + '{INSTALLATION="shop"}': "1000x5",
                   m.QUEUE_CAPACITY.series[0] + '{INSTALLATION="stock"}': "5000x5"}, "2m", "the queue is at 95% of its size",
                  {"INSTALLATION": "shop"}),
            Proof({_QUEUE + _LISTINGS: "900x5", m.QUEUE_CAPACITY.series[0]: "1000x5"}, "2m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingFailures",
        f"{rate(m.FAILURE)} > 10",
        "2m",
        "critical",
        "{{ $value | humanize }} documents a second are given up",
        "More than ten documents a second became dead letters for two minutes: not single bad rows, but a kind of "
        "document that the index refuses.",
        (
            "`idxctl dlq stats` names the error, in its first group.",
            "A field that the mapping does not know, after a deployment: add it to the mapping and `idxctl reindex`.",
            "`idxctl pause --index NAME` stops the flow of letters; changes wait in the queue meanwhile.",
            "Afterwards: `idxctl resume --index NAME`, and `idxctl dlq retry --error FINGERPRINT`.",
        ),
        (
            Proof({_FAILURES: "0+900x10"}, "6m", "15 documents a second are given up"),
            Proof({_FAILURES: "0+300x10"}, "6m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingLag",
        f"{everywhere(m.OLDEST_AGE)} > 300",
        "1m",
        "warning",
        "the oldest change of {{ $labels.index }} waits for {{ $value | humanizeDuration }}",
        "A change that was committed more than five minutes ago is not searchable yet.",
        (
            "`idxctl queue stats` says what holds it: a pause, an open circuit, no worker, or too much at once.",
            "A single task that is retried again and again also ages: `idxctl queue list --index NAME` shows its error.",
            "A large reindex or `queue add` of everything explains a lag that shrinks by itself.",
        ),
        (
            Proof({_OLDEST + _LISTINGS: "0+60x20"}, "9m", "the oldest change of listings waits for 9m 0s", {"index": "listings"}),
            Proof({_OLDEST + _LISTINGS: "299x20"}, "9m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingNoWorker",
        f'max by (INSTALLATION) ({_ALIVE}) == 0 or max by (INSTALLATION) (up{{job=~".*idxctl.*"}}) == 0 '
        f"or (max by (INSTALLATION) (max_over_time({_UP}[6h])) unless max by (INSTALLATION) ({_UP})) or absent({_UP})",
        "1m",
        "critical",
        "no worker is running",
        "No worker was seen for ten seconds, or no process of this installation can be scraped, or its target is gone. Changes are captured and "
        "wait in the queue; nothing is indexed.",
        (
            "`idxctl worker list` asks the database. If it is empty, no worker runs.",
            "Look at the service that runs `idxctl worker start`: its log ends with the reason.",
            "Meanwhile start one yourself: `idxctl worker start`.",
            "Workers run, and Prometheus cannot reach them: `curl http://HOST:PORT/livez`, then the scrape configuration.",
        ),
        (
            Proof({_ALIVE: "0x5", _UP: "1x5"}, "2m", "no worker is running"),
            Proof({_ALIVE + '{instance="a"}': "0x5", _ALIVE + '{instance="b"}': "2x5", _UP: "1x5"}, "2m"),
            Proof({"up": "1x5"}, "2m", "no worker is running"),
            Proof({_ALIVE + _AT_SHOP: "0x5", _ALIVE + _AT_STOCK: "2x5", _UP + _AT_SHOP: "1x5", _UP + _AT_STOCK: "1x5"}, "2m",
                  "no worker is running", {"INSTALLATION": "shop"}),
            Proof({_ALIVE + _AT_SHOP: "2x5", _UP + _AT_SHOP: "1x5", 'up{INSTALLATION="idxctl-stock"}': "0x5"}, "2m",
                  "no worker is running", {"INSTALLATION": "idxctl-stock"}),
            Proof({_ALIVE + _AT_SHOP: "2x20", _UP + _AT_SHOP: "1x20", _ALIVE + _AT_STOCK: "2x3", _UP + _AT_STOCK: "1x3"}, "12m",
                  "no worker is running", {"INSTALLATION": "stock"}),
        ),
    ),
    Alert(
        "OpenSearchIndexingCircuitOpen",
        f"max by (INSTALLATION) ({m.BREAKER_OPEN.series[0]}) > 0",
        "1m",
        "critical",
        "workers that wait for OpenSearch: {{ $value }}",
        "OpenSearch as a whole fails or rejects requests. Workers claim nothing and probe it. No attempt is spent, no dead "
        "letter is made, and work resumes by itself.",
        (
            "`idxctl queue stats` shows the reason; `curl OPENSEARCH/_cluster/health` shows the cluster's side.",
            "Bring OpenSearch back. There is nothing to do in idxctl.",
        ),
        (
            Proof({m.BREAKER_OPEN.series[0]: "1x5"}, "2m", "workers that wait for OpenSearch: 1"),
            Proof({m.BREAKER_OPEN.series[0]: "1 0x5"}, "2m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingBlocked",
        everywhere(m.PAUSED, more='{reason="blocked"}') + " > 0",
        "1m",
        "critical",
        "OpenSearch takes no writes to {{ $labels.index }}",
        "The index refuses writes as a whole: a full disk (flood stage), a read-only block, credentials, a broken document query. "
        "Its tasks wait with no attempt spent, and it is probed.",
        (
            "`idxctl queue stats` shows the reason.",
            "A full disk: free space, or raise the watermarks; OpenSearch lifts the block by itself.",
            "Credentials or rights: fix them. A broken document query: fix it and `idxctl reindex`.",
            "It resumes with the next probe, within a minute; `idxctl resume --index NAME` resumes at once.",
        ),
        (
            Proof({m.PAUSED.series[0] + '{index="listings",reason="blocked"}': "1x5"}, "2m", "OpenSearch takes no writes to listings", {"index": "listings"}),
            Proof({m.PAUSED.series[0] + '{index="listings",reason="operator"}': "1x5"}, "2m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingCaptureCoarse",
        f"{everywhere(m.COARSE)} > 0 or max by (INSTALLATION) ({m.GAPS.series[0]}) > 0",
        "2m",
        "warning",
        "capture cannot see which documents changed",
        "A column, a type or an expression that capture uses has changed, or the queue was missing. No write "
        "fails and nothing is lost: workers look at all of the index again, which is slow, for as long as it lasts.",
        (
            "`idxctl watch status` names the column. If it finds nothing wrong, this round is the last.",
            "A column was renamed, dropped or retyped: update the configuration, then `idxctl watch install`.",
            "Tables of idxctl are missing: `idxctl migrate status`.",
        ),
        (
            Proof({m.COARSE.series[0] + '{index="listings"}': "3x5"}, "3m", "capture cannot see which documents changed", {"index": "listings"}),
            Proof({m.GAPS.series[0]: "7x5"}, "3m", "capture cannot see which documents changed"),
            Proof({m.COARSE.series[0] + '{index="listings"}': "0x5", m.GAPS.series[0]: "0x5"}, "3m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingCondition",
        f'max by (INSTALLATION, index, kind) ({m.CONDITION.series[0]}{{kind=~"{_ALERTED}"}}) > 0',
        "5m",
        "warning",
        "{{ $labels.kind }} {{ $labels.index }}",
        "Something is wrong that no figure of the queue shows: changes that are not captured, claims that are held up, an alias that "
        "is not where it was. The value says how bad it is: 1 to look at, 2 to act on, or documents stay wrong.",
        (
            "`idxctl queue stats` says it in its first line, with names, and ends with the command that fixes it.",
            *(f"`{kind.value}`: {one.means}." + (f" `{one.fix.format(index='NAME')}`." if one.fix.startswith("idxctl") else "")
              for kind, one in MEANINGS.items() if one.alerted),
        ),
        (
            Proof({_CONDITION + '{index="listings",kind="unwatched"}': "2x10"}, "6m", "unwatched listings",
                  {"index": "listings", "kind": "unwatched"}),
            Proof({_CONDITION + '{index="listings",kind="unwatched",INSTALLATION="shop"}': "2x10"}, "6m", "unwatched listings",
                  {"index": "listings", "kind": "unwatched", "INSTALLATION": "shop"}),
            Proof({_CONDITION + '{index="listings",kind="paused"}': "2x10"}, "6m"),  # of which another alert tells
            Proof({_CONDITION + '{index="listings",kind="unwatched"}': "2x2"}, "12m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingDrift",
        f'sum by (INSTALLATION, index) (increase({_DRIFT}{{kind!="dead"}}[1h])) > 0',
        "0m",
        "warning",
        "documents of {{ $labels.index }} differed from their rows",
        "A scrub found documents that are not what their rows say, with nothing on its way that changes that: something else "
        "writes to the index, a change was not captured, or an old write came late. Unless `[scrub] repair = false`, they were enqueued.",
        (
            "The log of the worker that found them names some, with what is known of the cause: `differs from its rows`.",
            "`idxctl watch status`: are triggers missing, or disabled?",
            "Who else may write to the index? idxctl alone should.",
            "`idxctl verify --index NAME --repair --wait` compares everything now.",
        ),
        (
            Proof({_DRIFT + '{index="listings",kind="stale"}': "0x5 3x10"}, "8m", "documents of listings differed from their rows",
                  {"index": "listings"}),
            Proof({_DRIFT + '{index="listings",kind="dead"}': "0x5 3x10"}, "8m"),
            Proof({_DRIFT + '{index="listings",kind="stale"}': "3x90"}, "80m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingScrubBehind",
        f"{everywhere(m.UNVERIFIED)} > 2 * {everywhere(m.SCRUB_PERIOD)}",
        "10m",
        "warning",
        "part of {{ $labels.index }} was last compared {{ $value | humanizeDuration }} ago",
        "Not all of the index was compared with its rows within twice the period that its scrub is to take. What differs "
        "may have been there for as long.",
        (
            "Scrubs give way to live work: `idxctl queue stats` says whether there is always some. More workers, or a longer period, make room.",
            "The log of a worker says `is not compared for now` and why: OpenSearch refuses, rights are missing (`idxctl grants --worker ROLE`).",
            "No worker scrubs: `idxctl worker start --scrub 24h`, or `[scrub] every`.",
            "`idxctl verify --index NAME` compares everything at once, and counts as well.",
        ),
        (
            Proof({_AGE + _LISTINGS: "172900x20", _PERIOD + _LISTINGS: "86400x20"}, "15m",
                  "part of listings was last compared 2d 0h 1m 40s ago", {"index": "listings"}),
            Proof({_AGE + _LISTINGS: "172700x20", _PERIOD + _LISTINGS: "86400x20"}, "15m"),
            Proof({_AGE + _LISTINGS: "172900x20"}, "15m"),
        ),
    ),
    Alert(
        "OpenSearchIndexingPostgresDown",
        f"max by (INSTALLATION) ({_UP}) == 0",
        "1m",
        "critical",
        "PostgreSQL does not answer idxctl",
        "No process that exports metrics can read PostgreSQL. Queue and dead letters are in it, so their size is unknown. Workers "
        "wait for it, and nothing is lost.",
        (
            "`idxctl queue stats` shows the error of the connection.",
            "`curl http://HOST:PORT/readyz` shows that of a worker's process.",
            "Bring PostgreSQL back; workers resume by themselves.",
        ),
        (
            Proof({_UP + '{instance="a"}': "0x5", _UP + '{instance="b"}': "0x5", _ALIVE: "1x5"}, "2m", "PostgreSQL does not answer idxctl"),
            Proof({_UP + '{instance="a"}': "0x5", _UP + '{instance="b"}': "1x5", _ALIVE: "1x5"}, "2m"),
            Proof({_UP + _AT_SHOP: "0x5", _UP + _AT_STOCK: "1x5"}, "2m", "PostgreSQL does not answer idxctl", {"INSTALLATION": "shop"}),
        ),
    ),
)  # fmt: skip


def told_apart(label: str) -> tuple[Alert, ...]:
    """Return the alerts for installations that *label* tells apart."""
    return tuple(
        replace(
            one,
            expr=one.expr.replace(_PLACE, label),
            proofs=tuple(_proof(proof, label) for proof in one.proofs),
        )
        for one in _WRITTEN
    )


def _proof(proof: Proof, label: str) -> Proof:
    job = "" if label == LABEL else 'job="idxctl",'  # by which targets of idxctl are known among all
    series = {
        name.replace("up{", "up{" + job, 1).replace(_PLACE, label)
        if name.startswith("up{")
        else name.replace(_PLACE, label): one
        for name, one in proof.series.items()
    }
    return replace(
        proof, series=series, labels={name.replace(_PLACE, label): one for name, one in proof.labels.items()}
    )


ALERTS = told_apart(LABEL)
