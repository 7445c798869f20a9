"""
Whose entry it is: projects of one user share a crontab, and none of them touches what another put there.

A project is its configuration file, or the env file where there is none, under the path by which it is named: a
deployment that points a link to each release stays one project. Its mark is the second half of an entry's name,
``dlq-retry.shop-1f09ab3c``, and so of its lock and its log. Releases before wrote ``dlq-retry`` for every project; whose
such an entry is, its line tells.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from idxctl.cron.blocks import Block
from idxctl.cron.reading import names_of_files

_USUAL = "idxctl"  # the stem of a configuration file that tells nothing of its project
_SUFFIX = re.compile(r"\.(?:[a-z0-9-]+-)?[0-9a-f]{8}")
_READABLE = 24  # letters of a mark that say which project it is; the rest tells two of one name apart


def full_name(name: str, source: Path | None) -> str:
    """Return the name in the tab of the entry *name* of the project whose file is *source*."""
    if source is None:
        return name
    words = source.parent.name if source.stem in {_USUAL, ""} else f"{source.parent.name}-{source.stem}"
    readable = re.sub(r"[^a-z0-9]+", "-", words.lower())[:_READABLE].strip("-")
    told_apart = hashlib.sha256(os.fsencode(source)).hexdigest()[:8]
    return f"{name}.{readable}-{told_apart}" if readable else f"{name}.{told_apart}"


def own(found: Sequence[Block], name: str, source: Path | None) -> tuple[Block, ...]:
    """
    Return the blocks that are the entry *name* of this project, the one under its present name first.

    That is also one of an earlier release, and one whose file was named by another path when it was installed.
    """
    wanted = full_name(name, source)
    others = [block for block in found if block.name != wanted and is_called(block.name, name)]
    same = [block for block in others if _is_of(block, source)]
    return (*(block for block in found if block.name == wanted), *same)


def is_called(full: str, name: str) -> bool:
    """Say whether *full* is the entry *name* of some project."""
    return full == name or (full.startswith(name) and _SUFFIX.fullmatch(full, len(name)) is not None)


def _is_of(block: Block, source: Path | None) -> bool:
    named = names_of_files(block.body)
    if named is None:  # edited by hand: nothing is guessed
        return False
    if source is None or not named:
        return source is None and not named
    return named[0] == source or _same_file(named[0], source)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # gone, or not to be seen
        return False
