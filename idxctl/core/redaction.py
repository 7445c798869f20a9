"""Errors without the field values that they quote, for teams that may keep none of them outside their tables."""

from __future__ import annotations

import re

HIDDEN = "…"
_LONGEST = 16_000  # characters of a sentence that are looked at; the rest of a longer one is left out
_END = 200  # of these, from the end, where a state stands

# Where a value may begin: a quotation, though not the apostrophe of a word, a bracket, or what no field could be parsed from,
# since the causes of that are the parsers' own sentences, some of which quote without a quote.
_OPENS = re.compile(r"\"|(?<!\w)'|\[")
_FIELD = re.compile(
    r"(?<!date )field \[[\w.@-]+\](?: of type \[[\w.]+\])?|\[[\w.@-]+\] within|of type \[[\w.]+\]|object mapping for \[[\w.@-]+\]"
)
_PARSE = "failed to parse "
_PARSED = re.compile(rf"{_PARSE}field \[[\w.@-]+\](?: of type \[[\w.]+\])?")
_GROUP = re.compile(r" \([0-9a-f]{6}\)\Z")  # the fingerprint, where a line of the log ends
# Not a port, a status, a fingerprint, nor a part of a name or an address.
_NUMBER = re.compile(r"(?<!same error \()(?<!status )(?<!status \[)(?<![\w\]]:)(?<![\w./-])-?\d[\d.,]*(?!\w)")
# What a query names and there is not: quoted, and no value. It is said before anything is quoted, or a value could say it.
_NAMES = re.compile(
    r"[^\"'\[]*\bsql_42\w{3}: |[^\"'\[]*(?:does not run|cannot be searched for what is due|query fails): .*\[42\w{3}\](?:; [\w .-]*)?\Z",
    re.DOTALL,
)
# What the application's functions say (RAISE, and states of its own) quotes values in any way, or in none.
_OURS = r"(?:0\w|1\w|2\w|3[^89]|4\w|5[3-8]|72|F0|HV)\w{3}"
_THEIRS = re.compile(rf"(\bsql_(?!{_OURS})[0-9A-Z]{{5}}: ).*", re.DOTALL)
_THEIRS_AT_THE_END = re.compile(
    rf"((?:does not run|cannot be searched for what is due|query fails): ).*\[(?!{_OURS}\])([0-9A-Z]{{5}})\](?:; [\w .-]*)?\Z",
    re.DOTALL,
)
_RAISED = re.compile(r".* \[(P0\w{3})\]\)?\Z", re.DOTALL)


def without_values(reason: str) -> str:
    """
    Return *reason* with what may be a field's value as `HIDDEN`; names of fields and types before it stay.

    A value may hold any quote, bracket or phrase, so that nothing tells where it ends: the sentence ends where one begins.
    In doubt it is a value. Fingerprints are made from the whole sentence, before.
    """
    group = _GROUP.search(reason)
    text = reason if len(reason) <= _LONGEST else reason[: _LONGEST - _END] + reason[-_END:]
    text = _THEIRS.sub(rf"\1{HIDDEN}", text)
    text, found = _THEIRS_AT_THE_END.subn(rf"\1{HIDDEN} (\2)", text)
    if not found:
        text = _RAISED.sub(rf"{HIDDEN} (\1)", text)
    if _NAMES.match(text):
        return text
    end = _first_value(text)
    named = [found.span() for found in _FIELD.finditer(text[:end])]
    parts = []
    at = 0
    for start, stop in named:
        parts += [_NUMBER.sub(HIDDEN, text[at:start]), text[start:stop]]
        at = stop
    parts.append(_NUMBER.sub(HIDDEN, text[at:end]))
    if end < len(text) or len(reason) > _LONGEST:
        parts += [HIDDEN, group.group() if group else ""]
    return "".join(parts)


def said_without_values(error_type: str, said: str) -> str:
    """Return what a server *said* of an error without values: whose words they are is told by the error's type."""
    if not error_type:
        return without_values(said)
    before = f"{error_type}: "
    whole = without_values(before + said)
    return whole[len(before) :] if whole.startswith(before) else HIDDEN


def _first_value(text: str) -> int:
    """Return where the first value of *text* may begin, its length if there is none."""
    fields = {found.start() + found.group().index("["): found for found in _FIELD.finditer(text)}
    at = 0
    while (found := _OPENS.search(text, at)) is not None:
        field = fields.get(found.start())
        if field is None:
            return found.start()
        at = field.end()
        if _PARSED.fullmatch(text, field.start() - len(_PARSE), at):
            return at
    return len(text)
