"""Files and directories that a payload may have made: nothing in them costs more than it should.

A payload may leave links, pipes, and directories as deep as the file system lets it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

DEEPEST = 100
"""Levels of directories in which files are looked for."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; OSError for all else. No link is followed, no pipe waited
    for."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(fd, "rb")  # noqa: PTH123


def walk_files(root: Path | str, *, deepest: int = DEEPEST) -> Iterator[tuple[str, list[str]]]:
    """Directories from `root` down to a depth, each with the sorted names of its files.

    Links are not followed; what cannot be read is passed over.
    """
    waiting = [(os.fspath(root), 0)]
    while waiting:
        path, depth = waiting.pop()
        # os.walk itself calls itself at each level, and fails in a directory that is a trap.
        _, below, names = next(os.walk(path), (path, [], []))
        yield path, sorted(names)
        if depth < deepest:
            paths = [os.path.join(path, name) for name in sorted(below, reverse=True)]
            waiting += [(each, depth + 1) for each in paths if not os.path.islink(each)]


def remove_tree(directory: Path) -> None:
    """Remove a directory, however deep it is: one level at a time is open, and no path grows.

    OSError when something cannot be removed, or is moved meanwhile.
    """
    fd = os.open(directory, _DIRECTORY)
    try:
        levels = [_Level("", fd)]
        while levels:
            if levels[-1].below:
                name = levels[-1].below.pop()
                fd = _exchange(fd, name)
                levels.append(_Level(name, fd))
            elif done := levels.pop().name:
                fd = _exchange(fd, "..")
                levels[-1].require(fd)
                os.rmdir(done, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(directory)


class _Level:
    """One directory on the way down: its files are removed, `below` are its directories."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._identity = _identity(fd)
        with suppress(OSError):
            # Some programs leave directories that even their owner may not change.
            os.fchmod(fd, 0o700)
        with os.scandir(fd) as entries:
            found = list(entries)
        self.below = [each.name for each in found if each.is_dir(follow_symlinks=False)]
        for name in {each.name for each in found}.difference(self.below):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)

    def require(self, fd: int) -> None:
        """Refuse another directory: this one was moved, and `..` leads out of what is removed."""
        if _identity(fd) != self._identity:
            raise OSError(errno.EBUSY, "it is moved meanwhile", self.name)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _exchange(fd: int, name: str) -> int:
    """Open a directory from one that is closed then."""
    other = os.open(name, _DIRECTORY, dir_fd=fd)
    os.close(fd)
    return other
