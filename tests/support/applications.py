"""An application of its own process that writes rows and indexes them: applications.py DATABASE CONFIG MODE POINT NTH FIRST COUNT."""

from __future__ import annotations

import os
import signal
import sys

import psycopg

from idxctl import Indexer
from idxctl.core import failpoints


def main() -> None:
    database, config, mode, point, nth, first, count = sys.argv[1:]
    left = [int(nth)]

    def arrive(name: str) -> None:
        if name == point:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    failpoints.install(arrive)
    with Indexer.from_config(config) as indexer, psycopg.connect(database) as connection:
        (index,) = indexer.settings.indexes
        if mode == "async":
            indexer.enable_async(workers=2)
        for item in range(int(first), int(first) + int(count)):
            with indexer.transaction(connection):
                connection.execute("UPDATE items SET name = name || '.' || %s WHERE id = %s", (mode, item))
                indexer.index(index, item, connection=connection)
                failpoints.reach("application.indexed")
            failpoints.reach("application.committed")
        indexer.wait_for(range(1, 21), 60, index=index)


if __name__ == "__main__":
    main()
