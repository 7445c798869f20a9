"""
The only importer of opensearchpy: requests go out as they are given, answers come back parsed by orjson or not at all,
and the driver's errors become ours.

Nothing is ever sent twice from here. Whether a request that got no answer was carried out is unknown, and what to do
about it depends on what it was; only the caller knows.

opensearchpy takes a third of a second to import, so that happens when a client is made.
"""

from __future__ import annotations

import importlib.util
import logging
import ssl
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlsplit

import orjson

from idxctl.core.errors import (
    ConfigError,
    IdxctlError,
    OpenSearchRefused,
    OpenSearchUnintelligible,
    OpenSearchUnreachable,
)
from idxctl.core.settings import OpenSearchSettings
from idxctl.opensearch import answers
from idxctl.opensearch.answers import NoAnswer, Refusal

T = TypeVar("T")

CONNECTIONS_PER_HOST = 32
CONNECT_TIMEOUT_SECONDS = 10.0
DEAD_HOST_SECONDS = 5.0  # how long a host that did not answer is passed over, while another one does
BULK_ANSWER = "errors,items.*.status,items.*.error,items.*._id,items.delete.result"
GZIP_LEVEL = 1  # level 9, the driver's, costs four times the CPU for a few per cent

_JSON = "application/json"
_NDJSON = "application/x-ndjson"
_CREDENTIALS = (
    "check IDXCTL_OPENSEARCH_USERNAME and IDXCTL_OPENSEARCH_PASSWORD, or the token, key or role in [opensearch]"
)


class Client:
    """A connection to OpenSearch that any number of threads may share. `connect` makes one."""

    def __init__(self, transport: Any, settings: OpenSearchSettings) -> None:
        self._transport = transport
        self._settings = settings
        self._info: tuple[str, tuple[int, ...]] | None = None
        self._info_lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: bytes | str | Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
        content_type: str | None = None,
    ) -> Any:
        """
        Send one request and return the answer, parsed; None if it is empty. A HEAD returns whether the thing exists.

        Bytes and strings are sent untouched. Raises `OpenSearchUnreachable` if no answer came, `OpenSearchRefused`
        if it was an error.
        """
        answer = self.raw(
            method, path, params=params, body=body, timeout_seconds=timeout_seconds, content_type=content_type
        )
        if isinstance(answer, bool):
            return answer
        return self._read(answer, answers.parsed, method, path) if answer else None

    def _read(self, answer: Any, read: Callable[[bytes], T], method: str, path: str) -> T:
        """Have *read* make of the answer what it says; what is none was no word of OpenSearch's."""
        text = answer.encode("utf-8", "surrogateescape") if isinstance(answer, str) else answer
        try:
            return read(text)
        except NoAnswer as error:
            raise _unintelligible(text, f"{method} {path}", str(error)) from error

    def raw(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: bytes | str | Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
        content_type: str | None = None,
    ) -> Any:
        """Do as `request` does, but return the answer's text as it came, for callers with a faster way to read it."""
        if body is not None and not isinstance(body, (bytes, str)):
            body = orjson.dumps(body)
        patience = timeout_seconds or self._settings.request_timeout_seconds
        from opensearchpy import ConnectionError as NoAnswer
        from opensearchpy import TransportError

        try:
            return self._transport.perform_request(
                method,
                path if path.startswith("/") else f"/{path}",
                params=_encoded(params),
                body=body,
                timeout=_timeout(patience),
                headers={"content-type": content_type or _JSON},
            )
        except NoAnswer as error:
            raise _unreachable(error, self._settings, patience) from error
        except TransportError as error:
            raise _refused(error) from error

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
        path = f"/{segment(index)}/_bulk"
        answer = self.raw("POST", path, params=asked, body=body, content_type=_NDJSON, timeout_seconds=timeout_seconds)
        return self._read(answer, lambda text: answers.bulk(text, sent, deleted), "POST", path)

    def exists(self, path: str) -> bool:
        """Whether *path* is there."""
        return bool(self.request("HEAD", path))

    def info(self) -> tuple[str, tuple[int, ...]]:
        """Return the distribution and version: ("opensearch", (2, 19, 5)). Asked once."""
        with self._info_lock:
            if self._info is None:
                self._info = _identity(self.request("GET", "/"))
            return self._info

    def describe(self) -> str:
        """Name the hosts for people, without secrets."""
        return "OpenSearch at " + ", ".join(_host(url) for url in self._settings.urls)

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def __enter__(self) -> Client:  # noqa: PYI034 - Self is 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(settings: OpenSearchSettings) -> Client:
    """
    Make a client. Nothing is sent, and no host need be up.

    Raises `ConfigError` for certificates that cannot be loaded and for AWS signing without botocore.
    """
    from opensearchpy import Transport

    headers, signer = _authentication(settings)
    context = _ssl_context(settings)
    if context is not None and not settings.verify:
        _accept_unverified()
    _quieten()
    transport = Transport(
        [_host_options(url, context) for url in settings.urls],
        connection_class=_connection_class(),
        serializer=cast("Any", _Untouched()),
        # No retries: with max_retries=0 these two only decide whether a host that did not answer is passed over.
        max_retries=0,
        retry_on_timeout=True,
        retry_on_status=(),
        dead_timeout=DEAD_HOST_SECONDS,
        timeout_cutoff=0,
        pool_maxsize=CONNECTIONS_PER_HOST,
        timeout=_timeout(settings.request_timeout_seconds),
        http_compress=settings.compress,
        headers=headers,
        http_auth=signer,
    )
    transport.deserializer = cast("Any", _Untouched())
    return Client(transport, settings)


def segment(name: str) -> str:
    """Escape one part of a path: an index, an id."""
    return quote(name, safe=",*")


# --- the driver ------------------------------------------------------------------------------------------------------


class _Untouched:
    """Stands in for the driver's serializer and deserializer: bodies and answers are read and written by us."""

    mimetype = _JSON

    def dumps(self, data: Any) -> Any:
        return data

    def loads(self, text: Any, mimetype: str | None = None) -> Any:  # noqa: ARG002 - the driver's signature
        return text


@cache
def _connection_class() -> type[Any]:
    """Return the driver's connection, made silent, cheap to compress for, and one whose errors know their host."""
    import gzip

    from opensearchpy import TransportError, Urllib3HttpConnection

    class Connection(Urllib3HttpConnection):
        def perform_request(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().perform_request(*args, **kwargs)
            except TransportError as error:
                error.host = self.host  # type: ignore[attr-defined]
                raise

        def log_request_fail(self, *_: Any, **__: Any) -> None:
            """Say nothing: the driver would log bodies, and our error tells more."""

        def log_request_success(self, *_: Any, **__: Any) -> None:
            """Say nothing."""

        def _raise_warnings(self, warning_headers: Any) -> None:
            """Ignore deprecations of endpoints: they are ours to follow, not the user's."""

        def _raise_error(self, status_code: int, raw_data: Any, content_type: str | None = None) -> None:
            error = TransportError(status_code, "", raw_data)
            error.content_type = content_type  # type: ignore[attr-defined]
            raise error

        def _gzip_compress(self, body: Any) -> bytes:
            return gzip.compress(body.encode() if isinstance(body, str) else body, compresslevel=GZIP_LEVEL, mtime=0)

    return Connection


def _quieten() -> None:
    for name in ("opensearch", "urllib3.connectionpool"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:  # an application that set it meant it
            logger.setLevel(logging.ERROR)


def _timeout(seconds: float) -> Any:
    """Return how long to wait for an answer; a connection must stand sooner, or another host is tried too late."""
    import urllib3

    return urllib3.Timeout(connect=min(seconds, CONNECT_TIMEOUT_SECONDS), read=seconds)


def _host_options(url: str, context: ssl.SSLContext | None) -> dict[str, Any]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    options: dict[str, Any] = {"host": parts.hostname, "port": parts.port or (443 if secure else 9200)}
    if parts.path.strip("/"):
        options["url_prefix"] = parts.path
    if secure:
        options.update(use_ssl=True, ssl_context=context)
    return options


def _encoded(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return parameters as OpenSearch spells them."""
    if not params:
        return None
    return {name: _parameter(value) for name, value in params.items() if value is not None}


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
        return {}, _AwsSigner(settings.aws_region, settings.aws_service)
    if settings.bearer_token:
        return {"authorization": f"Bearer {settings.bearer_token.reveal()}"}, None
    if settings.api_key:
        return {"authorization": f"ApiKey {settings.api_key.reveal()}"}, None
    if settings.username and settings.password:
        import base64

        pair = f"{settings.username}:{settings.password.reveal()}".encode()
        return {"authorization": "Basic " + base64.b64encode(pair).decode()}, None
    return {}, None


class _AwsSigner:
    """
    Signs requests for AWS with the credentials that botocore finds: environment, profile, role.

    They are looked up by the first request, not at construction: asking an instance for its role is a request too.
    """

    def __init__(self, region: str, service: str) -> None:
        if importlib.util.find_spec("botocore") is None:
            raise ConfigError(
                "AWS request signing (aws_region) needs botocore, which is not installed",
                hint="pip install 'idxctl[aws]'",
            )
        self._region = region
        self._service = service
        self._signer: Any = None
        self._lock = threading.Lock()

    def __call__(self, method: str, url: str, body: Any) -> Mapping[str, str]:
        """Return the headers that sign this body, byte for byte as it is sent."""
        with self._lock:
            if self._signer is None:
                self._signer = self._made()
        signed: Mapping[str, str] = self._signer.sign(method, url, body)
        return signed

    def _made(self) -> Any:
        import botocore.session
        from opensearchpy.helpers.signer import AWSV4Signer

        credentials = botocore.session.Session().get_credentials()
        if credentials is None:
            raise ConfigError(
                "no AWS credentials to sign requests with",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give this host a role",
            )
        return AWSV4Signer(credentials, self._region, self._service)


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


def _accept_unverified() -> None:
    """Keep urllib3 from warning at every request of what the configuration says in so many words."""
    import urllib3

    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


# --- what went wrong -------------------------------------------------------------------------------------------------


def _unreachable(error: Any, settings: OpenSearchSettings, patience: float) -> IdxctlError:
    """Translate a request without an answer: which host, and why, in a person's words."""
    host = str(getattr(error, "host", "") or "an unknown host")
    cause = error.info if isinstance(getattr(error, "info", None), BaseException) else error
    if isinstance(cause, IdxctlError):  # ours, raised while signing
        return cause
    name = _host(host)
    text = str(cause)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text or "doesn't match" in text:
        return OpenSearchUnreachable(
            f"OpenSearch at {name} shows a certificate that is not trusted: {_certificate_reason(text)}",
            hint="name its authority: [opensearch] ca_file or IDXCTL_OPENSEARCH_CA_FILE; verify = false trusts anybody",
        )
    sentence, hint = _network_reason(cause, text, settings, patience)
    return OpenSearchUnreachable(
        f"OpenSearch at {name} {sentence}", hint=hint, cut=sentence.startswith(_CUT), slow=sentence.startswith(_SLOW)
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


def _network_reason(cause: Any, text: str, settings: OpenSearchSettings, patience: float) -> tuple[str, str | None]:
    for signs, sentence, hint in _NETWORK:
        if any(sign in text for sign in signs):
            return sentence, hint
    kind = type(cause).__name__
    if "Timeout" in kind or "timed out" in text:
        limit = f"within {patience:g} s"
        return f"{_SLOW} {limit}" if "Read" in kind else "did not accept a connection in time", None
    if "reset" in text or "Remote end closed" in text or "aborted" in text or "Broken pipe" in text or "EOF" in text:
        return _closed(settings)
    return f"does not answer: {kind}", None


def _closed(settings: OpenSearchSettings) -> tuple[str, str | None]:
    """Say what a connection closed in our face may mean: a server's alert is often lost in the reset that follows."""
    sentence = _CUT
    if all(url.startswith("http:") for url in settings.urls):
        return f"{sentence}; does it want https?", None
    hint = "if so, set [opensearch] client_cert and client_key to a pair that it trusts"
    return f"{sentence}; does it want a client certificate?", hint


def _refused(error: Any) -> OpenSearchRefused:
    """Translate an answer that is an error."""
    status = int(error.args[0])
    text = error.args[2] if len(error.args) > 2 else ""
    body = _json_or_text(text)
    kind, reason = answers.error_of(body)
    name = _host(str(getattr(error, "host", "")))
    told = f"{kind}: {reason}" if kind and reason else kind or reason
    answered = "" if kind else _came(status, getattr(error, "content_type", None), text)
    details: dict[str, Any] = {
        "status": status, "error_type": kind, "reason": reason, "body": body, "answered": answered,
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
        hint = "is the URL that of OpenSearch itself? (IDXCTL_OPENSEARCH_URL or [opensearch] url)"
        return OpenSearchRefused(f"what answers at {name} sends us elsewhere ({status})", hint=hint, **details)
    if status == 413:
        return OpenSearchRefused(f"OpenSearch at {name} says the request is too large (413)", **details)
    return OpenSearchRefused(f"OpenSearch refused ({status})" + (f": {told}" if told else ""), **details)


def _json_or_text(text: Any) -> Any:
    if not text:
        return None
    try:
        return answers.parsed(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text)
    except NoAnswer:
        return text  # a proxy's page


def _came(status: int, content_type: str | None, text: Any) -> str:
    """Say in a few words what came: "502 text/html: <html>Bad Gateway…"."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text or b""
    begun = " ".join(answers.plain(data[:200].decode("utf-8", "replace"), 60).split())
    kind = answers.plain((content_type or "").partition(";")[0].strip(), 40)
    return f"{status}{' ' if kind else ''}{kind}" + (f": {begun}" if begun else ", empty")


def _unintelligible(text: bytes, asked: str, why: str) -> OpenSearchUnintelligible:
    """Something that is not OpenSearch answers there, or something on the way there: a proxy, a login page."""
    return OpenSearchUnintelligible(
        f"what answers {asked.partition('?')[0]} is not an answer of OpenSearch's: {why}",
        answered=_came(200, None, text),
        hint="is the URL that of OpenSearch itself? (IDXCTL_OPENSEARCH_URL or [opensearch] url)",
    )


def _identity(answer: Any) -> tuple[str, tuple[int, ...]]:
    version = answer.get("version") if isinstance(answer, dict) else None
    number = str(version.get("number", "")) if isinstance(version, dict) else ""
    parts = tuple(int(part) for part in number.partition("-")[0].split(".") if part.isdigit())
    if not isinstance(version, dict) or not parts:
        raise OpenSearchRefused(
            "what answers there is not OpenSearch",
            status=200,
            reason="no version",
            hint="check IDXCTL_OPENSEARCH_URL or [opensearch] url",
        )
    return str(version.get("distribution") or "elasticsearch"), parts


def _host(url: str) -> str:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    if not parts.hostname:
        return "an unknown host"
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{name}:{parts.port or (443 if parts.scheme == 'https' else 9200)}"
