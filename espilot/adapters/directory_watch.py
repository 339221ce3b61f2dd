"""Files that appear in one directory, by inotify(7); three calls of libc through ctypes.

It is a descriptor for the process's own poller: no thread and no package. What came while nobody
watched, or more than the kernel keeps, is found by a scan.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from espilot.errors import LocalError

_MOVED_TO, _CLOSE_WRITE = 0x80, 0x8
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _IGNORED = 0x400, 0x800, 0x2000, 0x8000
_OVERFLOW = 0x4000
_ONLY_DIRECTORY, _DONT_FOLLOW, _UNLINKED_TOO = 0x1000000, 0x2000000, 0x4000000
_GONE = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED
_MASK = _MOVED_TO | _CLOSE_WRITE | _DELETE_SELF | _MOVE_SELF
_HOW = _ONLY_DIRECTORY | _DONT_FOLLOW | _UNLINKED_TOO
_EVENT = struct.Struct("iIII")
_READ_BYTES = 1 << 16
_READS = 16
"""A flood must not keep the loop: what is left comes at its next turn."""


@dataclass(slots=True)
class Seen:
    """What has happened: names that were moved in, and names that were closed after writing.

    `lost`: more happened than the kernel kept. `gone`: the directory is not there any more.
    """

    moved: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    lost: bool = False
    gone: bool = False


class DirectoryWatch:
    """Watches one directory from now on; `fd` is readable when something has happened."""

    def __init__(self, directory: Path) -> None:
        """Begin to watch; `LocalError` where the kernel does not allow it."""
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self.fd < 0:
            raise _refusal(directory, ctypes.get_errno())
        if libc.inotify_add_watch(self.fd, os.fsencode(directory), _MASK | _HOW) < 0:
            number = ctypes.get_errno()
            os.close(self.fd)
            raise _refusal(directory, number)

    def read(self) -> Seen:
        """What has happened since the last time, a bounded part of it; never waits."""
        seen = Seen()
        for _ in range(_READS):
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                break
            for mask, name in _events(data):
                seen.lost = seen.lost or bool(mask & _OVERFLOW)
                seen.gone = seen.gone or bool(mask & _GONE)
                if name and mask & _MOVED_TO:
                    seen.moved.append(name)
                elif name and mask & _CLOSE_WRITE:
                    seen.closed.append(name)
        return seen

    def close(self) -> None:
        """End the watch."""
        os.close(self.fd)


def scan(directory: Path) -> Iterator[str]:
    """The names in a directory, in no order; none where it is missing or not a directory."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                yield entry.name
    finally:
        os.close(fd)


def is_being_written(path: str) -> bool:
    """Whether some process has the file open for writing, as far as the file system can tell.

    The kernel grants a read lease only on a file that nobody writes. Whoever opens it for writing
    within that moment has us told by a signal, which shall be one that does nothing.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(fd)
    return False


def _events(data: bytes) -> Iterator[tuple[int, str]]:
    """Mask and name of each event."""
    at = 0
    while at < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))
        at += length


def _refusal(directory: Path, number: int) -> LocalError:
    """The kernel's reason; both of its limits look like other errors."""
    remedies = {
        errno.EMFILE: "; all of fs.inotify.max_user_instances are in use",
        errno.ENOSPC: "; all of fs.inotify.max_user_watches are in use",
    }
    why = remedies.get(number, "")
    return LocalError(f"cannot watch {directory}: {os.strerror(number)}{why}")
