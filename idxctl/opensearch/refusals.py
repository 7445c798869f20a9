"""What an answer that is an error, or none of OpenSearch's, means, and how it is said."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from idxctl.core.errors import OpenSearchRefused, OpenSearchUnintelligible
from idxctl.opensearch import answer_parts, error_answers, pages
from idxctl.opensearch.answer_parts import NoAnswer
from idxctl.opensearch.exchange import Address, Response

CREDENTIALS = (
    "check IDXCTL_OPENSEARCH_USERNAME and IDXCTL_OPENSEARCH_PASSWORD, or the token, key or role in [opensearch]"
)
URL = "is the URL that of OpenSearch itself? (IDXCTL_OPENSEARCH_URL or [opensearch] url)"
_BEHIND = "see whether OpenSearch runs and answers behind it; its own log says more"
# What something on the way says, by status: a sentence about it, and the way out.
_ON_THE_WAY: Mapping[int, tuple[str, str]] = {
    403: (
        "something on the way to OpenSearch at {name} does not allow this, such as a firewall",
        f"have it let idxctl's requests through; if it is OpenSearch that answers, {CREDENTIALS}",
    ),
    407: (
        "a proxy on the way to OpenSearch at {name} wants credentials of its own",
        "let this machine reach OpenSearch without that proxy: it is sent no credentials",
    ),
    408: ("a gateway at {name} waited for the rest of our request in vain", "look at the network between here and there"),
    429: (
        "a gateway at {name} says that these are too many requests",
        "raise its limit for these; workers send less and try again by themselves",
    ),
    500: ("a gateway at {name} failed", _BEHIND),
    502: ("a gateway at {name} got no answer from OpenSearch that it understood", _BEHIND),
    503: ("a gateway at {name} has no OpenSearch to pass this on to, or none that is ready", _BEHIND),
    504: ("a gateway at {name} waited for OpenSearch in vain", _BEHIND),
}  # fmt: skip
_NO_SECURITY_YET = "OpenSearch Security not initialized"


def refused(address: Address, response: Response, asked: str) -> OpenSearchRefused | OpenSearchUnintelligible:
    """Translate an answer that is an error."""
    status = response.status
    if not 300 <= status < 600:
        return unintelligible(address, response, asked, f"its status is {status}")
    try:
        body = answer_parts.parsed(response.body) if response.body else None
    except NoAnswer:
        body = None
    kind, reason = error_answers.error_of(body)
    page = "" if kind or reason else pages.words(response)
    told = f"{kind}: {reason}" if kind and reason else kind or reason or (f'"{page}"' if page else "")
    sentence, hint = _said(address, response, asked, kind, page)
    return OpenSearchRefused(
        f"{sentence} ({status})" + (f": {told}" if told else ""),
        hint=hint,
        status=status,
        error_type=kind,
        reason=reason,
        body=body,
        page=page,
        answered="" if kind else pages.came(response),
    )


def _said(address: Address, response: Response, asked: str, kind: str, page: str) -> tuple[str, str | None]:
    """Return who refuses and what helps; *kind* is OpenSearch's name for the error, *page* what stands there instead."""
    name, status = str(address), response.status
    if status == 401:
        return f"OpenSearch at {name} does not accept the credentials", CREDENTIALS
    if status == 403 and "block" not in kind and not page:
        return (
            f"OpenSearch at {name} does not allow this",
            f"the user lacks a right, or is not the one meant: {CREDENTIALS}",
        )
    if status == 413:
        return (
            f"OpenSearch at {name} says the request is too large",
            "the limit is OpenSearch's http.max_content_length or that of a gateway before it; what is sent at once is [worker] batch_bytes",
        )
    if 300 <= status < 400:
        return f"what answers at {name} sends us elsewhere{_elsewhere(response)}", URL
    if kind:
        return f"OpenSearch at {name} refused", None
    if status == 503 and _NO_SECURITY_YET in page:
        return (
            f"OpenSearch at {name} has not set up its security yet",
            "wait until it has started; if it stays so, run its securityadmin.sh",
        )
    if status in _ON_THE_WAY:
        sentence, hint = _ON_THE_WAY[status]
        return sentence.format(name=name), hint
    if status >= 500:
        return f"a gateway at {name} does not reach OpenSearch, or failed", _BEHIND
    return f"what answers {_without_parameters(asked)} at {name} is not OpenSearch, or does not know it", URL


def _elsewhere(response: Response) -> str:
    """Name the host of a redirect; what stands behind that may be a secret."""
    try:
        parts = urlsplit(response.location)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not host:
        return ""
    return f": to {answer_parts.plain(f'{parts.scheme}://{host}' + (f':{port}' if port else ''), 100)}"


def unintelligible(address: Address, response: Response, asked: str, why: str) -> OpenSearchUnintelligible:
    """Something that is not OpenSearch answers there, or something on the way there: a proxy, a login page."""
    page = "" if response.body[:1] in {b"{", b"["} else pages.words(response)
    return OpenSearchUnintelligible(
        f"what answers {_without_parameters(asked)} at {address} is not an answer of OpenSearch's: {why}"
        + (f': "{page}"' if page else ""),
        answered=pages.came(response),
        hint=URL,
    )


def _without_parameters(asked: str) -> str:
    return asked.partition("?")[0]
