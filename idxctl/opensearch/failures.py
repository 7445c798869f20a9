"""
A request that got no answer: what went wrong, and how it is said. One that was refused: `refusals`.

A failure is told by what the system and OpenSSL call it (`Network`), its consequences hang on that, and the sentence for
people is made of it last.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import zlib
from enum import Enum

from idxctl.config.settings import OpenSearchSettings
from idxctl.core import legible
from idxctl.core.errors import OpenSearchUnintelligible, OpenSearchUnreachable
from idxctl.opensearch import answer_parts
from idxctl.opensearch.exchange import Endless, Failed, NothingSent
from idxctl.opensearch.refusals import URL

_NETWORK = "look at the network between here and there"


class Network(Enum):
    """How a request ended without an answer."""

    REFUSES = "refuses connections"
    NO_HOST = "no such host name"
    NO_NAMES = "names cannot be looked up"
    NO_ROUTE = "no route"
    NO_TLS = "it does not speak TLS"
    WANTS_CERTIFICATE = "it wants a certificate of ours"
    CLOSED = "it closed the connection"
    BROKEN_OFF = "it closed the connection within its answer"
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
_CLOSED_BY = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_TOLD = {
    Network.REFUSES: (
        "refuses connections",
        "is it running, and is IDXCTL_OPENSEARCH_URL (or [opensearch] url) right?",
    ),
    Network.NO_HOST: ("cannot be found: no such host name", "check IDXCTL_OPENSEARCH_URL or [opensearch] url"),
    Network.NO_NAMES: (
        "cannot be looked up: no name server answers",
        "it may pass; if not, see that this machine can resolve names (/etc/resolv.conf)",
    ),
    Network.NO_ROUTE: ("cannot be reached: no route", _NETWORK),
    Network.BROKEN_OFF: (
        "broke off within its answer",
        f"did it end just now, or something on the way? {_NETWORK}",
    ),
    Network.NO_TLS: ("does not speak TLS", "write http:// in the URL"),
    Network.WANTS_CERTIFICATE: (
        "wants a client certificate that it trusts",
        "set [opensearch] client_cert and client_key",
    ),
}


def network(cause: Exception) -> Network:
    """Tell failures of the network apart by their types and codes; their texts are the system's, in its own language."""
    if isinstance(cause, socket.gaierror):
        return Network.NO_NAMES if cause.errno == socket.EAI_AGAIN else Network.NO_HOST
    if isinstance(cause, http.client.IncompleteRead):
        return Network.BROKEN_OFF
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
            hint=URL,
        )
    cause = failed.cause.cause
    if isinstance(cause, zlib.error):
        return OpenSearchUnintelligible(
            f"what answers at {name} says that its answer is gzip, and it is not",
            answered="no gzip",
            hint=f"a proxy on the way may have changed it; {URL}",
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _untrusted(name, cause)
    if isinstance(cause, http.client.HTTPException) and not isinstance(
        cause, (http.client.RemoteDisconnected, http.client.IncompleteRead)
    ):
        return _no_http(name, cause)
    kind, sent = network(cause), not isinstance(failed.cause, NothingSent)
    sentence, hint = _sentence(kind, cause, settings, patience, sent=sent)
    return OpenSearchUnreachable(
        f"OpenSearch at {name} {sentence}",
        hint=hint,
        cut=sent and kind in {Network.CLOSED, Network.BROKEN_OFF},
        slow=sent and kind is Network.SILENT,
    )


def _no_http(name: str, cause: http.client.HTTPException) -> OpenSearchUnintelligible:
    begun = legible.line(answer_parts.plain(str(cause).strip(), 60))
    return OpenSearchUnintelligible(
        f"what answers at {name} does not speak HTTP" + (f': "{begun}"' if begun else ""),
        answered=f"no HTTP: {begun}",
        hint="is it the port of OpenSearch's HTTP, 9200 where nothing else is set? Write https:// in the URL if it wants that",
    )


# OpenSSL's numbers of what is wrong with a certificate (X509_V_ERR_*), what is said of it and what helps: trusting an authority
# helps neither one that has expired nor one for another name.
_TIMES = ("shows a certificate that is out of its time", "renew it there, and see that this machine's clock is right")
_NAMES = (
    "shows a certificate for other names than the one it was asked by",
    "use a name in the URL that the certificate has, or have one made for this name",
)
_SIGNED_BY_ITSELF = (
    "shows a certificate that is not trusted",
    "if it is the right server, name that certificate: [opensearch] ca_file or IDXCTL_OPENSEARCH_CA_FILE; verify = false trusts anybody",
)
_CERTIFICATES = {9: _TIMES, 10: _TIMES, 18: _SIGNED_BY_ITSELF, 62: _NAMES, 64: _NAMES}
_UNTRUSTED = (
    "shows a certificate that is not trusted",
    "name its authority: [opensearch] ca_file or IDXCTL_OPENSEARCH_CA_FILE; verify = false trusts anybody",
)


def _untrusted(name: str, cause: ssl.SSLCertVerificationError) -> OpenSearchUnreachable:
    reason = str(getattr(cause, "verify_message", "")).strip(" .") or "verification failed"
    sentence, hint = _CERTIFICATES.get(getattr(cause, "verify_code", 0), _UNTRUSTED)
    return OpenSearchUnreachable(f"OpenSearch at {name} {sentence}: {reason}", hint=hint)


def _sentence(
    kind: Network, cause: Exception, settings: OpenSearchSettings, patience: float, *, sent: bool
) -> tuple[str, str | None]:
    if kind in _TOLD:
        return _TOLD[kind]
    if kind is Network.SILENT and sent:
        return (
            f"did not answer within {patience:g} s",
            "is it overloaded? [opensearch] request_timeout is how long an answer is waited for",
        )
    if kind is Network.SILENT:
        return (
            "did not accept a connection in time",
            f"is the port right, or does a firewall drop what is sent there? {_NETWORK}",
        )
    if kind is Network.CLOSED:
        return _closed(settings)
    return f"does not answer: {type(cause).__name__}", _NETWORK


def _closed(settings: OpenSearchSettings) -> tuple[str, str | None]:
    """Say what a connection closed in our face may mean: a server's alert is often lost in the reset that follows."""
    sentence = "closed the connection without an answer"
    if all(url.startswith("http:") for url in settings.urls):
        return (
            f"{sentence}; does it want https?",
            "write https:// in the URL, if so; else see whether it runs: its log says more",
        )
    hint = "if so, set [opensearch] client_cert and client_key to a pair that it trusts"
    return f"{sentence}; does it want a client certificate?", hint
