"""Ports for servers: free ones, and below those that the system gives to outgoing connections."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10_240
_EPHEMERAL = 32_768  # from here on, where the system does not say
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ATTEMPTS = 100


def free_port() -> int:
    """
    Return a loopback port that was free a moment ago.

    A server that restarts must find its port again. One out of the ephemeral range may meanwhile be taken by any
    connection of any program, and then another server answers in its place.
    """
    highest = max(_ephemeral() - 1, _LOWEST + 1_000)
    for _ in range(_ATTEMPTS):
        port = random.randint(_LOWEST, highest)  # noqa: S311 - no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        last: int = probe.getsockname()[1]
        return last


def _ephemeral() -> int:
    try:
        return int(_RANGE_FILE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL
