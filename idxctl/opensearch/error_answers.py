"""What an error of OpenSearch says, whichever shape it has."""

from __future__ import annotations

from typing import Any

from idxctl.opensearch.answer_parts import plain

_SENTENCES = 4  # of an error's causes, from the outside in
_DEEPEST = 20  # causes of an error


def reason_of(error: dict[str, Any]) -> str:
    """Return an error's sentence with those of its causes, outermost first: the cause names the field's value."""
    sentences: list[str] = []
    cause: object = error
    for _ in range(_SENTENCES * 4):
        if not isinstance(cause, dict) or len(sentences) == _SENTENCES:
            break
        reason = cause.get("reason")
        sentence = plain(reason) if isinstance(reason, str) else ""
        if sentence and not any(sentence in said for said in sentences):
            sentences.append(sentence)
        cause = cause.get("caused_by")
    return ": ".join(sentences)


def error_of(body: Any) -> tuple[str, str]:
    """Return OpenSearch's type and reason of an error, whichever of its shapes the answer has; empty where it has none."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        kind, reason = error.get("type"), error.get("reason")
        return plain(kind, 200) if isinstance(kind, str) else "", plain(reason) if isinstance(reason, str) else ""
    if isinstance(error, str):
        return "", plain(error)
    if isinstance(body, dict):
        said = body.get("message") or body.get("Message")
        return "", plain(said) if isinstance(said, str) else ""
    return "", ""


def innermost(body: Any) -> str:
    """Return the reason at the bottom of an error's causes, which is what it is about; "" where it has none."""
    error = body.get("error") if isinstance(body, dict) else None
    said = ""
    for _ in range(_DEEPEST):
        if not isinstance(error, dict):
            break
        said = error["reason"] if isinstance(error.get("reason"), str) else said
        beside = error.get("suppressed")
        error = error.get("caused_by") or (beside[0] if isinstance(beside, list) and beside else None)
    return plain(said)
