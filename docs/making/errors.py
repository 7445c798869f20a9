"""``errors.md``: what a caller may meet, from the classes themselves, and the names that dead letters and answers give."""

from __future__ import annotations

from collections.abc import Iterator

import idxctl
from idxctl.core import errors
from idxctl.core.errors import IdxctlError
from making.markdown import MADE, cell, code_cell, page, table

# What idxctl itself calls a failure of a document; every other name is OpenSearch's own.
LETTERS = {
    "sql_22P02": "`sql_` and the SQLSTATE: the document query, or the routing, fails for this row",
    "duplicate_document": "the document query returns this id more than once",
    "id_too_long": "an id over 512 bytes, which no index takes",
    "id_not_utf8": "an id that is not UTF-8, in a database without an encoding",
    "http_413": "`http_` and the status: refused as a whole, without a name of OpenSearch's; 413 is a document too large for it",
    "way_http_403": "`way_`: something between here and OpenSearch fails on this document while others pass. Here a gateway or firewall answers 403",
    "way_cut": "the same; the connection is closed",
    "way_slow": "the same; there is no answer in time",
    "way_unanswered": "the same; no connection comes about",
    "way_unintelligible": "the same; what comes back is no answer of OpenSearch's",
}


def errors_page() -> str:
    """Return the page."""
    return page(
        "# Errors",
        MADE,
        "On the command line an error is a line `error:` and, where there is a way out, a line `hint:`, on stderr, and an exit\n"
        "status ([commands.md](commands.md#exit-statuses)); over HTTP it is `application/problem+json` ([http.md](http.md)); in Python\n"
        "an exception with `message` and `hint`. None carries a password or a connection string. `idxctl --debug COMMAND` adds the\n"
        "traceback. Those written with `idxctl.` can be imported from there.",
        table(("error", "is a", "exit status", "when"), (_row(one) for one in classes())),
        "## Why a document became a dead letter",
        "`error_type` of `dlq list`, `dlq show` and `dlq stats`: OpenSearch's own name, such as `mapper_parsing_exception` or\n"
        "`strict_dynamic_mapping_exception`, or one of idxctl's:",
        table(("`error_type`", ""), ((code_cell(name), cell(text)) for name, text in LETTERS.items())),
    )


def classes() -> list[type[IdxctlError]]:
    """Return every error, each before its refinements."""
    return list(_below(IdxctlError))


def _below(one: type[IdxctlError]) -> Iterator[type[IdxctlError]]:
    yield one
    for inner in vars(errors).values():
        if isinstance(inner, type) and inner is not one and inner.__bases__[0] is one:
            yield from _below(inner)


def _row(one: type[IdxctlError]) -> tuple[str, str, str, str]:
    bases = ", ".join(code_cell(base.__name__) for base in one.__bases__ if one is not IdxctlError)
    name = f"idxctl.{one.__name__}" if hasattr(idxctl, one.__name__) else one.__name__
    when = (one.__doc__ or "").strip().split("\n\n")[0].replace("``", "`")
    return code_cell(name), bases, str(one.exit_status), cell(when)
