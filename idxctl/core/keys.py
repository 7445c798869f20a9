"""
Document ids: the text of a row's key, the same in SQL and in Python.

One column: its text. Several: the text of each, with ``%`` and ``:`` percent-escaped, joined by ``:``. The reader joins on
the columns, so the text must give the value back; types whose text does not are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

LONGEST_BYTES = 512  # of an id, in UTF-8: OpenSearch takes no longer one

# Base types whose text, cast back, is the same value whatever the session's settings. `date` is written by to_jsonb, which
# is ISO whatever DateStyle says.
PLAIN_TYPES = frozenset(
    {"smallint", "integer", "bigint", "oid", "text", "character varying", "name", "uuid", "boolean", "date"}
)

# Those of them where equal values have one text, so that DISTINCT may look at the value itself.
EXACT_TYPES = PLAIN_TYPES - {"text", "character varying", "name"}

_WHY = {
    "real": "a float's text is rounded",
    "double precision": "a float's text is rounded",
    "numeric": "1.0 and 1.00 are equal and have two texts",
    "character": "char(n) pads with spaces that its text has not",
    "citext": "equal values have several texts",
    "bytea": "its text depends on bytea_output",
    "json": "equal values have several texts",
    "jsonb": "it is no scalar",
}


_NUMBER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_DATE = re.compile(r"[0-9]{4,7}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])( BC)?|-?infinity", re.ASCII)
_TRUTHS = frozenset({"t", "tr", "tru", "true", "y", "ye", "yes", "on", "1", "f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"})  # fmt: skip
_NOT_IN_UUID = str.maketrans("", "", "{}-")


def _within(lowest: int, highest: int) -> Callable[[str], bool]:
    return lambda text: len(text) <= _DIGITS and bool(_NUMBER.fullmatch(text)) and lowest <= int(text) <= highest


_DIGITS = 50  # with blanks; beyond it Python would rather not read a number either
_FITS: dict[str, Callable[[str], bool]] = {
    "smallint": _within(-(2**15), 2**15 - 1),
    "integer": _within(-(2**31), 2**31 - 1),
    "bigint": _within(-(2**63), 2**63 - 1),
    "oid": _within(-(2**31), 2**32 - 1),
    "uuid": lambda text: bool(re.fullmatch(r"[0-9a-fA-F]{32}", text.translate(_NOT_IN_UUID))),
    "boolean": lambda text: text.strip(" \t\n\v\f\r").lower() in _TRUTHS,
    "date": lambda text: bool(_DATE.fullmatch(text)),
}


def too_long(document_id: str) -> bool:
    """Whether OpenSearch takes no document of this id."""
    return len(document_id) > LONGEST_BYTES // 4 and len(document_id.encode("utf-8", "replace")) > LONGEST_BYTES


def unfit(document_id: str) -> str | None:
    """Say why OpenSearch takes no document of this id; None when it may."""
    if too_long(document_id):
        size = len(document_id.encode("utf-8", "replace"))
        return f"the document's id has {size:,} bytes; OpenSearch takes {LONGEST_BYTES} at the most"
    if not document_id.isascii() and not is_unicode(document_id):
        return "the document's id is no valid UTF-8, which the id of a document must be"
    return None


def is_unicode(text: str) -> bool:
    """Whether *text* can be written as UTF-8; bytes of a database without an encoding that are no characters cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fits(text: str, type_name: str) -> bool:
    """
    Whether *text* can be a value of a key's type; some that cannot be pass, and are refused by PostgreSQL.

    For servers before 16, which do not tell without an error. A date is one only as its id is written.
    """
    test = _FITS.get(type_name)
    return test is None or test(text)


def refusal(type_name: str, *, is_enum: bool = False) -> str | None:
    """Say why a key must not be of *type_name*, the base type's name without its modifier; None when it may."""
    if is_enum or type_name in PLAIN_TYPES:
        return None
    bare = type_name.rpartition(".")[2].strip('"')
    return _WHY.get(
        bare, "its text depends on the session's settings" if "time" in bare else "its text may not give the value back"
    )


def document_id(parts: Sequence[object]) -> str:
    """Return the id of the key *parts*, each in PostgreSQL's own text."""
    if len(parts) == 1:
        return str(parts[0])
    return ":".join(str(part).replace("%", "%25").replace(":", "%3A") for part in parts)


def key_parts(document_id: str, count: int) -> tuple[str, ...]:
    """Return the texts of the *count* key columns; the inverse of `document_id`. Raises ValueError on another count."""
    if count == 1:
        return (document_id,)
    parts = document_id.split(":")
    if len(parts) != count:
        raise ValueError(f"document id {document_id!r} has {len(parts)} parts, its index's key has {count}")
    return tuple(part.replace("%3A", ":").replace("%25", "%") for part in parts)


def document_id_sql(expressions: Sequence[str], types: Sequence[str]) -> str:
    """
    Return the SQL expression of the id of a key given by *expressions* of *types*; NULL when any part is.

    Every function and operator is pg_catalog's in so many words: the expression may stand beside SQL of the application's.
    COLLATE "C", or a column with a case-insensitive collation would make DISTINCT drop one of two ids, and replace() fail.
    """
    texts = [_text_sql(each, of) for each, of in zip(expressions, types, strict=True)]
    if len(texts) > 1:
        texts = [
            f"""pg_catalog.replace(pg_catalog.replace({each} COLLATE pg_catalog."C", '%', '%25'), ':', '%3A')"""
            for each in texts
        ]
    return "(" + _BESIDE.join(texts) + ') COLLATE pg_catalog."C"'


_BESIDE = " OPERATOR(pg_catalog.||) ':' OPERATOR(pg_catalog.||) "


def type_sql(type_name: str) -> str:
    """Return the SQL name of a key's type: PostgreSQL's own with its schema, where the language has no word for it."""
    return f"pg_catalog.{type_name}" if type_name in {"oid", "text", "name", "uuid", "date"} else type_name


def _text_sql(expression: str, type_name: str) -> str:
    if type_name == "date":
        return f"(pg_catalog.to_jsonb({expression}) OPERATOR(pg_catalog.#>>) '{{}}')"
    return f"({expression})::pg_catalog.text"
