"""The doors: who is let in, how often, and what is said of who is not."""

from __future__ import annotations

import contextlib
import ipaddress

from starlette.requests import Request

from idxctl.core import metrics
from idxctl.core.tally import Tally
from idxctl.web.auth import Access, Who, WrongToken
from idxctl.web.limits import Buckets, too_many
from idxctl.web.problems import Problem
from idxctl.worker.options import fact

_WRONG_A_SECOND = 1.0
_WRONG_AT_ONCE = 10.0


class Doors:
    """
    Lets requests in, each against an allowance that nobody else can use up.

    Behind a proxy everybody has one address. So who has a token is counted by its name, scrapes apart from people, and
    wrong tokens for themselves: those who guess wait, and lock out nobody.
    """

    def __init__(self, access: Access, tally: Tally, *, rate: float) -> None:
        self._access = access
        self._tally = tally
        self._allowed = Buckets(rate)
        self._wrong = Buckets(_WRONG_A_SECOND, most=_WRONG_AT_ONCE)

    def admit(self, request: Request) -> Who:
        """Return who asks; raises `Problem` 401, 403 or 429 for who may not, or not now."""
        try:
            known = self._access.known(request)
        except WrongToken:
            self._slow_down(request)
            raise
        self._require(f"token {known.name}" if known else f"address {_address(request)}")
        try:
            return self._access.check(request, known)
        except Problem as problem:
            self._count("no_token" if problem.status == 401 else "not_allowed")
            raise

    def admit_scrape(self, request: Request) -> None:
        """Let anybody read metrics, with any token or none; raises `Problem` 429 for who asks too often."""
        known = None
        with contextlib.suppress(WrongToken):
            known = self._access.known(request)
        self._require(f"token {known.name}" if known else f"scrape {_address(request)}")

    def _require(self, whose: str) -> None:
        try:
            self._allowed.require(whose)
        except Problem:
            self._count("too_many")
            raise

    def _slow_down(self, request: Request) -> None:
        """Count and log a wrong token, as far as its sender is not beyond that; raises `Problem` 429 when it is."""
        self._count("wrong_token")
        address = _address(request)
        wait = self._wrong.take(address)
        if wait:
            raise too_many(wait)
        fact(
            "refused",
            f"a wrong token from {address}",
            address=address,
            method=request.method,
            path=request.url.path[:200],
        )

    def _count(self, reason: str) -> None:
        self._tally.add(metrics.HTTP_REFUSED, reason)


def _address(request: Request) -> str:
    """Return who connected; of IPv6 the network, as one host has all of its addresses."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 6 and not address.is_loopback and not address.is_link_local:
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else f"{ipaddress.ip_network((address, 64), strict=False)}"
    return host
