"""The one place where the driver's errors become ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
from psycopg import errors as pg

from idxctl.core.errors import IdxctlError, PostgresRefused, PostgresUnreachable
from idxctl.postgres import rights

_RIGHTS_HINT = "run it as the owner, or have that role grant the right; idxctl grants prints what each role needs"
_ROW_SECURITY_HINT = (
    "a policy would hide rows, and their documents would be deleted: give the role that idxctl connects as BYPASSRLS"
)


@contextlib.contextmanager
def translated(doing: str, text: str = "") -> Iterator[None]:
    """Turn the driver's errors into ours; *doing* names the statement in them, whose *text* says which rights it takes."""
    try:
        yield
    except IdxctlError:
        raise
    except psycopg.Error as error:
        if not _connection_lost(error):
            raise _refused(doing, error, text) from error
        raise PostgresUnreachable(f"lost the connection to PostgreSQL ({doing}): {sentence(error)}") from error
    except (
        UnicodeError
    ) as error:  # half of a surrogate pair, or bytes of a database without an encoding that are no UTF-8
        said = "a text is no valid Unicode"
        raise PostgresRefused(f"PostgreSQL refused ({doing}): {said}", sqlstate="22021", detail=said) from error


def _connection_lost(error: psycopg.Error) -> bool:
    """Whether it is an outage: 57P (shutdown), 08 (connection), 25P03 (idle too long), or the driver's own word."""
    if error.sqlstate:
        return error.sqlstate.startswith(("57P", "08", "25P03"))
    return isinstance(error, (pg.OperationalError, psycopg.InterfaceError))


def _refused(doing: str, error: psycopg.Error, text: str) -> PostgresRefused:
    detail = error.diag.message_primary or str(error)
    hint = error.diag.message_hint
    if error.sqlstate == "42501":
        hint = hint or (
            _ROW_SECURITY_HINT if "row-level security" in detail else rights.hint(detail, text) or _RIGHTS_HINT
        )
    return PostgresRefused(
        f"PostgreSQL refused ({doing}): {detail}", sqlstate=error.sqlstate or _unsent(error), detail=detail, hint=hint
    )


def _unsent(error: psycopg.Error) -> str:
    """Return a state for what the driver refuses by itself: a value that no server would take does not pass by waiting."""
    return "22000" if isinstance(error, psycopg.DataError) else "XX000"


def sentence(error: psycopg.Error) -> str:
    """Return the server's or libpq's sentence in one line; neither of them quotes a password."""
    text = error.diag.message_primary or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Multiple connection attempts" not in line]
    return lines[0] if lines else type(error).__name__
