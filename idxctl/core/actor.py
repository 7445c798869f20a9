"""Who acts, as a program says it of itself; the database adds what nobody can choose: the role that logged in, and its address."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache

CHANNELS = ("cli", "cron", "http", "library", "worker")


@lru_cache(maxsize=1)
def system_user() -> str:
    """
    Name the system's user that this process runs as, and its host.

    By the process's user id and not by ``$LOGNAME``, which is whatever someone wrote into it; a claim all the same.
    """
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without an entry
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


@dataclass(frozen=True)
class Actor:
    """By which way an act came, who claims it, and why."""

    channel: str = "library"
    operator: str | None = None  # None: the system's user; over HTTP the name of the token
    reason: str | None = None

    @property
    def name(self) -> str:
        """The operator, for people."""
        return self.operator if self.operator is not None else system_user()
