"""What is needed to put someone's SQL in brackets, without a parser of SQL: where its last word ends."""

from __future__ import annotations

import re

# What a semicolon inside does not end. An unclosed one takes the rest: PostgreSQL will say what is wrong with it.
_PART = re.compile(
    r"""
    (?P<blank> \s+ | --[^\n]* )
    | (?P<comment> /\* )
    | (?P<end> ; )
    | [eE]'(?: [^'\\] | \\. | '' )*'?
    | '[^']*'?
    | "[^"]*"?
    | \$(?P<tag>[^\W\d]\w*|)\$ .*? (?: \$(?P=tag)\$ | \Z )
    | (?: \w | (?<=\w)\$ )+
    | .
    """,
    re.VERBOSE | re.DOTALL,
)


def bare(text: str) -> str:
    """Return a query that can stand in brackets: without the semicolon that ends it, and the comments behind that."""
    ends_at: int | None = None
    place = 0
    while place < len(text):
        part = _PART.match(text, place)
        assert part is not None  # the last alternative takes any character
        place = _end_of_comment(text, part.end()) if part["comment"] else part.end()
        if part["end"]:
            ends_at = part.start() if ends_at is None else ends_at
        elif not part["blank"] and not part["comment"]:
            ends_at = None  # something follows: two statements, which PostgreSQL refuses better than we could
    return text[:ends_at].strip()


def _end_of_comment(text: str, place: int) -> int:
    """Return where the block comment ends whose inside begins at *place*; they nest."""
    depth = 1
    while depth:
        edge = re.compile(r"/\*|\*/").search(text, place)
        if edge is None:
            return len(text)
        depth += 1 if edge.group() == "/*" else -1
        place = edge.end()
    return place
