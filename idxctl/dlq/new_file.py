"""A file that is there whole or not at all, that only its owner reads, and that takes the place of none."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from idxctl.core.errors import IdxctlError, UsageError


def refuse_existing(path: Path) -> None:
    """Raise `UsageError` where something stands at *path* already, a link that leads nowhere among it."""
    if path == Path("-"):
        raise UsageError("- is stdout, and no file", hint="name a file; idxctl dlq export without one writes to stdout")
    if os.path.lexists(path):
        raise UsageError(f"{path} exists already, and is not written over", hint="name a file that does not exist")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """
    Yield a stream whose bytes are on the disk, under *path*, when the block ends; after an exception nothing is left.

    A process killed in between leaves ``.idxctl-….part`` beside it at most.
    """
    refuse_existing(path)
    beside = path.parent / f".idxctl-{secrets.token_hex(8)}.part"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            _put_in_place(beside, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
        _sync(path.parent)
    except OSError as error:
        raise IdxctlError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="name a file in a directory that has room and is yours",
        ) from error


def _put_in_place(beside: Path, path: Path) -> None:
    """Name the file in one step that fails where another has come meanwhile; a file system without links cannot say so."""
    try:
        os.link(beside, path)
    except FileExistsError:
        refuse_existing(path)
        raise
    except OSError:
        refuse_existing(path)
        beside.rename(path)


def _sync(directory: Path) -> None:
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
