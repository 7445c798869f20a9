"""Run the command line and kill the process when it is about to send a document of some id: poisoned.py ID ARGS..."""

from __future__ import annotations

import os
import signal
import sys

from idxctl.cli.app import run
from idxctl.opensearch.client import Client


def main() -> None:
    mark = f'"_id":"{sys.argv[1]}"'.encode()
    original = Client.bulk

    def bulk(self: Client, index: str, body: bytes, sent: object, **options: object) -> object:
        if mark in body:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index, body, sent, **options)

    Client.bulk = bulk
    run(sys.argv[2:])


if __name__ == "__main__":
    main()
