"""
The way to OpenSearch: requests go out as they are given, answers come back read by `answers`, failures become our errors.

No answer leaves here unread: `ask` takes the function that makes of the bytes what they say, and what is none becomes
`OpenSearchUnintelligible`. A write is never sent twice from here. Whether one that got no answer was carried out is unknown,
and what to do about it depends on what it was; only the caller knows.
"""

from __future__ import annotations

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
)
from idxctl.opensearch import answers, bulk_answers, failures, refusals
from idxctl.opensearch.answer_parts import NoAnswer
from idxctl.opensearch.bulk_answers import Refusal
from idxctl.opensearch.exchange import Address, Failed, Response

if TYPE_CHECKING:
    from idxctl.opensearch.hosts import Hosts

T = TypeVar("T")

MOST_BYTES = 32 * 1024 * 1024  # of an answer, unless more was asked for
BULK_ANSWER = "errors,items.*.status,items.*.error,items.*._id,items.delete.result"
_BYTES_AN_ITEM = 16 * 1024  # of a bulk's answer: an id, an error and its causes

_JSON = "application/json"
_NDJSON = "application/x-ndjson"


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
            raise refusals.refused(address, response, f"{method} {path}")
        try:
            return read(response.body)
        except NoAnswer as error:
            raise refusals.unintelligible(address, response, f"{method} {path}", str(error)) from error

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
            lambda text: bulk_answers.refused(text, sent, deleted),
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
            raise refusals.refused(address, response, f"HEAD {path}")
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
            raise failures.unreachable(failed, self._settings, patience) from failed
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
