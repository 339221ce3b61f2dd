"""Files in a directory that is shared with another program, maybe over a network file system.

What is written has its name only when it is complete and on disk. Every trouble is
`ServerUnavailable`: the directory stands for a server, and it may come back.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espilot.errors import ServerUnavailable

LARGEST_BYTES = 2**28
"""More than the ranges or inputs of any job take."""
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS, errno.EXDEV})


class SharedDirectory:
    """Whole files by their names; temporary ones begin with a dot and end in `.tmp`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_there(self) -> bool:
        """Whether the directory itself exists."""
        with self._translated("look at", ""):
            try:
                return stat.S_ISDIR(os.stat(self.path).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def has(self, name: str) -> bool:
        """Whether there is something of that name."""
        with self._translated("look at", name):
            try:
                os.lstat(self.path / name)
            except FileNotFoundError:
                return False
            return True

    def read(self, name: str) -> bytes | None:
        """The content of a regular file; None when there is none."""
        with self._translated("read", name):
            try:
                fd = os.open(
                    self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                )
            except FileNotFoundError:
                return None
            with os.fdopen(fd, "rb") as file:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_BYTES:
                    raise ServerUnavailable(
                        f"{self.path / name}: no file of at most {LARGEST_BYTES} bytes; remove it"
                    )
                return file.read(LARGEST_BYTES)

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of one that has the name."""
        with self._translated("write", name), self._temporary(name, data) as temporary:
            os.replace(temporary, self.path / name)
            self._sync()

    def place(self, name: str, data: bytes) -> bool:
        """Write a file that nobody has written yet; False when the name is taken."""
        with self._translated("write", name), self._temporary(name, data) as temporary:
            try:
                os.link(temporary, self.path / name)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # A file system without links: to look first is as near as can be.
                if self.has(name):
                    return False
                os.replace(temporary, self.path / name)
            self._sync()
            return True

    def move(self, name: str, new: str) -> None:
        """Rename, in place of what has the new name; a missing file is no error."""
        with self._translated("rename", name):
            try:
                os.replace(self.path / name, self.path / new)
            except FileNotFoundError:
                return

    def remove(self, name: str) -> None:
        """Remove a file; a missing one is no error."""
        with self._translated("remove", name):
            (self.path / name).unlink(missing_ok=True)

    def touch(self, name: str) -> None:
        """Make a file, or set its time to now; without content, so there is nothing to tear."""
        with self._translated("touch", name):
            (self.path / name).touch()

    def names(self, prefix: str) -> list[str]:
        """The names that begin so, sorted."""
        with self._translated("list", prefix):
            return sorted(name for name in os.listdir(self.path) if name.startswith(prefix))

    @contextmanager
    def _temporary(self, name: str, data: bytes) -> Iterator[Path]:
        temporary = self.path / f".{name}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _sync(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextmanager
    def _translated(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            path = self.path / name
            raise ServerUnavailable(
                f"cannot {action} {path}: {error.strerror}; look at that file system"
            ) from error
