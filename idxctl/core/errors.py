"""
The errors a caller may meet, each with the exit status the command line ends with.

IdxctlError                 1  the command failed
├── UsageError              2  an argument that cannot be meant
│   └── WrongType           2  an argument of a type that cannot be meant; a TypeError too
├── PartlyDone              3  some of it was done, some not
├── ConfigError             4  the configuration, or what it names, is wrong
│   ├── SchemaError         4  idxctl's tables are missing, older or newer than this program
│   └── DocumentError       4  a document query, mapping or watch that cannot work
├── Unreachable             5  a server does not answer
│   ├── PostgresUnreachable
│   └── OpenSearchUnreachable
│       └── OpenSearchUnintelligible    something answered, and it is no answer
├── Locked                  6  another run holds what this one needs
├── CheckFailed             7  a check says no
├── WaitTimeout             8  what was waited for did not happen in time
└── Refused                 1  a server answered, and said no
    ├── PostgresRefused     (with the SQLSTATE)
    └── OpenSearchRefused   (with the HTTP status and error type)

Messages name the thing, the state found and the state wanted; `hint` is the way out. Neither ever carries a DSN, a
password or a document.
"""

from __future__ import annotations


class IdxctlError(Exception):
    """Anything idxctl can explain. ``hint`` tells the reader what to do next."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(IdxctlError):
    """An argument that cannot be meant."""

    exit_status = 2


class WrongType(UsageError, TypeError):  # noqa: N818 - it is what a TypeError says
    """An argument of a type that cannot be meant."""


class PartlyDone(IdxctlError):  # noqa: N818 - it is an outcome
    """Some of the work was done and some was not."""

    exit_status = 3


class ConfigError(IdxctlError):
    """The configuration, or something that it names, is wrong."""

    exit_status = 4


class SchemaError(ConfigError):
    """The tables of idxctl are missing, older or newer than this program."""


class DocumentError(ConfigError):
    """A document query, mapping or watch that cannot work."""


class Unreachable(IdxctlError):  # noqa: N818 - reads as the state it is
    """A server does not answer."""

    exit_status = 5


class PostgresUnreachable(Unreachable):
    """PostgreSQL does not answer, or turned the connection away."""


class OpenSearchUnreachable(Unreachable):
    """
    OpenSearch does not answer; what a request under way has done is unknown.

    ``cut``: it closed the connection then. ``slow``: it had the request, and said nothing for as long as we waited.
    """

    def __init__(self, message: str, *, hint: str | None = None, cut: bool = False, slow: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.cut = cut
        self.slow = slow


class OpenSearchUnintelligible(OpenSearchUnreachable):
    """
    Something answered, and it does not account for what was asked: a gateway's page, half of the items.

    What the request has done is as unknown as after a lost connection. ``answered`` says in a few words what came.
    """

    def __init__(self, message: str, *, answered: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.answered = answered


class Locked(IdxctlError):  # noqa: N818 - reads as the state it is
    """Another run holds what this one needs."""

    exit_status = 6


class CheckFailed(IdxctlError):  # noqa: N818 - it is an outcome
    """A check was made and says no."""

    exit_status = 7


class WaitTimeout(IdxctlError):  # noqa: N818 - it is an outcome
    """What was waited for did not happen in time."""

    exit_status = 8


class Refused(IdxctlError):  # noqa: N818 - reads as the state it is
    """A server answered, and said no."""


class PostgresRefused(Refused):
    """PostgreSQL refused a statement. ``sqlstate`` is its five-character code, ``detail`` the server's own message."""

    def __init__(self, message: str, *, sqlstate: str, detail: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate
        self.detail = detail

    @property
    def passing(self) -> bool:
        """
        Whether it goes by itself: conflicts, resources, locks, cancelled statements, a server in recovery or at fault.

        25006 is a server that takes no writes: a primary that became a standby, until the connection is made again.
        """
        return self.sqlstate == "25006" or self.sqlstate[:2] in {"40", "53", "55", "57", "58", "XX"}


class OpenSearchRefused(Refused):
    """
    OpenSearch answered a whole request with an error.

    ``status`` is the HTTP status, ``error_type`` OpenSearch's own name for the error ("" where it gave none, as for
    413), ``reason`` its sentence and ``body`` the parsed answer, if it was JSON. Where it was no error of OpenSearch's own, as
    of a gateway, ``answered`` says in a few words what came, and ``page`` is the words of it; "" otherwise.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        error_type: str = "",
        reason: str = "",
        body: object = None,
        page: str = "",
        answered: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.answered = answered
        self.page = page
        self.error_type = error_type
        self.reason = reason
        self.body = body
