"""A worker beside someone who waits for its work, in threads of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from idxctl.worker.pool import Worker

_LEAVING_SECONDS = 5.0  # for putting things in order, after the drain


@contextmanager
def beside(worker: Worker, *, drain_timeout: float = 30.0) -> Iterator[Callable[[], None]]:
    """
    Run *worker* meanwhile, and drain it at the end.

    Yields a check for whoever waits: it raises what ended the worker, if anything did, since nothing comes of waiting then.
    """
    ended: list[BaseException] = []

    def run() -> None:
        try:
            worker.run(drain_timeout=drain_timeout)
        except BaseException as error:  # noqa: BLE001 - raised by the check, in the thread that waits
            ended.append(error)

    def check() -> None:
        if ended:
            raise ended[0]

    thread = threading.Thread(target=run, name="beside", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        worker.stop()
        thread.join(drain_timeout + _LEAVING_SECONDS)
