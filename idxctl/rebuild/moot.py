"""Letters of the live generation that a rebuild has made moot: their documents are as their rows in the new one."""

from __future__ import annotations

from collections.abc import Sequence

from idxctl.core.errors import IdxctlError
from idxctl.indexes.generations import Generation
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Row
from idxctl.rebuild import SQL
from idxctl.verify import compare

AT_ONCE = 500  # letters compared


def letters(conn: Connection, client: Client, generation: Generation, run: int, sizes: Sizes) -> list[tuple[int, int]]:
    """
    Return letters, by number and token, that came while *run* built *generation* and whose documents it holds as their rows are.

    A letter that is written again after this look has another token, and stays.
    """
    since = conn.run(SQL["letters_since"], index=generation.index, run=run, generation=generation.id).fetchall()
    return proved(conn, client, generation, since, sizes)


def proved(
    conn: Connection, client: Client, generation: Generation, letters: Sequence[Row], sizes: Sizes
) -> list[tuple[int, int]]:
    """Return those of *letters* (number, token, document) whose documents *generation* holds as their rows are."""
    moot: list[tuple[int, int]] = []
    for at in range(0, len(letters), AT_ONCE):
        part = letters[at : at + AT_ONCE]
        names = sorted({name for _, _, name in part})
        try:
            found = compare.compare_ids(conn, client, generation, names, sizes=sizes)
        except IdxctlError:  # they stay, and a retry clears them; the swap does not hang on them
            break
        differing = {*found.differing, *found.unreadable, *found.unanswered}
        moot += [(letter, token) for letter, token, name in part if name not in differing]
    return moot
