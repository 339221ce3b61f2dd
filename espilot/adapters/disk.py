"""Sizes on disk: free space, single files, whole directories in small steps.

What counts is the space that is taken: allocated blocks, each inode once, so sparse and hard-linked
files are counted as the disk sees them. Files that were deleted while open are asked of /proc.
A file that vanishes while we look is normal; every other failure is reported.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from espilot.errors import LocalError
from espilot.foreign_files import remove_tree

_BLOCK_BYTES = 512
_CLOCK_EVERY = 64
_ERRORS_KEPT = 5


@dataclass(frozen=True, slots=True)
class LargestFile:
    """A file by its path, inode, and length in bytes (not the space it takes)."""

    path: str
    inode: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class WalkResult:
    """One completed walk: when it ended (Unix seconds), and the first few of its `failures`.

    `newest_change_at` is the newest modification of a regular file; `largest` is the largest of the
    regular files that were changed since the walk before this one began. Both only of files in
    `watched` that are not in `own`.
    """

    size_bytes: int
    entries: int
    completed_at: float
    failures: int = 0
    errors: tuple[str, ...] = ()
    newest_change_at: float | None = None
    largest: LargestFile | None = None


def free_bytes(path: Path) -> int:
    """Space that an ordinary user may still take on the file system of `path`.

    LocalError when it cannot be told; a guess would be worse.
    """
    try:
        status = os.statvfs(path)
    except OSError as error:
        raise LocalError(f"cannot measure free space of {path}: {error.strerror}") from error
    return status.f_bavail * status.f_frsize


def file_size(path: Path) -> int | None:
    """Length of a file in bytes (links not followed); None when there is none.

    LocalError when it cannot be told.
    """
    try:
        return os.lstat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LocalError(f"cannot measure {path}: {error.strerror}") from error


def device_of(path: Path) -> int:
    """The number of the file system that `path` is on; LocalError when it cannot be told."""
    try:
        return os.stat(path).st_dev
    except OSError as error:
        raise LocalError(f"cannot look at {path}: {error.strerror}") from error


def deleted_bytes(pids: Iterable[int], device: int, budget_files: int = 20_000) -> int:
    """Space taken on `device` by files that these processes hold open after their deletion.

    Processes that have ended or are not ours to look into count as nothing; no more than
    `budget_files` open files are looked at.
    """
    inodes: dict[int, int] = {}
    for pid in pids:
        names = _names(f"/proc/{pid}/fd")[: max(0, budget_files)]
        budget_files -= len(names)
        for name in names:
            try:
                status = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue  # closed since
            if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                inodes[status.st_ino] = status.st_blocks * _BLOCK_BYTES
    return sum(inodes.values())


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def remove_path(path: Path) -> None:
    """Remove a file, socket, link or whole directory of our own; a missing one is no error.

    LocalError for what is another user's, or too near to the root to be anything of the pilot's.
    """
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 3:
        raise LocalError(f"will not remove {path}: not a path of the pilot's")
    try:
        status = os.lstat(path)
        if status.st_uid != os.getuid():
            raise LocalError(f"will not remove {path}: it belongs to another user")
        if stat.S_ISDIR(status.st_mode):
            remove_tree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise LocalError(f"cannot remove {path}: {error.strerror}") from error


class SizeWalker:
    """Measures one directory again and again, a little at each call of `step`.

    Symbolic links are not followed, other file systems not entered, `exclude` left out. One
    directory at a time is open; memory is needed for hard-linked inodes and directories in waiting.
    `watched` is the directory of the payload's work, `own` single files in it that are not its
    work; both take space as all the others do.
    """

    def __init__(self, root: Path, exclude: Iterable[Path] = ()) -> None:
        self._root = os.path.abspath(root)
        self.watched = root
        self.own: frozenset[str] = frozenset()
        self._begun_at = self._former_begun_at = 0.0
        self._exclude = frozenset(os.path.abspath(path) for path in exclude)
        self.result: WalkResult | None = None
        self._open: os._ScandirIterator[str] | None = None
        self._start()

    def _start(self) -> None:
        self._waiting: list[str] = []
        self._linked: set[int] = set()
        self._device = -1
        self._size_bytes = self._entries = self._failures = 0
        self._errors: list[str] = []
        self._newest_ns = 0
        self._largest: LargestFile | None = None

    def step(self, budget_entries: int = 1000, budget_s: float = 0.05) -> bool:
        """Look at up to so many entries for up to so long; True when a walk is complete.

        Then `result` holds it, and the next step begins a new walk. LocalError when the root
        itself cannot be read.
        """
        deadline = time.monotonic() + budget_s
        if self._device < 0:
            self._enter_root()
        for count in range(1, budget_entries + 1):
            if not self._advance():
                self._complete()
                return True
            if count % _CLOCK_EVERY == 0 and time.monotonic() >= deadline:
                return False
        return False

    def close(self) -> None:
        """Give the walk up; the next step begins anew."""
        if self._open is not None:
            self._open.close()
            self._open = None
        self._start()

    def _enter_root(self) -> None:
        try:
            status = os.stat(self._root)
            self._open = os.scandir(self._root)
        except OSError as error:
            raise LocalError(f"cannot measure {self._root}: {error.strerror}") from error
        self._former_begun_at, self._begun_at = self._begun_at, time.time()
        self._device = status.st_dev
        self._size_bytes = status.st_blocks * _BLOCK_BYTES

    def _advance(self) -> bool:
        """Count one entry, or open the next directory; False when there is nothing left."""
        if self._open is None:
            if not self._waiting:
                return False
            self._open_next(self._waiting.pop())
            return True
        try:
            entry = next(self._open, None)
        except OSError as error:
            self._fail(error, self._root)
            entry = None
        if entry is None:
            self._open.close()
            self._open = None
        elif entry.path not in self._exclude:
            self._count(entry)
        return True

    def _open_next(self, path: str) -> None:
        try:
            self._open = os.scandir(path)
        except OSError as error:
            self._fail(error, path)

    def _count(self, entry: os.DirEntry[str]) -> None:
        self._entries += 1
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            self._fail(error, entry.path)
            return
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory and status.st_dev != self._device:
            return
        if not is_directory and status.st_nlink > 1:
            if status.st_ino in self._linked:
                return
            self._linked.add(status.st_ino)
        self._size_bytes += status.st_blocks * _BLOCK_BYTES
        if is_directory:
            self._waiting.append(entry.path)
        elif stat.S_ISREG(status.st_mode) and self._is_work(entry.path):
            self._note_work(entry.path, status)

    def _is_work(self, path: str) -> bool:
        return path.startswith(f"{self.watched}/") and path not in self.own

    def _note_work(self, path: str, status: os.stat_result) -> None:
        self._newest_ns = max(self._newest_ns, status.st_mtime_ns)
        # A second of room: the file system's clock is coarser than ours.
        if status.st_mtime < self._former_begun_at - 1.0:
            return
        if self._largest is None or status.st_size > self._largest.size_bytes:
            self._largest = LargestFile(path, status.st_ino, status.st_size)

    def _fail(self, error: OSError, path: str) -> None:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return  # it vanished, or became something else
        self._failures += 1
        if len(self._errors) < _ERRORS_KEPT:
            self._errors.append(f"cannot measure {path[:200]}: {error.strerror}")

    def _complete(self) -> None:
        self.result = WalkResult(
            size_bytes=self._size_bytes,
            entries=self._entries,
            completed_at=time.time(),
            failures=self._failures,
            errors=tuple(self._errors),
            newest_change_at=self._newest_ns / 1e9 if self._newest_ns else None,
            largest=self._largest,
        )
        self._start()
