"""
Stand between a program and the server it started, so that the server never outlives the program by accident.

Run as a script in a session of its own, with the standard library alone::

    guard.py STOP DEATH IDENTITY COMMAND...

Standard input is a pipe from the program. Each byte on it is a signal number to send to the server, or 0: keep the server
when the program ends. Without a 0, the end of the pipe is the program's death, however it came, and the server gets DEATH.
SIGTERM to the guard gives the server STOP, the orderly way. The server's process id goes to standard output, one line;
what it prints goes to standard error, which is a log file. The exit status is the server's, 128 + signal if one ended it.

A guard that is killed itself takes the server along, on Linux: the kernel sends it DEATH.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

CANNOT_BECOME = 96  # exit status: the identity asked for is not to be had here
CANNOT_RUN = 97  # exit status: the command cannot be executed
KEEP = 0
STOP_SECONDS = 60.0  # an orderly stop may write a checkpoint
DEATH_SECONDS = 10.0
PARENT_CHECK_MS = 1000  # a forked copy of the program may hold the pipe open: look at the parent as well
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1


def become(identity: str) -> None:
    """
    Take on *identity*: ``same``, ``namespace`` (nobody, in a user namespace of its own) or ``UID:GID``.

    In a namespace without a mapping the process sees itself as nobody, while its files stay root's: enough for
    PostgreSQL, which refuses to run as root, and nothing on the machine changes.
    """
    if identity == "same":
        return
    if identity == "namespace":
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "unshare") or libc.unshare(_CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "no user namespace")
        return
    user, group = (int(part) for part in identity.split(":"))
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)


def die_with(parent: int, death: int) -> None:
    """Have the kernel send *death* to this process when *parent* ends; a change of identity would undo it, so it comes last."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death)
        if os.getppid() != parent:  # it ended before the call
            os.kill(os.getpid(), signal.SIGKILL)


def run(command: Sequence[str], identity: str, death: int, parent: int) -> None:
    """Turn this freshly forked process into the server; does not return."""
    status = CANNOT_BECOME
    try:
        os.setsid()
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(ignored, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        become(identity)
        die_with(parent, death)
        status = CANNOT_RUN
        os.execv(command[0], list(command))  # noqa: S606 - a list of our own making
    except OSError as error:
        os.write(2, f"guard: {command[0]} as {identity}: {error}\n".encode())
    finally:
        os._exit(status)


class Watch:
    """The guard's wait: for the server to end, for orders from the program, and for the program's end."""

    def __init__(self, server: int, stop: int, death: int) -> None:
        self.server = server
        self.stop = stop
        self.death = death
        self.program = os.getppid()
        self.kept = False
        self.escalation: list[tuple[float, int]] = []  # when, which signal; soonest first
        self.woken, waker = os.pipe()
        for end in (self.woken, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self.poller = select.poll()
        self.poller.register(0, select.POLLIN)
        self.poller.register(self.woken, select.POLLIN)

    def until_over(self) -> int:
        """Return the server's wait status, once it has ended."""
        while True:
            ended, status = os.waitpid(self.server, os.WNOHANG)
            if ended:
                return status
            self._step([fd for fd, _ in self.poller.poll(PARENT_CHECK_MS)])

    def _step(self, ready: list[int]) -> None:
        if 0 in ready:
            self._orders(os.read(0, 64))
        elif not self.kept and not self.escalation and os.getppid() != self.program:
            self._end(self.death)
        if self.woken in ready and signal.SIGTERM in os.read(self.woken, 64):
            self._end(self.stop)
        while self.escalation and self.escalation[0][0] <= time.monotonic():
            self._send(self.escalation.pop(0)[1])

    def _orders(self, orders: bytes) -> None:
        for order in orders:
            if order == KEEP:
                self.kept = True
            else:
                self._send(order)
        if not orders:
            self.poller.unregister(0)
            if not self.kept:
                self._end(self.death)

    def _end(self, first: int) -> None:
        self._send(first)
        now = time.monotonic()
        patience = STOP_SECONDS if first == self.stop != self.death else 0.0
        self.escalation = [(now + patience, self.death)] if patience else []
        self.escalation.append((now + patience + DEATH_SECONDS, signal.SIGKILL))

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server, number)


def main(arguments: Sequence[str]) -> int:
    """Start the server, watch until it has ended, and return its exit status."""
    stop, death, identity = int(arguments[0]), int(arguments[1]), arguments[2]
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    for noticed in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(noticed, lambda *_: None)  # wakes the poll
    guard = os.getpid()
    # A signal to the server before it has its own handlers must not end in the guard's, which it inherits.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    server = os.fork()
    if server == 0:
        run(arguments[3:], identity, death, guard)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    watch = Watch(server, stop, death)
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{server}\n".encode())
    os.dup2(2, 1)
    code = os.waitstatus_to_exitcode(watch.until_over())
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
