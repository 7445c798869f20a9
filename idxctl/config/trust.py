"""
Whose word a file is: who may have written it, and who could put another one in its place.

A file that decides (the configuration, SQL and mapping, a secret, a certificate) makes idxctl connect, authenticate, read
and run what it says, with the rights of the person who types the command. So it must be that person's, or root's. One
that others can write, or whose folder lets them exchange it, is refused. One that belongs to someone else, as on a volume
of a container, is read with a remark, and nothing that it names is run. ``IDXCTL_TRUST_DIRECTORY`` says otherwise, by folder.

Every folder on the way is looked at, those that symbolic links lead through included. Where none of them lets others in,
nobody can exchange anything between the look and the use of a name.
"""

from __future__ import annotations

import errno
import functools
import grp
import os
import pwd
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "IDXCTL_TRUST_DIRECTORY"
ROOT = 0
LARGEST = 32 * 1024 * 1024  # bytes of a file that decides; a device or a hole in a disk has no end
_MOST_LINKS = 40  # as the kernel allows
_OPEN_FILES = re.compile(r"/proc/\d+/fd")  # what is open already has no place
_ACL = "system.posix_acl_access"
_ACL_USER, _ACL_GROUP, _ACL_MASK = 0x02, 0x08, 0x10
_ACL_WRITE = 0x02


@dataclass(frozen=True)
class Remark:
    """What is unwise about a file and does not keep it from being read."""

    kind: str  # "foreign": it belongs to someone else; "exposed": it holds a secret that others can read
    path: Path
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path} {self.what}; {self.fix}"


@dataclass(frozen=True)
class Standing:
    """How a file stands. ``refused`` is why it cannot be relied on, ``foreign`` whose word it would be."""

    path: Path
    uid: int
    mode: int
    refused: str = ""
    fix: str = ""
    foreign: str = ""
    exposed: bool = False  # its mode lets others read it
    owners: frozenset[int] = frozenset()  # who else decides: of the file, and of folders on the way
    closed: frozenset[tuple[str, int]] = frozenset()  # folders on the way that others cannot pass, and whose they are

    def is_open_to(self, other: Standing) -> bool:
        """Whether those who decided *other* can read this file themselves, by their own rights; where theirs lies, they were."""
        before_them = {owner for _, owner in self.closed - other.closed}
        return self.uid in other.owners or (self.exposed and before_them <= other.owners)

    def belongs_to_somebody_else(self) -> Remark:
        """Return the remark on a foreign file."""
        what = f"belongs to someone else ({self.foreign}), who decides here what idxctl does; no command that it names is run"
        return Remark("foreign", self.path, what, f"{VARIABLE}={self.path.parent.absolute()} says that it is trusted")

    def can_be_read(self) -> Remark:
        """Return the remark on a secret that others can read."""
        what = f"holds a secret, and others can read it ({described(self.uid, self.mode)})"
        return Remark("exposed", self.path, what, f"chmod 600 {self.path}")


@dataclass(frozen=True)
class _Step:
    """One name on the way to a file, looked up in a folder."""

    folder: str
    folder_is: os.stat_result
    entry: str
    entry_is: os.stat_result


class Trust:
    """Whom the process believes: itself, root, and what lies in *directories*. *uid* is another user to see it as."""

    def __init__(self, directories: Iterable[str] = (), *, uid: int | None = None) -> None:
        self._uid = os.geteuid() if uid is None else uid
        self._ours = frozenset({self._uid, ROOT})
        self._trusted = tuple(
            {place for one in directories for place in (os.path.normpath(one), os.path.realpath(one))}
        )

    def read(self, path: Path) -> tuple[bytes, Standing]:
        """Read a file and say how it stands: the one that was read, by its descriptor. Raises `OSError`; never blocks on a pipe."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            standing = self._standing(path, os.fstat(descriptor), descriptor)
            if standing.refused:
                return b"", standing
            if standing.foreign and not stat.S_ISREG(standing.mode):
                raise OSError(errno.EINVAL, f"it is no plain file, and belongs to someone else ({standing.foreign})")
            os.set_blocking(descriptor, True)  # a pipe of the shell's own: <(command)
            data = file.read(LARGEST + 1)
            if len(data) > LARGEST:
                raise OSError(errno.EFBIG, f"it is larger than {LARGEST // 1024**2} MB")
            return data, standing

    def look(self, path: Path) -> Standing:
        """Say how a file stands that someone else will open. Raises `OSError` where it is not there."""
        return self._standing(path, path.stat(), path)

    def _standing(self, path: Path, found: os.stat_result, acl: int | Path) -> Standing:
        refused, fix, owners = self._of_way(path)
        inside = self._is_trusted(os.path.realpath(path))
        if not refused and not inside:
            refused, fix = self._of_file(path, found, acl)
        if found.st_uid not in self._ours and not inside:
            owners = [found.st_uid, *owners]
        return Standing(
            path,
            found.st_uid,
            found.st_mode,
            refused,
            fix,
            " and ".join(dict.fromkeys(map(name_of, owners))),
            exposed=_others(found, stat.S_IROTH, stat.S_IRGRP, self._ours, None) != "",
            owners=frozenset(owners),
            closed=_closed(os.path.realpath(path)),
        )

    def _of_file(self, path: Path, found: os.stat_result, acl: int | Path) -> tuple[str, str]:
        who = _others(found, stat.S_IWOTH, stat.S_IWGRP, self._ours, acl)
        if not who:
            return "", ""
        return f"{path} can be written by {who} ({described(found.st_uid, found.st_mode)})", f"chmod go-w {path}"

    def _of_way(self, path: Path) -> tuple[str, str, list[int]]:
        """Return why the file can be exchanged, what to do, and whose folders it passes through."""
        owners: list[int] = []
        for step in _steps(os.path.join(os.getcwd(), path)):  # noqa: PTH109, PTH118 - ".." and links as the kernel follows them
            if self._is_trusted(step.entry) or self._leads_to_trusted(step.entry):
                continue
            folder = step.folder_is
            who = _others(folder, stat.S_IWOTH, stat.S_IWGRP, self._ours, Path(step.folder))
            if who and not folder.st_mode & stat.S_ISVTX:
                what = f"{path} can be replaced: its folder {step.folder} can be written by {who} ({described(folder.st_uid, folder.st_mode)})"
                return (
                    what,
                    f"chmod go-w {step.folder}, or move it; {VARIABLE}={step.folder} trusts all who can write there",
                    [],
                )
            if who and step.entry_is.st_uid not in self._ours:
                owner = described(step.entry_is.st_uid, step.entry_is.st_mode)
                what = f"{path} is someone else's to decide: {step.entry} was put by {name_of(step.entry_is.st_uid)} into {step.folder}, where {who} may ({owner})"
                return what, f"move it to a folder of your own; {VARIABLE}={step.entry} trusts it", []
            if folder.st_uid not in self._ours:
                owners.append(folder.st_uid)
        return "", "", owners

    def _is_trusted(self, entry: str) -> bool:
        return any(_within(entry, place) for place in self._trusted)

    def _leads_to_trusted(self, entry: str) -> bool:
        return any(_within(place, entry) for place in self._trusted)


def of(environ: Mapping[str, str], *, uid: int | None = None) -> tuple[Trust, list[str]]:
    """Return whom *environ* says to trust, and those of its folders that cannot be meant: relative ones would be any folder."""
    given = [os.path.expanduser(one) for one in environ.get(VARIABLE, "").split(os.pathsep) if one.strip()]  # noqa: PTH111
    wrong = [one for one in given if not os.path.isabs(one)]  # noqa: PTH117
    return Trust([one for one in given if one not in wrong], uid=uid), wrong


def described(uid: int, mode: int) -> str:
    """Return owner and mode for people: "owner root, mode 0666"."""
    return f"owner {name_of(uid)}, mode {stat.S_IMODE(mode):04o}"


@functools.cache
def name_of(uid: int) -> str:
    """Return a user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


_said: set[tuple[str, Path]] = set()


def not_said_yet(remarks: Iterable[Remark]) -> list[Remark]:
    """Return those of *remarks* that this process has not said, and count them as said."""
    new = [one for one in remarks if (one.kind, one.path) not in _said]
    _said.update((one.kind, one.path) for one in new)
    return new


def _closed(path: str) -> frozenset[tuple[str, int]]:
    """Return the folders above *path* that not everybody can pass; what has no place is closed to all."""
    try:
        folders = [(str(one), one.stat()) for one in Path(path).parents]
    except OSError:
        return frozenset({(path, -1)})
    return frozenset((place, found.st_uid) for place, found in folders if not found.st_mode & stat.S_IXOTH)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _steps(path: str) -> Iterator[_Step]:
    """Walk to an absolute *path* as the kernel does, name by name, through every link."""
    folder, links = "/", 0
    names = [name for name in reversed(path.split("/")) if name not in {"", "."}]
    while names:
        name = names.pop()
        if name == "..":
            folder = os.path.dirname(folder)  # noqa: PTH120 - no link is left in it
            continue
        if _OPEN_FILES.fullmatch(folder):
            return
        entry = os.path.join(folder, name)  # noqa: PTH118
        found = os.lstat(entry)
        yield _Step(folder, os.stat(folder), entry, found)  # noqa: PTH116
        if not stat.S_ISLNK(found.st_mode):
            folder = entry
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(40, "too many levels of symbolic links", path)
        target = os.readlink(entry)  # noqa: PTH115
        names += [part for part in reversed(target.split("/")) if part not in {"", "."}]
        folder = "/" if target.startswith("/") else folder


def _others(found: os.stat_result, by_all: int, by_group: int, ours: frozenset[int], acl: int | Path | None) -> str:
    """Name who else than *ours* and the owner has a right, or return ""; *acl* is where to look for a longer list."""
    known = ours | {found.st_uid}
    if found.st_mode & by_all:
        return "everybody"
    if not found.st_mode & by_group:
        return ""
    if not _all_known(found.st_gid, known):
        return f"group {_group_name(found.st_gid)}"
    return _in_acl(acl, known) if acl is not None else ""


@functools.cache
def _all_known(gid: int, known: frozenset[int]) -> bool:
    """Whether a group has no member but *known* users, as far as this machine can tell."""
    try:
        names = grp.getgrgid(gid).gr_mem
    except KeyError:
        return gid in known  # a user's own group bears the user's number
    members = [_uid_of(name) for name in names]
    if gid != ROOT:  # system accounts of some distributions are in root's group, and are nobody
        members += [user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid]
    return known.issuperset(members)


def _uid_of(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return -1


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _in_acl(place: int | Path, known: frozenset[int]) -> str:
    """Name a user or group of an access control list that may write; the mode shows no more of it than the mask."""
    try:
        raw = os.getxattr(place, _ACL)
    except (AttributeError, OSError):  # no list, or a system without
        return ""
    entries = list(struct.iter_unpack("<HHI", raw[4:]))
    mask = next((right for tag, right, _ in entries if tag == _ACL_MASK), _ACL_WRITE)
    for tag, right, number in entries:
        if not right & mask & _ACL_WRITE:
            continue
        if tag == _ACL_USER and number not in known:
            return f"{name_of(number)} (by its access control list)"
        if tag == _ACL_GROUP and not _all_known(number, known):
            return f"group {_group_name(number)} (by its access control list)"
    return ""
