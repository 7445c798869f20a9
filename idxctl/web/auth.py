"""Who asks, and what they may: bearer tokens with a role, and what goes without one on loopback."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from starlette.requests import Request

from idxctl.core.settings import Bearer
from idxctl.web.problems import Problem

SAFE = frozenset({"GET", "HEAD"})
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="idxctl"'}


@dataclass(frozen=True)
class Who:
    """Somebody who may ask: the name for the audit."""

    name: str
    role: str


ANYBODY = Who("anybody", "viewer")  # on loopback, where nothing is changed


class Access:
    """
    Decides on every request. Tokens are compared by digest, all of them each time, so that time tells nothing.

    *loopback*: only this machine can connect, and reading needs no token.
    """

    def __init__(self, bearers: Sequence[Bearer], *, read_only: bool, loopback: bool, host: str) -> None:
        self._bearers = [(sha256(one.token.reveal().encode()).digest(), Who(one.name, one.role)) for one in bearers]
        self._read_only = read_only
        self._loopback = loopback
        self._host = host.lower()

    def check(self, request: Request) -> Who:
        """Return who may make this request; raises `Problem` 401 or 403 for everybody else."""
        who = self._known(request)
        return self._reader(request, who) if request.method in SAFE else self._changer(who)

    def _known(self, request: Request) -> Who | None:
        given = request.headers.getlist("authorization")
        if not given:
            return None
        scheme, _, token = given[0].partition(" ")
        digest = sha256(token.strip().encode("latin-1", "replace")).digest()
        found = [who for known, who in self._bearers if hmac.compare_digest(known, digest)]
        if len(given) > 1 or scheme.lower() != "bearer" or not found:
            raise Problem(401, "the token is not known", headers={**_CHALLENGE, "X-Idxctl-Auth": "failed"})
        return found[0]

    def _reader(self, request: Request, who: Who | None) -> Who:
        if who is not None:
            return who
        if not self._loopback:
            raise Problem(401, "this needs a token", hint="send Authorization: Bearer TOKEN", headers=_CHALLENGE)
        if not self._local_name(request.headers.get("host", "")):
            # A page on the Internet whose name was made to point at this machine (DNS rebinding).
            raise Problem(
                403, "without a token only this machine's own names are answered to", hint="ask for http://127.0.0.1"
            )
        return ANYBODY

    def _changer(self, who: Who | None) -> Who:
        if not self._bearers:
            raise Problem(
                403,
                "nothing can be changed over HTTP: no token is configured",
                hint="set IDXCTL_HTTP_TOKEN or IDXCTL_HTTP_TOKENS_FILE where idxctl runs",
            )
        if who is None:
            raise Problem(401, "this needs a token", hint="send Authorization: Bearer TOKEN", headers=_CHALLENGE)
        if who.role != "operator":
            raise Problem(403, f"{who.name} is a {who.role}; this needs an operator's token")
        if self._read_only:
            raise Problem(403, "nothing can be changed here: this server is read-only")
        return who

    def _local_name(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        return name.lower() in {"localhost", self._host} or is_loopback(name.strip("[]"))


def is_loopback(address: str) -> bool:
    """Whether *address* is one that only this machine reaches; a name is not."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
