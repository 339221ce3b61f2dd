"""The log archive of a job: what a person wants to see when it went wrong, as one tar.gz."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from espilot.errors import LocalError

FILE_BYTES = 2 * 2**30
"""Of a longer file only the end is packed."""
_MOST_FILES = 10_000
_NOT_LOGS = (".py", ".pyc", ".tar", ".a", ".so")


def pack_logs(
    target: Path,
    top: str,
    directories: Collection[Path],
    *,
    leave_out: Collection[str] = (),
    files: Collection[Path] = (),
) -> None:
    """Pack `files`, and the logs in the directories, below a directory `top` in `target`.

    Left out are names in `leave_out` (inputs and outputs), ROOT files, programs, cores and links.
    What grows or goes away meanwhile is packed as far as it is there. LocalError: this disk.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with tarfile.open(temporary, "w:gz", compresslevel=5) as tar:
            for path in files:
                _add(tar, path, f"{top}/{path.name}")
            for directory in directories:
                for path in _walk(directory, lambda name: is_log(name, leave_out)):
                    _add(tar, path, f"{top}/{directory.name}/{path.relative_to(directory)}")
        temporary.replace(target)
    except OSError as error:
        raise LocalError(f"cannot write the log archive {target}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def is_log(name: str, leave_out: Collection[str] = ()) -> bool:
    """Whether a file of this name belongs into a log archive."""
    root_file = ".root" in name or name.startswith("core.") or name == "core"
    return not (name in leave_out or root_file or name.endswith(_NOT_LOGS))


def _walk(directory: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    left = _MOST_FILES
    for parent, _, names in os.walk(directory):
        for name in sorted(names):
            if left and wanted(name):
                left -= 1
                yield Path(parent, name)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Add one regular file; one that cannot be read is passed over."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with open(fd, "rb") as file:  # noqa: PTH123
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return
        file.seek(max(0, status.st_size - FILE_BYTES))
        info = tarfile.TarInfo(name)
        info.size = min(status.st_size, FILE_BYTES)
        info.mtime = int(status.st_mtime)
        tar.addfile(info, _Padded(file))


class _Padded:
    """A file that may become shorter while it is read; what was announced is filled up."""

    def __init__(self, file: object) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """As many bytes as asked for."""
        data: bytes = self._file.read(size)  # type: ignore[attr-defined]
        return data.ljust(size, b"\0") if size > 0 else data
