"""An application at work: threads that change every table of the marketplace, a transaction a change, until stopped."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, final

from idxctl.config.settings import DatabaseSettings
from idxctl.core.errors import PostgresRefused
from idxctl.postgres.connect import Connection, connect

CONFLICTS = {"40001", "40P01"}  # an application tries again; here the next change comes anyway

# One change each, with the table it counts for. Named parameters: a listing, another one, a lookup row, an amount, a word.
_UPDATES: tuple[tuple[int, str, bytes], ...] = (
    (12, "listings", b"UPDATE listings SET price = %(amount)s, updated_at = now() WHERE id = %(listing)s"),
    (4, "listings", b"UPDATE listings SET title = title || ' ' || %(word)s, stock = stock + 1 WHERE id = %(listing)s"),
    (3, "listings", b"UPDATE listings SET status = %(status)s WHERE id = %(listing)s"),
    (3, "listings", b"UPDATE listings SET views_count = views_count + 1 WHERE id = %(listing)s"),
    (1, "listings", b"UPDATE listings SET stock = stock + 1 WHERE id BETWEEN %(listing)s AND %(listing)s + 40"),
    (3, "listing_images", b"INSERT INTO listing_images (listing_id, url, position) VALUES (%(listing)s, 'https://cdn.example.com/' || %(word)s, 3)"),
    (2, "listing_images", b"DELETE FROM listing_images WHERE listing_id = %(listing)s AND position = 3"),
    (2, "listing_images", b"UPDATE listing_images SET listing_id = %(other)s WHERE listing_id = %(listing)s AND position = 3"),
    (4, "listing_attributes", b"UPDATE listing_attributes SET value = %(word)s WHERE listing_id = %(listing)s AND name = 'attr1'"),
    (4, "listing_translations", b"INSERT INTO listing_translations VALUES (%(listing)s, 'sr', %(word)s) ON CONFLICT (listing_id, language) DO UPDATE SET title = EXCLUDED.title"),
    (2, "listing_translations", b"DELETE FROM listing_translations WHERE listing_id = %(listing)s AND language = 'en'"),
    (1, "storefronts", b"UPDATE storefronts SET name = 'Store ' || %(word)s WHERE id = %(lookup)s"),
    (1, "categories", b"UPDATE categories SET name = 'Category ' || %(word)s WHERE id = %(lookup)s"),
)  # fmt: skip
_INSERT = b"""
INSERT INTO listings (user_id, category_id, storefront_id, title, description, price, lat, lon)
VALUES (%(lookup)s, %(lookup)s, %(lookup)s, 'New ' || %(word)s, 'just listed', %(amount)s, 44.8, 20.4) RETURNING id
"""
_CHILDREN = b"""
WITH image AS (INSERT INTO listing_images (listing_id, url, is_main) VALUES (%(listing)s, 'https://cdn.example.com/new', true))
INSERT INTO listing_attributes (listing_id, name, value) VALUES (%(listing)s, 'attr1', %(word)s)
"""
_DELETE = b"DELETE FROM listings WHERE id = %(listing)s"


@final
class Writer:
    """
    Change the marketplace's tables from *threads* connections; a context manager.

    Listings up to *spared* are left alone, but for what a renamed category does to them.
    """

    def __init__(self, database: DatabaseSettings, *, listings: int, spared: int, threads: int = 2) -> None:
        self.changes: Counter[str] = Counter()  # committed, by table
        self._database = database
        self._listings = listings
        self._spared = spared
        self._stopping = threading.Event()
        self._broken: list[BaseException] = []
        self._guard = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(seed,), name=f"writer-{seed}", daemon=True)
            for seed in range(threads)
        ]

    def __enter__(self) -> Writer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def stop(self) -> None:
        """Stop writing; raises what broke a thread, if anything did."""
        self.__exit__()
        if self._broken:
            raise self._broken[0]

    @property
    def total(self) -> int:
        """Changes committed so far."""
        with self._guard:
            return sum(self.changes.values())

    def _work(self, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - the same changes every time
        mine: list[int] = []  # listings of this thread's own: the only ones that it deletes
        try:
            with connect(self._database, application_name="idxctl demo writer") as conn:
                while not self._stopping.wait(dice.uniform(0.01, 0.03)):
                    table = self._change(conn, dice, mine)
                    with self._guard:
                        self.changes[table] += 1
        except BaseException as error:  # noqa: BLE001 - told by stop(), from the thread that can tell it
            if not self._stopping.is_set():
                self._broken.append(error)

    def _change(self, conn: Connection, dice: random.Random, mine: list[int]) -> str:
        """Make one change of a random kind, and return the table."""
        given = self._parameters(dice)
        try:
            lot = dice.random()
            if lot < 0.05:
                mine.append(_new_listing(conn, given))
                return "listings"
            if lot < 0.08 and mine:
                conn.execute(_DELETE, {**given, "listing": mine.pop()})
                return "listings"
            _, table, statement = dice.choices(_UPDATES, [one[0] for one in _UPDATES])[0]
            conn.execute(statement, given)
        except PostgresRefused as error:
            if error.sqlstate not in CONFLICTS:
                raise
            return "conflicts"
        return table

    def _parameters(self, dice: random.Random) -> Mapping[str, Any]:
        return {
            "listing": dice.randint(self._spared + 1, self._listings),
            "other": dice.randint(self._spared + 1, self._listings),
            "lookup": dice.randint(1, 500),
            "amount": dice.randint(100, 99_999) / 100,
            "word": f"{dice.choice(('blue', 'large', 'čist', 'rare', 'fast'))} {dice.randint(1, 999)}",
            "status": dice.choice(("active", "active", "sold", "draft")),
        }


def _new_listing(conn: Connection, given: Mapping[str, Any]) -> int:
    """Insert a listing with an image and an attribute, in one transaction."""
    with conn.raw.transaction():  # an application's: under its own search path
        row = conn.execute(_INSERT, given).fetchone()
        assert row is not None
        conn.execute(_CHILDREN, {**given, "listing": row[0]})
    return int(row[0])
