"""How much one client may ask: requests a second, and bytes a request."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request

from idxctl.web.problems import Problem

_BODY_SECONDS = 10.0
_MOST_CLIENTS = 1024


class Buckets:
    """
    A bucket of allowance for each client, filled at *rate* a second up to *most*, by default two seconds' worth.

    Clients not heard of lately are forgotten: a bucket that is full again says nothing.
    """

    def __init__(self, rate: float, *, most: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._most = 2 * rate if most is None else most
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take one from the client's bucket; returns 0, or the seconds to wait while it is empty."""
        now = self._clock()
        left, at = self._left.pop(client, (self._most, now))
        left = min(left + (now - at) * self._rate, self._most)
        allowed = left >= 1.0
        self._left[client] = (left - 1.0 if allowed else left, now)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self._rate

    def require(self, client: str) -> None:
        """Raise `Problem` 429 while the client's bucket is empty."""
        wait = self.take(client)
        if wait:
            raise too_many(wait)


def too_many(wait: float) -> Problem:
    """Return the problem of a client that asks again within *wait* seconds."""
    seconds = str(math.ceil(wait))
    return Problem(429, f"too many requests; wait {seconds} s", headers={"Retry-After": seconds})


async def body(request: Request, most: int) -> bytes:
    """Read the request's body, as far as *most* bytes: more is `Problem` 413, and a client that dawdles 408."""
    declared = request.headers.get("content-length", "0")
    too_large = Problem(413, f"the body is larger than {most:,} bytes")
    if declared.isdigit() and int(declared) > most:
        raise too_large
    read = bytearray()

    async def gather() -> None:
        async for part in request.stream():
            read.extend(part)
            if len(read) > most:
                raise too_large

    try:
        await asyncio.wait_for(gather(), _BODY_SECONDS)
    except asyncio.TimeoutError:
        raise Problem(408, f"the body did not arrive within {_BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise Problem(400, "the body ended before it was whole") from None
    return bytes(read)
