"""
What went wrong with a request, and how it is said.

A failure is told by what the system and OpenSSL call it (`Network`), its consequences hang on that, and the sentence for
people is made of it last.
"""

from __future__ import annotations

import codecs
import errno
import http.client
import socket
import ssl
from enum import Enum
from typing import Any

from idxctl.config.settings import OpenSearchSettings
from idxctl.core.errors import OpenSearchRefused, OpenSearchUnintelligible, OpenSearchUnreachable
from idxctl.opensearch import answers
from idxctl.opensearch.answers import NoAnswer
from idxctl.opensearch.exchange import Address, Endless, Failed, NothingSent, Response

_CREDENTIALS = (
    "check IDXCTL_OPENSEARCH_USERNAME and IDXCTL_OPENSEARCH_PASSWORD, or the token, key or role in [opensearch]"
)
_URL = "is the URL that of OpenSearch itself? (IDXCTL_OPENSEARCH_URL or [opensearch] url)"


class Network(Enum):
    """How a request ended without an answer."""

    REFUSES = "refuses connections"
    NO_HOST = "no such host name"
    NO_ROUTE = "no route"
    NO_TLS = "it does not speak TLS"
    WANTS_CERTIFICATE = "it wants a certificate of ours"
    CLOSED = "it closed the connection"
    SILENT = "it did not answer in time"
    OTHER = "anything else"


_ERRNO = {
    errno.ECONNREFUSED: Network.REFUSES,
    errno.EHOSTUNREACH: Network.NO_ROUTE,
    errno.ENETUNREACH: Network.NO_ROUTE,
}
# Within OpenSSL's names for what it met: TLSV13_ALERT_CERTIFICATE_REQUIRED, SSLV3_ALERT_BAD_CERTIFICATE, ...
_OPENSSL = {
    "WRONG_VERSION_NUMBER": Network.NO_TLS,
    "RECORD_LAYER": Network.NO_TLS,
    "HTTP_REQUEST": Network.NO_TLS,
    "CERTIFICATE_REQUIRED": Network.WANTS_CERTIFICATE,
    "HANDSHAKE_FAILURE": Network.WANTS_CERTIFICATE,
    "BAD_CERTIFICATE": Network.WANTS_CERTIFICATE,
    "UNKNOWN_CA": Network.WANTS_CERTIFICATE,
}
_CLOSED_BY = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, http.client.IncompleteRead)
_OUT_OF_TIME = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_TOLD = {
    Network.REFUSES: (
        "refuses connections",
        "is it running, and is IDXCTL_OPENSEARCH_URL (or [opensearch] url) right?",
    ),
    Network.NO_HOST: ("cannot be found: no such host name", "check IDXCTL_OPENSEARCH_URL or [opensearch] url"),
    Network.NO_ROUTE: ("cannot be reached: no route", "check the network between here and there"),
    Network.NO_TLS: ("does not speak TLS", "write http:// in the URL"),
    Network.WANTS_CERTIFICATE: (
        "wants a client certificate that it trusts",
        "set [opensearch] client_cert and client_key",
    ),
}


def network(cause: Exception) -> Network:
    """Tell failures of the network apart by their types and codes; their texts are the system's, in its own language."""
    if isinstance(cause, socket.gaierror):
        return Network.NO_HOST
    if isinstance(cause, ssl.SSLError) and cause.reason:
        for sign, kind in _OPENSSL.items():
            if sign in cause.reason:
                return kind
    elif isinstance(cause, OSError) and cause.errno in _ERRNO:
        return _ERRNO[cause.errno]
    if isinstance(cause, TimeoutError):
        return Network.SILENT
    return Network.CLOSED if isinstance(cause, _CLOSED_BY) else Network.OTHER


def unreachable(failed: Failed, settings: OpenSearchSettings, patience: float) -> OpenSearchUnreachable:
    """Translate a request without an answer: which host, and why, in a person's words."""
    name = str(failed.address)
    if isinstance(failed.cause, Endless):
        return OpenSearchUnintelligible(
            f"what answers at {name} sends more than any answer to this could be; it was not read",
            answered="an answer without end",
            hint=_URL,
        )
    cause = failed.cause.cause
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _untrusted(name, cause)
    if isinstance(cause, http.client.HTTPException) and not isinstance(
        cause, (http.client.RemoteDisconnected, http.client.IncompleteRead)
    ):
        return OpenSearchUnintelligible(
            f"what answers at {name} does not speak HTTP; does it want https?",
            answered=f"no HTTP: {answers.plain(str(cause), 60)}",
            hint="write https:// in the URL, if so; and is it that of OpenSearch itself?",
        )
    kind, sent = network(cause), not isinstance(failed.cause, NothingSent)
    sentence, hint = _sentence(kind, cause, settings, patience, sent=sent)
    return OpenSearchUnreachable(
        f"OpenSearch at {name} {sentence}",
        hint=hint,
        cut=sent and kind is Network.CLOSED,
        slow=sent and kind is Network.SILENT,
    )


def _untrusted(name: str, cause: ssl.SSLCertVerificationError) -> OpenSearchUnreachable:
    """Say what is wrong with a certificate, and what helps: trusting an authority does not help one that has expired."""
    reason = str(getattr(cause, "verify_message", "")).strip(" '\".") or "verification failed"
    if getattr(cause, "verify_code", 0) in _OUT_OF_TIME:
        return OpenSearchUnreachable(
            f"OpenSearch at {name} shows a certificate that is out of its time: {reason}",
            hint="renew it there, and see that this machine's clock is right",
        )
    return OpenSearchUnreachable(
        f"OpenSearch at {name} shows a certificate that is not trusted: {reason}",
        hint="name its authority: [opensearch] ca_file or IDXCTL_OPENSEARCH_CA_FILE; verify = false trusts anybody",
    )


def _sentence(
    kind: Network, cause: Exception, settings: OpenSearchSettings, patience: float, *, sent: bool
) -> tuple[str, str | None]:
    if kind in _TOLD:
        return _TOLD[kind]
    if kind is Network.SILENT:
        return (f"did not answer within {patience:g} s" if sent else "did not accept a connection in time"), None
    if kind is Network.CLOSED:
        return _closed(settings)
    return f"does not answer: {type(cause).__name__}", None


def _closed(settings: OpenSearchSettings) -> tuple[str, str | None]:
    """Say what a connection closed in our face may mean: a server's alert is often lost in the reset that follows."""
    sentence = "closed the connection without an answer"
    if all(url.startswith("http:") for url in settings.urls):
        return f"{sentence}; does it want https?", None
    hint = "if so, set [opensearch] client_cert and client_key to a pair that it trusts"
    return f"{sentence}; does it want a client certificate?", hint


def refused(address: Address, response: Response, asked: str) -> OpenSearchRefused | OpenSearchUnintelligible:
    """Translate an answer that is an error."""
    status = response.status
    if not 300 <= status < 600:
        return unintelligible(address, response, asked, f"its status is {status}")
    try:
        body = answers.parsed(response.body) if response.body else None
    except NoAnswer:
        body = response.body.decode("utf-8", "replace")  # a proxy's page
    kind, reason = answers.error_of(body)
    name = str(address)
    told = f"{kind}: {reason}" if kind and reason else kind or reason
    details: dict[str, Any] = {
        "status": status, "error_type": kind, "reason": reason, "body": body, "answered": "" if kind else _came(response),
    }  # fmt: skip
    if status == 401:
        return OpenSearchRefused(
            f"OpenSearch at {name} does not accept the credentials (401)", hint=_CREDENTIALS, **details
        )
    if status == 403 and "block" not in kind:
        return OpenSearchRefused(
            f"OpenSearch at {name} does not allow this (403)" + (f": {told}" if told else ""),
            hint=f"the user lacks a right, or is not the one meant: {_CREDENTIALS}",
            **details,
        )
    if 300 <= status < 400:
        return OpenSearchRefused(f"what answers at {name} sends us elsewhere ({status})", hint=_URL, **details)
    if status == 413:
        return OpenSearchRefused(f"OpenSearch at {name} says the request is too large (413)", **details)
    if status in _GATEWAY and not kind:
        return OpenSearchRefused(f"a gateway at {name} {_GATEWAY[status]} ({status})", **details)
    return OpenSearchRefused(f"OpenSearch refused ({status})" + (f": {told}" if told else ""), **details)


_GATEWAY = {
    502: "got no answer from OpenSearch that it understood",
    503: "has no OpenSearch to pass this on to, or none that is ready",
    504: "waited for OpenSearch in vain",
}


def unintelligible(address: Address, response: Response, asked: str, why: str) -> OpenSearchUnintelligible:
    """Something that is not OpenSearch answers there, or something on the way there: a proxy, a login page."""
    return OpenSearchUnintelligible(
        f"what answers {asked.partition('?')[0]} at {address} is not an answer of OpenSearch's: {why}",
        answered=_came(response),
        hint=_URL,
    )


def _came(response: Response) -> str:
    """Say in a few words what came: "502 text/html: <html>Bad Gateway…"."""
    begun = " ".join(answers.plain(_text(response.body[:200]), 60).split())
    kind = answers.plain(response.content_type.partition(";")[0].strip(), 40)
    return f"{response.status}{' ' if kind else ''}{kind}" + (f": {begun}" if begun else ", empty")


def _text(begun: bytes) -> str:
    """Read the beginning of a page, whatever it is written in."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(begun)  # its last character may be cut
    except UnicodeDecodeError:
        return begun.decode("latin-1")
