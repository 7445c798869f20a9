"""Life in the marketplace: transactions of every kind over every table, the same ones for the same seed."""

from __future__ import annotations

import random
import threading

import psycopg
from psycopg import errors

_REFUSED = (errors.DeadlockDetected, errors.UniqueViolation, errors.ForeignKeyViolation, errors.LockNotAvailable)
_WORDS = ("lamp", "šal", "crème", 'a "quoted" one', "two\nlines", "🚲")
_STATUS = ("active", "sold", "draft")


class Seller(threading.Thread):
    """
    One connection that changes the shop until it has made *changes* of them, and goes on while *until* is not set.

    ``made`` counts statements of committed transactions that changed a row.
    """

    def __init__(self, database: str, seed: int, changes: int, *, until: threading.Event | None = None) -> None:
        super().__init__(name=f"seller-{seed}", daemon=True)
        self.made = 0
        self.kinds: dict[str, int] = {}
        self.error: BaseException | None = None
        self._database = database
        self._seed = seed
        self._random = random.Random(seed)
        self._changes = changes
        self._until = until
        self._truncated = False

    def run(self) -> None:
        try:
            with psycopg.connect(self._database, autocommit=True) as connection:
                self._connection = connection
                self._highest = connection.execute("SELECT max(id) FROM listings").fetchone()[0]
                while self.made < self._changes or (self._until is not None and not self._until.is_set()):
                    self._transaction()
                    if self.made >= self._changes and self._until is not None:
                        self._until.wait(0.05)  # leave the machine to whoever is waited for
        except BaseException as error:  # noqa: BLE001 - the test that started it raises it
            self.error = error

    def _transaction(self) -> None:
        kinds: dict[str, int] = {}
        try:
            with self._connection.transaction():
                for _ in range(self._random.choice((1, 1, 1, 2, 4))):
                    self._statement(kinds)
                if self._random.random() < 0.06:
                    raise psycopg.Rollback
        except _REFUSED:
            return
        except psycopg.Rollback:
            return
        for kind, rows in kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + rows
            self.made += rows

    def _statement(self, kinds: dict[str, int]) -> None:
        kind, act = self._random.choice(self._acts())
        back = self._random.random() < 0.08
        rows = 0
        with self._connection.transaction(force_rollback=back):  # a savepoint
            rows = act()
        if rows and not back:
            kinds[kind] = kinds.get(kind, 0) + 1

    def _acts(self):
        acts = [
            *[("listing updated", self._update_listing)] * 8,
            *[("listing seen", self._see_listing)] * 2,
            *[("listing moved", self._move_listing)] * 3,
            *[("listing inserted", self._insert_listing)] * 3,
            *[("listing deleted", self._delete_listing)] * 3,
            *[("listing numbered anew", self._renumber_listing)] * 2,
            *[("image changed", self._image)] * 4,
            *[("attribute changed", self._attribute)] * 4,
            *[("translation changed", self._translation)] * 4,
            *[("children given away", self._give_away)] * 3,
            *[("storefront changed", self._storefront)] * 2,
            ("category renamed", self._category),
            ("swept over a category", self._many),
        ]
        if not self._truncated and self._seed == 1 and self.made > self._changes * 0.4:
            acts = [("translations truncated", self._truncate)]
        return acts

    def _run(self, statement: str, **values: object) -> int:
        return self._connection.execute(statement, values).rowcount

    def _listing(self) -> int:
        # a third of all changes meet on a hundred listings
        return self._random.randint(1, 100 if self._random.random() < 0.3 else self._highest)

    def _word(self) -> str:
        return f"{self._random.choice(_WORDS)} {self._random.randrange(10**6)}"

    def _update_listing(self) -> int:
        return self._run(
            "UPDATE listings SET title = %(title)s, price = %(price)s, status = %(status)s, updated_at = now() WHERE id = %(id)s",
            title=self._word(), price=self._random.randrange(10**6) / 100, status=self._random.choice(_STATUS), id=self._listing(),
        )  # fmt: skip

    def _see_listing(self) -> int:
        return self._run("UPDATE listings SET views_count = views_count + 1 WHERE id = %(id)s", id=self._listing())

    def _move_listing(self) -> int:
        return self._run(
            "UPDATE listings SET category_id = %(category)s, storefront_id = (SELECT id FROM storefronts WHERE id = %(store)s) WHERE id = %(id)s",
            category=self._random.randint(1, 500), store=self._random.randint(1, 2000), id=self._listing(),
        )  # fmt: skip

    def _insert_listing(self) -> int:
        row = self._connection.execute(
            "INSERT INTO listings (user_id, category_id, title, description, price) VALUES (1, %s, %s, 'new', 1) RETURNING id",
            (self._random.randint(1, 500), self._word()),
        ).fetchone()
        self._highest = max(self._highest, row[0])
        return self._run(
            "INSERT INTO listing_images (listing_id, url) VALUES (%(id)s, 'https://cdn.example.com/new')", id=row[0]
        )

    def _delete_listing(self) -> int:
        return self._run("DELETE FROM listings WHERE id = %(id)s", id=self._listing())

    def _renumber_listing(self) -> int:
        """Give a listing another key; its children go, since nothing cascades the new number to them."""
        given = {"old": self._listing(), "new": self._random.randint(10**6, 2 * 10**6)}
        for table in ("listing_images", "listing_attributes", "listing_translations"):
            self._run(f"DELETE FROM {table} WHERE listing_id = %(old)s", **given)
        return self._run("UPDATE listings SET id = %(new)s WHERE id = %(old)s", **given)

    def _image(self) -> int:
        return self._random.choice((
            lambda: self._run("UPDATE listing_images SET url = %(url)s WHERE listing_id = %(id)s", url=self._word(), id=self._listing()),
            lambda: self._run("DELETE FROM listing_images WHERE listing_id = %(id)s AND is_main", id=self._listing()),
            lambda: self._run("INSERT INTO listing_images (listing_id, url, position) SELECT id, 'u', 9 FROM listings WHERE id = %(id)s", id=self._listing()),
        ))()  # fmt: skip

    def _attribute(self) -> int:
        return self._random.choice((
            lambda: self._run("UPDATE listing_attributes SET value = %(v)s WHERE listing_id = %(id)s AND name = 'attr1'", v=self._word(), id=self._listing()),
            lambda: self._run("DELETE FROM listing_attributes WHERE listing_id = %(id)s AND name = 'attr2'", id=self._listing()),
            lambda: self._run("INSERT INTO listing_attributes (listing_id, name, value) SELECT id, 'new', %(v)s FROM listings WHERE id BETWEEN %(id)s AND %(id)s + 2", v=self._word(), id=self._listing()),
        ))()  # fmt: skip

    def _translation(self) -> int:
        return self._random.choice((
            lambda: self._run(
                "INSERT INTO listing_translations (listing_id, language, title) SELECT id, 'en', %(v)s FROM listings WHERE id = %(id)s "
                "ON CONFLICT (listing_id, language) DO UPDATE SET title = excluded.title", v=self._word(), id=self._listing()),
            lambda: self._run("DELETE FROM listing_translations WHERE listing_id = %(id)s AND language = 'sr'", id=self._listing()),
        ))()  # fmt: skip

    def _give_away(self) -> int:
        """Re-parent children: both parents' documents change."""
        table = self._random.choice(("listing_images", "listing_attributes", "listing_translations"))
        return self._run(
            f"UPDATE {table} SET listing_id = %(new)s WHERE listing_id = %(old)s AND EXISTS (SELECT FROM listings WHERE id = %(new)s)",
            old=self._listing(), new=self._listing(),
        )  # fmt: skip

    def _storefront(self) -> int:
        given = {"id": self._random.randint(1, 2000), "name": self._word()}
        if self._random.random() < 0.2:
            self._run("UPDATE listings SET storefront_id = NULL WHERE storefront_id = %(id)s", **given)
            return self._run("DELETE FROM storefronts WHERE id = %(id)s", **given)
        return self._run("UPDATE storefronts SET name = %(name)s, rating = random() * 4 WHERE id = %(id)s", **given)

    def _category(self) -> int:
        return self._run(
            "UPDATE categories SET name = %(name)s WHERE id = %(id)s",
            name=self._word(),
            id=self._random.randint(1, 500),
        )

    def _many(self) -> int:
        return self._run(
            "UPDATE listings SET stock = stock + 1 WHERE category_id = %(id)s AND id %% 7 = 0",
            id=self._random.randint(1, 500),
        )

    def _truncate(self) -> int:
        self._run("TRUNCATE listing_translations")
        self._truncated = True
        return 1
