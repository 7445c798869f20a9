"""Files put where someone names, and nowhere else: no link is followed, and a reader sees the old file or the new one."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from idxctl.core.errors import UsageError


def require_no_link(path: Path, *, folder: bool = False) -> None:
    """Raise `UsageError` where *path* is a link, or no file (*folder*: no folder), whoever put it there. None is fine."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        raise UsageError(f"{path} is a link, and none is followed", hint="name the place itself, or remove the link")
    if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
        raise UsageError(f"{path} is no {'directory' if folder else 'ordinary file'}; nothing was written")


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[int]:
    """Hold a folder open, so that what is put there stays in it whatever its name points to meanwhile."""
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}; nothing was written") from error
    try:
        yield held
    finally:
        os.close(held)


def put(directory: int, name: str, content: bytes) -> None:
    """Write a file into an open folder in one step; a link that stands there by then is replaced, not followed."""
    beside = f".{name}.{secrets.token_hex(8)}"
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=directory)
    try:
        with open(file, "wb") as stream:  # noqa: PTH123 - a descriptor
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=directory)
        raise
