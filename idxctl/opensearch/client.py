"""
The way to OpenSearch: requests go out as they are given, answers come back read by `answers`, failures become our errors.

No answer leaves here unread: `ask` takes the function that makes of the bytes what they say, and what is none becomes
`OpenSearchUnintelligible`. A write is never sent twice from here. Whether one that got no answer was carried out is unknown,
and what to do about it depends on what it was; only the caller knows.
"""

from __future__ import annotations

import codecs
import http.client
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import orjson

from idxctl.config.settings import OpenSearchSettings
from idxctl.core.errors import (
    ConfigError,
    OpenSearchRefused,
    OpenSearchUnintelligible,
    OpenSearchUnreachable,
)
from idxctl.opensearch import answers
from idxctl.opensearch.answers import NoAnswer, Refusal
from idxctl.opensearch.exchange import Address, Endless, Failed, NothingSent, Response

if TYPE_CHECKING:
    from idxctl.opensearch.hosts import Hosts

T = TypeVar("T")

MOST_BYTES = 32 * 1024 * 1024  # of an answer, unless more was asked for
BULK_ANSWER = "errors,items.*.status,items.*.error,items.*._id,items.delete.result"
_BYTES_AN_ITEM = 16 * 1024  # of a bulk's answer: an id, an error and its causes

_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_CREDENTIALS = (
    "check IDXCTL_OPENSEARCH_USERNAME and IDXCTL_OPENSEARCH_PASSWORD, or the token, key or role in [opensearch]"
)
_URL = "is the URL that of OpenSearch itself? (IDXCTL_OPENSEARCH_URL or [opensearch] url)"


class Client:
    """A connection to OpenSearch that any number of threads may share. `connect` makes one."""

    def __init__(self, hosts: Hosts, settings: OpenSearchSettings) -> None:
        self._hosts = hosts
        self._settings = settings
        self._info: answers.Info | None = None
        self._info_lock = threading.Lock()
        self._under_way: dict[object, float] = {}  # requests, and when each began; single steps of a dict need no lock

    def ask(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        *,
        params: Mapping[str, Any] | None = None,
        body: bytes | str | Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
        content_type: str = _JSON,
        most_bytes: int = MOST_BYTES,
        repeat: bool = False,
    ) -> T:
        """
        Send one request and return what *read*, one of `answers`, makes of the answer to it.

        *timeout_seconds* is for one host's whole exchange. With *repeat*, and for GET, it only reads, and may be asked of
        another host after one has failed. Raises `OpenSearchUnreachable` if no answer came, `OpenSearchUnintelligible` if
        what came is none, `OpenSearchRefused` if it was an error.
        """
        address, response = self._sent(
            method, path, params, body, timeout_seconds, content_type, most_bytes, repeat=repeat or method == "GET"
        )
        if response.status not in {200, 201}:
            raise _refused(address, response, f"{method} {path}")
        try:
            return read(response.body)
        except NoAnswer as error:
            raise _unintelligible(address, response, f"{method} {path}", str(error)) from error

    def bulk(
        self,
        index: str,
        body: bytes,
        sent: Sequence[str],
        *,
        deleted: Collection[str] = (),
        pipeline: str | None = None,
        params: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> list[Refusal]:
        """
        Send a ready-made bulk body to a concrete index (T6); returns the items that were refused.

        *sent* are the ids of its documents in their order, *deleted* those of its deletes. OpenSearch waits for shards that are
        away for a third of our patience: then we hear which they are, and not nothing.
        """
        patience = timeout_seconds or self._settings.request_timeout_seconds
        asked = {
            "filter_path": BULK_ANSWER,
            "timeout": f"{max(int(patience * 1000 / 3), 1)}ms",
            **(params or {}),
            **({"pipeline": pipeline} if pipeline else {}),
        }
        return self.ask(
            "POST",
            f"/{segment(index)}/_bulk",
            lambda text: answers.bulk(text, sent, deleted),
            params=asked,
            body=body,
            content_type=_NDJSON,
            timeout_seconds=timeout_seconds,
            most_bytes=MOST_BYTES // 32 + 2 * len(body) + _BYTES_AN_ITEM * len(sent),
        )

    def exists(self, path: str) -> bool:
        """Whether *path* is there."""
        address, response = self._sent("HEAD", path, None, None, None, _JSON, MOST_BYTES, repeat=True)
        if response.status not in {200, 404}:
            raise _refused(address, response, f"HEAD {path}")
        return response.status == 200

    @property
    def patience_seconds(self) -> float:
        """How long an answer is waited for, unless a request says otherwise."""
        return self._settings.request_timeout_seconds

    def ping(self, *, timeout_seconds: float | None = None) -> None:
        """Raise unless OpenSearch answers."""
        self.ask("GET", "/", answers.info, timeout_seconds=timeout_seconds)

    def info(self) -> answers.Info:
        """Return the distribution and version: ("opensearch", (2, 19, 5)). Asked once."""
        with self._info_lock:
            if self._info is None:
                self._info = self.ask("GET", "/", answers.info)
            return self._info

    def describe(self) -> str:
        """Name the hosts for people, without secrets."""
        return "OpenSearch at " + ", ".join(str(_address(url, None)) for url in self._settings.urls)

    def close(self) -> None:
        """Close every connection."""
        self._hosts.close()

    def __enter__(self) -> Client:  # noqa: PYI034 - Self is 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sent(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: bytes | str | Mapping[str, Any] | None,
        timeout_seconds: float | None,
        content_type: str,
        most_bytes: int,
        *,
        repeat: bool,
    ) -> tuple[Address, Response]:
        patience = timeout_seconds or self._settings.request_timeout_seconds
        data = body if body is None or isinstance(body, bytes) else _bytes(body)
        target = quote(path if path.startswith("/") else f"/{path}", safe="/%,*:+~!$'()@;=&") + _encoded(params)
        headers = {"content-type": content_type}
        this = object()
        self._under_way[this] = time.monotonic()
        try:
            return self._hosts.exchange(method, target, headers, data, seconds=patience, most=most_bytes, repeat=repeat)
        except Failed as failed:
            raise _unreachable(failed, self._settings, patience) from failed
        finally:
            del self._under_way[this]

    @property
    def longest_under_way(self) -> float:
        """For how many seconds the oldest request that has no answer yet has been under way; 0 without one."""
        began = min(self._under_way.copy().values(), default=None)
        return 0.0 if began is None else time.monotonic() - began


def connect(settings: OpenSearchSettings) -> Client:
    """
    Make a client. Nothing is sent, and no host need be up.

    Raises `ConfigError` for certificates that cannot be loaded and for AWS signing without botocore.
    """
    from idxctl.opensearch.hosts import Host, Hosts  # with the driver, which takes a third of a second

    headers, signer = _authentication(settings)
    context = _ssl_context(settings)
    addresses = [_address(url, context) for url in settings.urls]
    hosts = [Host(one, headers=headers, compress=settings.compress, signer=signer) for one in addresses]
    return Client(Hosts(hosts), settings)


def segment(name: str) -> str:
    """Escape one part of a path: an index, an id."""
    return quote(name, safe=",*")


# --- requests --------------------------------------------------------------------------------------------------------


def _address(url: str, context: ssl.SSLContext | None) -> Address:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 9200)
    return Address(parts.hostname or "", port, parts.path.rstrip("/"), context if secure else None)


def _bytes(body: str | Mapping[str, Any]) -> bytes:
    return body.encode() if isinstance(body, str) else orjson.dumps(body)


def _encoded(params: Mapping[str, Any] | None) -> str:
    """Return parameters as OpenSearch spells them, behind a question mark."""
    given = {name: _parameter(value) for name, value in (params or {}).items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _parameter(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


# --- who we are ------------------------------------------------------------------------------------------------------


def _authentication(settings: OpenSearchSettings) -> tuple[dict[str, str], Any]:
    """Return the headers that authenticate every request, or what signs each."""
    if settings.aws_region:
        from idxctl.opensearch.hosts import AwsSigner

        return {}, AwsSigner(settings.aws_region, settings.aws_service)
    if settings.bearer_token:
        return {"authorization": f"Bearer {settings.bearer_token.reveal()}"}, None
    if settings.api_key:
        return {"authorization": f"ApiKey {settings.api_key.reveal()}"}, None
    if settings.username and settings.password:
        import base64

        pair = f"{settings.username}:{settings.password.reveal()}".encode()
        return {"authorization": "Basic " + base64.b64encode(pair).decode()}, None
    return {}, None


def _ssl_context(settings: OpenSearchSettings) -> ssl.SSLContext | None:
    """Return the one context of all hosts; None if none of them speaks TLS."""
    if not any(url.startswith("https:") for url in settings.urls):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise _bad_certificate("ca_file", settings.ca_file, error) from error
    if not settings.ca_file and not context.get_ca_certs():
        _trust_certifi(context)  # a Python without a system store of its own
    if settings.client_cert:
        try:
            # A password for the key is not asked for: there may be nobody to ask.
            context.load_cert_chain(settings.client_cert, settings.client_key, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise _bad_certificate("client_cert or client_key", settings.client_cert, error) from error
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _trust_certifi(context: ssl.SSLContext) -> None:
    import certifi

    context.load_verify_locations(certifi.where())


def _bad_certificate(key: str, path: Path | None, error: Exception) -> ConfigError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return ConfigError(
        f"[opensearch] {key}: cannot use {path}: {str(reason).lower().replace('_', ' ')}",
        hint="wanted are PEM files: certificates in ca_file and client_cert, the certificate's own key without a password in client_key",
    )


# --- what went wrong -------------------------------------------------------------------------------------------------


def _unreachable(failed: Failed, settings: OpenSearchSettings, patience: float) -> OpenSearchUnreachable:
    """Translate a request without an answer: which host, and why, in a person's words."""
    name = str(failed.address)
    if isinstance(failed.cause, Endless):
        return OpenSearchUnintelligible(
            f"what answers at {name} sends more than any answer to this could be; it was not read",
            answered="an answer without end",
            hint=_URL,
        )
    cause = failed.cause.cause
    text = str(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _untrusted(name, text)
    if isinstance(cause, http.client.HTTPException) and not isinstance(
        cause, (http.client.RemoteDisconnected, http.client.IncompleteRead)
    ):
        return OpenSearchUnintelligible(
            f"what answers at {name} does not speak HTTP; does it want https?",
            answered=f"no HTTP: {answers.plain(text, 60)}",
            hint="write https:// in the URL, if so; and is it that of OpenSearch itself?",
        )
    sent = not isinstance(failed.cause, NothingSent)
    sentence, hint = _network_reason(cause, text, settings, patience, sent=sent)
    return OpenSearchUnreachable(
        f"OpenSearch at {name} {sentence}",
        hint=hint,
        cut=sent and sentence.startswith(_CUT),
        slow=sent and sentence.startswith(_SLOW),
    )


def _untrusted(name: str, text: str) -> OpenSearchUnreachable:
    """Say what is wrong with a certificate, and what helps: trusting an authority does not help one that has expired."""
    reason = _certificate_reason(text)
    if "expired" in reason or "not yet valid" in reason:
        return OpenSearchUnreachable(
            f"OpenSearch at {name} shows a certificate that is out of its time: {reason}",
            hint="renew it there, and see that this machine's clock is right",
        )
    return OpenSearchUnreachable(
        f"OpenSearch at {name} shows a certificate that is not trusted: {reason}",
        hint="name its authority: [opensearch] ca_file or IDXCTL_OPENSEARCH_CA_FILE; verify = false trusts anybody",
    )


def _certificate_reason(text: str) -> str:
    """Return OpenSSL's words between "certificate verify failed: " and the place in its source."""
    reason = text.rpartition("certificate verify failed: ")[2].partition(" (_ssl")[0]
    return reason.strip(" '\")") or "verification failed"


_CUT = "closed the connection without an answer"
_SLOW = "did not answer"
_NETWORK: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("Connection refused",),
        "refuses connections",
        "is it running, and is IDXCTL_OPENSEARCH_URL (or [opensearch] url) right?",
    ),
    (
        (
            "Name or service not known",
            "nodename nor servname",
            "Temporary failure in name resolution",
            "No address associated",
        ),
        "cannot be found: no such host name",
        "check IDXCTL_OPENSEARCH_URL or [opensearch] url",
    ),
    (
        ("WRONG_VERSION_NUMBER", "wrong version number", "RECORD_LAYER", "HTTP_REQUEST"),
        "does not speak TLS",
        "write http:// in the URL",
    ),
    (
        ("No route to host", "Network is unreachable"),
        "cannot be reached: no route",
        "check the network between here and there",
    ),
    (
        (
            "certificate required",
            "CERTIFICATE_REQUIRED",
            "HANDSHAKE_FAILURE",
            "BAD_CERTIFICATE",
            "bad certificate",
            "UNKNOWN_CA",
            "unknown ca",
        ),
        "wants a client certificate that it trusts",
        "set [opensearch] client_cert and client_key",
    ),
)


def _network_reason(
    cause: Exception, text: str, settings: OpenSearchSettings, patience: float, *, sent: bool
) -> tuple[str, str | None]:
    for signs, sentence, hint in _NETWORK:
        if any(sign in text for sign in signs):
            return sentence, hint
    if isinstance(cause, TimeoutError):
        return (f"{_SLOW} within {patience:g} s" if sent else "did not accept a connection in time"), None
    if isinstance(cause, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, http.client.IncompleteRead)):
        return _closed(settings)
    return f"does not answer: {type(cause).__name__}", None


def _closed(settings: OpenSearchSettings) -> tuple[str, str | None]:
    """Say what a connection closed in our face may mean: a server's alert is often lost in the reset that follows."""
    sentence = _CUT
    if all(url.startswith("http:") for url in settings.urls):
        return f"{sentence}; does it want https?", None
    hint = "if so, set [opensearch] client_cert and client_key to a pair that it trusts"
    return f"{sentence}; does it want a client certificate?", hint


def _refused(address: Address, response: Response, asked: str) -> OpenSearchRefused | OpenSearchUnintelligible:
    """Translate an answer that is an error."""
    status = response.status
    if not 300 <= status < 600:
        return _unintelligible(address, response, asked, f"its status is {status}")
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


def _unintelligible(address: Address, response: Response, asked: str, why: str) -> OpenSearchUnintelligible:
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
