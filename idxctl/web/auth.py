"""Who asks, and what they may: bearer tokens with a role, and what goes without one on loopback."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from idxctl.config.bearers import Hashed
from idxctl.config.settings import Bearer
from idxctl.web.problems import Problem

SAFE = frozenset({"GET", "HEAD"})
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="idxctl"'}
_SEND = "send Authorization: Bearer TOKEN"
# What proxies add: whoever asks is then not this machine, whatever the connection says.
# By kind, since each has names of its own for where a request came from and what it was before.
_RELAYED = re.compile(
    r"via|.*(?:forward|proxy|proxied|client-?ip|real-?(?:ip|port)|user-?ip|connecting-ip|remote-?(?:ip|addr|user)|original|nginx).*"
    r"|(?:cdn|cf|fly|fastly|x-(?:envoy|amz|amzn|azure|arr|appengine|vercel|cloud|cdn))-.*"
)


@dataclass(frozen=True)
class Who:
    """Someone who may ask: the name for the audit."""

    name: str
    role: str


ANYBODY = Who("anybody", "viewer")  # where no token is needed, and nothing is changed


class WrongToken(Problem):
    """A token that is not known: whoever sends many of them is slowed down."""

    def __init__(self) -> None:
        super().__init__(401, "the token is not known", headers=_CHALLENGE)


class Access:
    """
    Decides on every request. Tokens are compared by digest, all of them each time, so that time tells nothing.

    *loopback*: only this machine can connect. Where no token is configured it reads without one, unless the request was
    passed on by a proxy; *anonymous* lets anybody read.
    """

    def __init__(
        self, bearers: Sequence[Bearer], *, read_only: bool, loopback: bool, host: str, anonymous: bool = False
    ) -> None:
        self._bearers = [(Hashed.of(one.token), Who(one.name, one.role)) for one in bearers]
        self._read_only = read_only
        self._loopback = loopback
        self._host = host.lower()
        self._anonymous = anonymous

    def known(self, request: Request) -> Who | None:
        """Return who sends a token, None for nobody; raises `WrongToken` for one that is not known."""
        given = request.headers.getlist("authorization")
        if not given:
            return None
        scheme, _, token = given[0].partition(" ")
        sent = token.strip().encode("latin-1", "replace")
        found = [who for known, who in self._bearers if known.matches(sent)]
        if len(given) > 1 or scheme.lower() != "bearer" or not found:
            raise WrongToken
        return found[0]

    def check(self, request: Request, who: Who | None) -> Who:
        """Return who may make this request; raises `Problem` 401 or 403 for everybody else."""
        return self._reader(request, who) if request.method in SAFE else self._changer(request, who)

    def _reader(self, request: Request, who: Who | None) -> Who:
        if who is not None:
            return who
        if not self._anonymous:
            self._require_local(request)
        if self._loopback and not self._local_name(request.headers.get("host", "")):
            # A page on the Internet whose name was made to point at this machine (DNS rebinding).
            raise Problem(
                403, "without a token only this machine's own names are answered to", hint="ask for http://127.0.0.1"
            )
        return ANYBODY

    def _require_local(self, request: Request) -> None:
        """Raise unless this machine itself asks, where nobody has a token."""
        if self._bearers or not self._loopback:
            raise Problem(401, "this needs a token", hint=_SEND, headers=_CHALLENGE)
        if relayed(request):
            raise Problem(
                403,
                "without a token only this machine reads, and this request was passed on by a proxy",
                hint="set IDXCTL_HTTP_TOKEN or IDXCTL_HTTP_TOKENS_FILE where idxctl runs",
            )

    def _changer(self, request: Request, who: Who | None) -> Who:
        if not self._bearers:
            raise Problem(
                403,
                "nothing can be changed over HTTP: no token is configured",
                hint="set IDXCTL_HTTP_TOKEN or IDXCTL_HTTP_TOKENS_FILE where idxctl runs",
            )
        if who is None:
            raise Problem(401, "this needs a token", hint=_SEND, headers=_CHALLENGE)
        if _of_another_site(request):
            raise Problem(403, "a page of another site asks for this, and may not")
        if who.role != "operator":
            raise Problem(403, f"{who.name} is a {who.role}; this needs an operator's token")
        if self._read_only:
            raise Problem(403, "nothing can be changed here: this server is read-only")
        return who

    def _local_name(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        return name.lower() in {"localhost", self._host} or is_loopback(name.strip("[]"))


def relayed(request: Request) -> bool:
    """
    Whether a proxy passed the request on, as far as that can be seen.

    nginx adds no header unless told to, and speaks HTTP/1.0 to what is behind it; nobody else does.
    """
    names = request.headers.keys()
    by_name = any(_RELAYED.fullmatch(name.replace("_", "-")) for name in names)
    return by_name or request.scope.get("http_version") == "1.0"


def _of_another_site(request: Request) -> bool:
    """Whether a browser says that the page which asks is of another origin than this server."""
    if request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return True
    origin = request.headers.get("origin")
    return origin is not None and _site(origin) != request.headers.get("host", "").lower()


def _site(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # no address, so none of ours
        return "?"


def is_loopback(address: str) -> bool:
    """Whether *address* is one that only this machine reaches; a name is not."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
