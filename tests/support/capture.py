"""A database whose tables are watched, looked at through what its queue holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from idxctl.capture import lookups
from idxctl.capture.install import Installed, install
from idxctl.capture.plan import plan
from idxctl.capture.status import WatchStatus, status
from idxctl.capture.watches import watch_by_id
from idxctl.config.settings import DatabaseSettings, IndexSettings, WatchSettings
from idxctl.core.secret import Secret
from idxctl.postgres.connect import Connection, connect

SHOP_WATCHES: tuple[dict[str, Any], ...] = (
    {"table": "listings", "key": ("id",), "ignore": ("views_count",)},
    {"table": "listing_images", "key": ("listing_id",)},
    {"table": "listing_attributes", "key": ("listing_id",)},
    {"table": "listing_translations", "key": ("listing_id",)},
    {"table": "storefronts", "keys": "SELECT l.id FROM listings l JOIN changed c ON l.storefront_id = c.id"},
    {
        "table": "categories",
        "keys": "SELECT l.id FROM listings l JOIN changed c ON l.category_id = c.id",
        "deferred": True,
    },
)


def index(*watches: Mapping[str, Any], name: str = "docs", key: tuple[str, ...] = ()) -> dict[str, IndexSettings]:
    """One index with these watches, as the configuration gives it."""
    made = tuple(
        WatchSettings(**{**watch, "position": place, "line": 10 + place})  # type: ignore[arg-type]
        for place, watch in enumerate(watches)
    )
    return {name: IndexSettings(name, "SELECT 1 AS document_id, '{}' AS document", key=key, watches=made)}


class Captured:
    """A connection of idxctl to a database, with the queue as its answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.conn = self.connect()

    def connect(self, **settings: Any) -> Connection:
        return connect(DatabaseSettings(url=Secret(self.url), **settings))

    def sql(self, *statements: str) -> Captured:
        for statement in statements:
            self.conn.execute(statement.encode())
        return self

    def watch(self, *watches: Mapping[str, Any], **more: Any) -> Installed:
        """Install these watches, in place of those of the same index, and forget what the queue holds."""
        done = self.install(index(*watches, **more))
        self.sql("TRUNCATE opensearch_indexing_queue")
        return done

    def install(self, indexes: Mapping[str, IndexSettings], **more: Any) -> Installed:
        return install(self.conn, plan(self.conn, indexes), list(indexes), **more)

    def status(self, *watches: Mapping[str, Any], **more: Any) -> list[WatchStatus]:
        return status(self.conn, index(*watches, **more))

    def tasks(self, columns: str, kind: str) -> list[Any]:
        rows = self.conn.execute(
            f"SELECT {columns} FROM opensearch_indexing_queue WHERE kind = '{kind}' ORDER BY id".encode()
        ).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    def after(self, *statements: str) -> Counter[str]:
        """Run statements and return the ids they left in the queue, with their number; then empty the queue."""
        self.sql(*statements)
        return self.ids()

    def ids(self) -> Counter[str]:
        found = Counter(self.tasks("document_id", "document"))
        self.sql("DELETE FROM opensearch_indexing_queue WHERE kind = 'document'")
        return found

    def payloads(self) -> list[Any]:
        return [lookups.stored_rows(payload) for payload in self.tasks("payload", "keys") if "coarse" not in payload]

    def coarse(self, *statements: str) -> Counter[tuple[int, str]]:
        """Run statements and return the coarse tasks they left: by watch, with the reason; then empty the queue."""
        self.sql(*statements)
        found = Counter(self.tasks("(payload ->> 'watch')::int, payload ->> 'coarse'", "keys"))
        self.sql("TRUNCATE opensearch_indexing_queue")
        return found

    def expanded(self, *, by_stored_types: bool = False) -> list[str]:
        """Run the lookups of the waiting fan-outs as a worker does, and return the ids they lead to."""
        found: set[str] = set()
        for payload in self.tasks("payload", "keys"):
            watch = watch_by_id(self.conn, payload["watch"])
            assert watch is not None
            stored = watch.definition.to_json()
            with self.conn.transaction(local=lookups.local_settings(stored)):
                types = lookups.casts(self.conn, stored, by_stored_types=by_stored_types)
                query = lookups.expansion(stored, lookups.stored_rows(payload), types)
                found |= {row[0] for row in self.conn.execute(query)}
        return sorted(found)

    def states(self, found: Sequence[WatchStatus]) -> list[str]:
        return [one.state for one in found]
