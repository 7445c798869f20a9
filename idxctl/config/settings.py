"""
What the configuration says, as frozen data. `idxctl.config.load` reads it from file, environment and flags.

Nothing here connects or reads; a `Secret` shows itself only when asked in so many words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idxctl.config import sums
from idxctl.config.trust import Remark
from idxctl.core.secret import Secret


@dataclass(frozen=True)
class DatabaseSettings:
    """``[database]``. Without a url libpq's own ``PG*`` variables and defaults decide."""

    url: Secret | None = None
    schema: str | None = None  # where our tables live; None: the first schema of the search path
    read_timeout_seconds: float = 300.0  # of one statement that reads documents; a worker's is less than its lease
    keep_values: bool = True  # [log] values: whether the values that errors quote are stored and logged
    keep_data: bool = True  # [dlq] store: whether letters keep the data that an older program stored in them


@dataclass(frozen=True)
class OpenSearchSettings:
    """``[opensearch]``. At most one of basic auth, bearer token, API key and AWS signing."""

    urls: tuple[str, ...] = ("http://localhost:9200",)  # without user info
    username: str | None = None
    password: Secret | None = None
    bearer_token: Secret | None = None
    api_key: Secret | None = None
    aws_region: str | None = None
    aws_service: str = "es"  # "aoss" for serverless
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    verify: bool = True
    compress: bool = False
    request_timeout_seconds: float = 30.0


@dataclass(frozen=True)
class WatchSettings:
    """One ``[[indexes.NAME.watch]]``: a table whose changes touch documents of the index."""

    table: str  # as written in SQL, perhaps qualified and quoted
    key: tuple[str, ...] = ()  # columns holding the document's key, as the catalog has them
    key_sql: str | None = None  # an expression over the row, instead
    keys: str | None = None  # a query over `changed` that returns the keys, instead; expanded after commit (C1)
    ignore: tuple[str, ...] = ()
    deferred: bool = False
    priority: str = "normal"  # high, normal, low
    at: str | None = None  # a column of times at which the document changes by itself
    was: Mapping[str, str] = field(
        default_factory=dict
    )  # columns that are about to be renamed: as named here, as they were
    capture: str = "coarse"  # or "strict": where capture cannot do its work, the application's write fails (C6)
    position: int = 0  # its place in the index's list, from 0
    line: int | None = None  # in the file, when known


@dataclass(frozen=True)
class ScrubSettings:
    """``[scrub]``, or what one index has of its own; None where nothing is said."""

    every_seconds: float | None = None  # 0: never
    repair: bool | None = None


@dataclass(frozen=True)
class Scrub:
    """How one index is compared with its rows for ever: all of it once in so many seconds; whether what differs is repaired."""

    every_seconds: float
    repair: bool = True


@dataclass(frozen=True)
class IndexSettings:
    """``[indexes.NAME]``: how a document is made, and which tables it is made from."""

    name: str  # the alias that clients query
    document: str  # the SQL text
    document_path: Path | None = None
    mapping: Mapping[str, Any] = field(default_factory=dict)  # {"settings": ..., "mappings": ...}
    key: tuple[str, ...] = ()  # composite key columns; empty: the query returns document_id
    routing: str | None = None  # an SQL expression over document_id
    pipeline: str | None = None
    verify_ignore: tuple[str, ...] = ()
    search_path: tuple[str, ...] = ()  # that its SQL sees; empty: that of the session that defines it
    pinned: Mapping[str, str] = field(
        default_factory=dict
    )  # settings of PostgreSQL that its documents are rendered under
    watches: tuple[WatchSettings, ...] = ()
    scrub: ScrubSettings = ScrubSettings()  # what it has of its own


@dataclass(frozen=True)
class WorkerSettings:
    """``[worker]``, the preset's figures unless named."""

    workers: int = 5  # threads
    queue_size: int = 1000  # the capacity at which the system counts as full
    batch_size: int = 1000  # tasks of one claim, at most
    batch_bytes: int = 8 * 1024 * 1024  # of one bulk body, about
    max_attempts: int = 3
    drain_timeout_seconds: float = 30.0
    lease_seconds: float = 30.0
    age_limit_seconds: float = 60.0  # how old bytes may be, counted from their token (T3)


@dataclass(frozen=True)
class Bearer:
    """One who may ask over HTTP: the name goes into the audit."""

    name: str
    role: str  # viewer, operator
    token: Secret  # or the hash of one, see `idxctl.config.bearers`


@dataclass(frozen=True)
class HttpSettings:
    """``[http]``. Without bearers nothing can be changed over HTTP, and only this machine reads."""

    listen: str = "127.0.0.1:9321"
    bearers: tuple[Bearer, ...] = ()
    read_only: bool = False
    anonymous_read: bool = False  # reading needs no token, wherever the request comes from
    rate_limit: int = 50  # requests a second of one client
    max_body: int = 65_536  # bytes of a request
    remarks: tuple[Remark, ...] = ()  # what is unwise about the file of tokens; a server logs it


@dataclass(frozen=True)
class Settings:
    """The whole of it."""

    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    opensearch: OpenSearchSettings = field(default_factory=OpenSearchSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    scrub: ScrubSettings = ScrubSettings(every_seconds=0.0, repair=True)
    indexes: Mapping[str, IndexSettings] = field(default_factory=dict)
    adopt_index: str | None = None  # [dlq] adopt_index: where letters of an older table belong
    path: Path | None = None  # the file it came from
    sources: Mapping[str, str] = field(
        default_factory=dict
    )  # "database.url" -> "IDXCTL_DATABASE_URL", for `config show`
    remarks: tuple[Remark, ...] = ()  # what is unwise about the files that it was read from

    def scrub_of(self, index: str) -> Scrub | None:
        """Return how *index*, configured or not, is scrubbed; None where it is not."""
        own = self.indexes[index].scrub if index in self.indexes else ScrubSettings()
        every = own.every_seconds if own.every_seconds is not None else self.scrub.every_seconds
        repair = own.repair if own.repair is not None else self.scrub.repair
        return Scrub(every, repair is not False) if every else None

    @property
    def bytes_gone_after_seconds(self) -> float:
        """How long after its token a document's bytes may still arrive (C3, G3, T3)."""
        return sums.bytes_gone_after(self.worker.age_limit_seconds, self.opensearch.request_timeout_seconds)


PRESETS: Mapping[str, tuple[int, int]] = {  # workers, queue size
    "low": (2, 100),
    "medium": (5, 1_000),
    "high": (10, 5_000),
    "burst": (15, 10_000),
}
