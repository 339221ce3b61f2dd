"""Output files that a payload named: taken only from inside the work directory, and once.

A payload is foreign, so a path of its is a claim. It is checked when it is reported (cheaply,
thousands per second) and again, through the open file, when it is packed.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from espilot.errors import LocalError, OutputError
from espilot.model import Output

_KNOWN_DIRECTORIES = 4096
"""A payload that invents directories must not fill our memory."""
_MOMENT_S = 0.05
"""How long a directory counts as the one that was looked at."""
_SHOWN_CHARS = 200
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of an open that say nothing about the file."""


TOO_LARGE, MISSING, EMPTY, UNUSABLE = 1124, 1165, 1191, 1303
"""Pilot error codes of outputs that cannot be taken."""


class OutputInspector:
    """Checks outputs below `root` that are not in a `private` directory (state, storage).

    A link in the way to `root`, or inside it to another place inside it, is resolved; the output
    carries the resolved path, in which no component is a link.
    """

    __slots__ = ("_directories", "_limit_bytes", "_private", "_root")

    def __init__(self, root: Path, private: Sequence[Path], limit_bytes: int) -> None:
        self._root = os.path.realpath(root)
        self._private = tuple(os.path.realpath(path) for path in private)
        self._limit_bytes = limit_bytes
        self._directories: dict[str, tuple[float, str]] = {}

    def inspect(self, path: str) -> Output:
        """Describe the file as it is now; OutputError with a one-line reason if it is no output."""
        parent, slash, name = path.rpartition("/")
        if not slash or path[0] != "/" or "\0" in path or "\n" in path:
            raise OutputError(f"output {shown(path)}: the path is not absolute, or not one line")
        if name in ("", ".", ".."):
            raise OutputError(f"output {shown(path)}: names a directory, not a file")
        real_path = f"{self._verified_directory(parent, path)}/{name}"
        try:
            status = os.lstat(real_path)
        except (OSError, ValueError) as error:
            code = MISSING if isinstance(error, FileNotFoundError) else UNUSABLE
            raise OutputError(f"output {shown(path)}: {_reason(error)}", code) from error
        mode, size_bytes = status.st_mode, status.st_size
        if not stat.S_ISREG(mode) or not 0 < size_bytes <= self._limit_bytes:
            defect, code = self._defect(mode, size_bytes)
            raise OutputError(f"output {shown(path)}: {defect}", code)
        return Output(real_path, status.st_dev, status.st_ino, size_bytes, status.st_mtime_ns)

    def open_checked(self, output: Output) -> int:
        """Open the very file that was reported and return its descriptor, which the caller closes.

        OutputError if it is missing, was changed after the report, or lies elsewhere.
        """
        path = output.path
        self._require_inside(path, path)
        try:
            # Not blocking: what was a file at its report may be a fifo by now.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _OURS:
                raise LocalError(f"cannot open output {shown(path)}: {error.strerror}") from error
            raise OutputError(f"output {shown(path)}: {_reason(error)}") from error
        try:
            self._require_unchanged(fd, output)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _verified_directory(self, parent: str, path: str) -> str:
        """Return the real directory behind `parent`; what was found holds for a moment.

        Looking at a directory in which many clients make files costs more than all else here.
        A directory that is replaced within that moment harms who did it alone: when the output is
        packed, the open file itself tells where it is.
        """
        known = self._directories.get(parent)
        now = time.monotonic()
        if known is not None and now - known[0] < _MOMENT_S:
            return known[1]
        try:
            real = os.path.realpath(parent or "/", strict=True)
        except (OSError, ValueError) as error:
            raise OutputError(f"output {shown(path)}: {_reason(error)}") from error
        self._require_inside(f"{real}/", path)
        if len(self._directories) >= _KNOWN_DIRECTORIES:
            self._directories.clear()
        self._directories[parent] = (now, real)
        return real

    def _require_inside(self, real_path: str, path: str) -> None:
        """Require that a path without links lies below the root and in no private directory."""
        if not _is_below(real_path, self._root):
            raise OutputError(
                f"output {shown(path)}: outside the work directory {shown(self._root)}"
            )
        for private in self._private:
            if _is_below(real_path, private):
                raise OutputError(f"output {shown(path)}: inside the private {shown(private)}")

    def _defect(self, mode: int, size_bytes: int) -> tuple[str, int]:
        """Say what is wrong with a file of this mode and size, and its pilot error code."""
        kinds = ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISDIR, "a directory"))
        for test, kind in kinds:
            if test(mode):
                return f"is {kind}, not a regular file", UNUSABLE
        if not stat.S_ISREG(mode):
            return "is a device, fifo or socket, not a regular file", UNUSABLE
        if size_bytes == 0:
            return "is empty", EMPTY
        text = f"has {size_bytes} bytes, over the limit of {self._limit_bytes} bytes"
        return text, TOO_LARGE

    def _require_unchanged(self, fd: int, output: Output) -> None:
        """Require that the open file is the recorded one, and was reached without any link."""
        status = os.fstat(fd)
        found = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        recorded = (output.device, output.inode, output.size_bytes, output.mtime_ns)
        if found != recorded or not stat.S_ISREG(status.st_mode):
            raise OutputError(f"output {shown(output.path)}: changed after it was reported")
        # The kernel tells where the open file really is: another path means that a directory on
        # the way was replaced by a link between the report and now.
        if os.readlink(f"/proc/self/fd/{fd}") != output.path:
            raise OutputError(f"output {shown(output.path)}: moved after it was reported")


def open_checked(output: Output, root: Path, private: Sequence[Path]) -> int:
    """Open the very file that was reported; `OutputInspector.open_checked` is cheaper."""
    return OutputInspector(root, private, output.size_bytes).open_checked(output)


def remove(output: Output) -> bool:
    """Unlink the output if it is still the same file, and tell whether it was.

    A missing or replaced file is no error and is left alone; LocalError if it cannot be removed.
    """
    parent, _, name = output.path.rpartition("/")
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        parent_fd = os.open(parent or "/", flags)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise LocalError(f"cannot remove {shown(output.path)}: {error.strerror}") from error
    try:
        return _unlink_same(parent_fd, name, output)
    finally:
        os.close(parent_fd)


def shown(path: str) -> str:
    """Write a path so that it is safe in a log: one line, printable, bounded."""
    text = ascii(path)[1:-1]
    return text if len(text) <= _SHOWN_CHARS else f"...{text[-_SHOWN_CHARS:]}"


def _unlink_same(parent_fd: int, name: str, output: Output) -> bool:
    """Unlink `name` in the open directory if it has the recorded device and inode."""
    try:
        status = os.lstat(name, dir_fd=parent_fd)
        if (status.st_dev, status.st_ino) != (output.device, output.inode):
            return False
        os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LocalError(f"cannot remove {shown(output.path)}: {error.strerror}") from error
    return True


def _is_below(path: str, directory: str) -> bool:
    """Tell whether a real path lies below a real directory; compares whole components."""
    return path.startswith(directory if directory.endswith("/") else f"{directory}/")


def _reason(error: OSError | ValueError) -> str:
    """Say in a few words why a path could not be used."""
    if not isinstance(error, OSError):
        return "the path is no valid file name"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "missing"
    if error.errno == errno.ELOOP:
        return "is a symbolic link, not a regular file"
    return (error.strerror or "cannot be read").lower()
