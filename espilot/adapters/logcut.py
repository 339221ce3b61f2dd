"""Large log files of a payload: how much they take, and how their middle is cut out.

The payload writes with O_APPEND, so a file that is emptied goes on from its beginning. What is kept
lies beside it: `NAME.head`, what came first, and `NAME.tail`, what came last before the cut. Bytes
that come between reading the tail and emptying the file are lost, as the middle is.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from espilot.errors import LocalError

_BLOCK_BYTES = 512
_COPY_BYTES = 1 << 20


def log_bytes(path: Path) -> int:
    """The space that a log takes, however long a hole in it is; 0 when there is none.

    A file system may allocate more than is written, so the length counts where it is less.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise LocalError(f"cannot measure {path}: {error.strerror}") from error
    return min(status.st_size, status.st_blocks * _BLOCK_BYTES)


def cut_log(path: Path, keep_bytes: int) -> int:
    """Empty the log, after its head and tail of `keep_bytes` each are stored beside it.

    Returns how many bytes were thrown away. LocalError when it cannot be done; then the log is as
    it was.
    """
    # The tail of the cut before this one is thrown away too.
    head, tail = path.with_name(f"{path.name}.head"), path.with_name(f"{path.name}.tail")
    former_bytes = log_bytes(tail)
    try:
        # The directory is the payload's: it may have put a link there.
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            kept = 0
            if not head.exists():
                kept += _store(fd, 0, keep_bytes, head)
            kept += _store(fd, max(kept, os.fstat(fd).st_size - keep_bytes), keep_bytes, tail)
            dropped = former_bytes + max(0, os.fstat(fd).st_size - kept)
            os.ftruncate(fd, 0)
            os.write(fd, f"[espilot: {dropped} bytes were cut out before this line]\n".encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise LocalError(f"cannot cut {path}: {error.strerror}") from error
    return dropped


def _store(source_fd: int, start: int, length: int, target: Path) -> int:
    """Copy a part of a file, by temporary name and rename; returns how many bytes."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    copied = 0
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as stream:
            while copied < length:
                chunk = os.pread(source_fd, min(_COPY_BYTES, length - copied), start + copied)
                if not chunk:
                    break
                stream.write(chunk)
                copied += len(chunk)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return copied
