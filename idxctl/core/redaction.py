"""Errors without the field values that they quote, for teams that may keep none of them outside their tables."""

from __future__ import annotations

import re

HIDDEN = "…"
_LONGEST = 16_000  # characters of a sentence that are looked at; the rest of a longer one is left out

# Values that are quoted to the end, quotes of their own in them: OpenSearch's preview, PostgreSQL's after its colon.
_TO_THE_END = re.compile(r"(?<=: )(?:'.*'|\".*\")", re.DOTALL)
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|(?<!\w)'.*?'(?!\w)", re.DOTALL)  # not the apostrophe of a word
_OPEN = re.compile(r"(?:\"|(?<!\w)')(?!…)[^\"']*\Z", re.DOTALL)  # a quotation that was cut off
_FIELD = re.compile(r"(?<!date )field \[[\w.@-]+\]|\[[\w.@-]+\] (?:within|of type)|of type \[[\w.]+\]")
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
# Not a port, a status, a fingerprint, nor a part of a name or an address.
_NUMBER = re.compile(r"(?<!same error \()(?<!status )(?<!status \[)(?<![\w\]]:)(?<![\w./-])-?\d[\d.,]*(?!\w)")
_NAMES = re.compile(r"\bsql_42\w{3}: |\[42\w{3}\]")  # what a query names and there is not: quoted, and no value


def without_values(reason: str) -> str:
    """
    Return *reason* with what may be a field's value as `HIDDEN`; names of fields and types stay.

    In doubt it is a value. Fingerprints are made from the whole sentence, before.
    """
    if _NAMES.search(reason):
        return reason
    text = reason[:_LONGEST]
    text = _TO_THE_END.sub(lambda found: f"{found.group()[0]}{HIDDEN}{found.group()[0]}", text)
    text = _QUOTED.sub(lambda found: f"{found.group()[0]}{HIDDEN}{found.group()[0]}", text)
    text = _OPEN.sub(HIDDEN, text)
    kept: list[str] = []
    parts = []
    at = 0
    for found in _FIELD.finditer(text):
        parts.append(text[at : found.start()])
        kept.append(found.group())
        at = found.end()
    parts.append(text[at:])
    hidden = [_NUMBER.sub(HIDDEN, _BRACKETS.sub(f"[{HIDDEN}]", part)) for part in parts]
    return "".join(part + name for part, name in zip(hidden, [*kept, ""], strict=True))
