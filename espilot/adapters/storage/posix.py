"""A directory as storage element: local disk, or a shared file system of the site."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espilot.errors import StorageError, StorageFatal, StorageRetryable

_CHUNK_BYTES = 4 * 2**20
_NAME_BYTES = 240
"""Longest name; leaves room for what the temporary name adds."""
_FATAL = {
    errno.EACCES: "give write permission",
    errno.EPERM: "give write permission",
    errno.EROFS: "mount it writable or choose another storage",
    errno.ENOTDIR: "name a directory",
    errno.EEXIST: "name a directory",
    errno.EISDIR: "remove the directory of that name",
    errno.ELOOP: "remove the circle of links",
    errno.ENAMETOOLONG: "choose a shorter directory",
    errno.EFBIG: "raise the limit of the file size or make smaller archives",
}
_RETRYABLE = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there or raise the quota",
}
_OTHER = "it is tried again; look at the file system if it persists"


class PosixStorage:
    """Stores files in one directory, which is made when the first file comes."""

    __slots__ = ("_directory", "_storage_id")

    def __init__(self, directory: Path, storage_id: int) -> None:
        self._directory = directory
        self._storage_id = storage_id

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory.absolute()

    @property
    def url(self) -> str:
        """Where it is."""
        return self._directory.absolute().as_uri()

    @property
    def storage_id(self) -> int:
        """The id of the endpoint, for reports."""
        return self._storage_id

    def put(self, source: Path, name: str, *, size_bytes: int, adler32: str) -> None:
        """Copy `source` to `name`, durable and verified; nothing partial ever has that name.

        The temporary name follows from `name`: what a killed upload left behind is overwritten by
        the next try of the same archive.
        """
        self._require_name(name)
        with self._open_source(source, name) as source_fd, self._translated("write", name):
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary = self._directory / f".{name}.tmp"
            try:
                self._write_verified(source_fd, temporary, (size_bytes, adler32.lower()))
                temporary.replace(self._directory / name)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_directory(self._directory)

    def delete(self, name: str) -> None:
        """Remove `name`; a missing one, and a missing directory, is no error."""
        self._require_name(name)
        with self._translated("delete", name):
            try:
                (self._directory / name).unlink(missing_ok=True)
                _sync_directory(self._directory)
            except FileNotFoundError:
                return

    def _write_verified(self, source_fd: int, path: Path, expected: tuple[int, str]) -> None:
        """Copy to `path`, sync, read it again and compare (size, adler32) with `expected`."""
        path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o644)
        try:
            _copy(source_fd, fd)
            os.fsync(fd)
            # Without this the reading below would only see our own page cache.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            found = _checksum(fd)
        finally:
            os.close(fd)
        if found != expected:
            raise StorageRetryable(
                f"storage {self.url}: {path.name} has {found[0]} bytes with adler32 {found[1]} "
                f"instead of {expected[0]} bytes with {expected[1]}; {_OTHER}"
            )

    def _require_name(self, name: str) -> None:
        """Require a flat, visible, printable name that a file system takes."""
        flat = "/" not in name and not name.startswith(".") and name.isprintable()
        if not name or not flat or not 0 < len(os.fsencode(name)) <= _NAME_BYTES:
            raise StorageFatal(
                f"storage {self.url}: cannot use the name {ascii(name)[:80]}; it must be a flat "
                f"file name of at most {_NAME_BYTES} bytes"
            )

    @contextmanager
    def _open_source(self, source: Path, name: str) -> Iterator[int]:
        """Open the local file; one that cannot be read will not get better by a retry."""
        try:
            fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise StorageFatal(
                f"storage {self.url}: cannot read the local file for {name}: {error.strerror}"
            ) from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StorageFatal(f"storage {self.url}: the source of {name} is not a file")
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _translated(self, action: str, name: str) -> Iterator[None]:
        """Turn an OSError of the body into a StorageError that says what to do."""
        try:
            yield
        except OSError as error:
            raise self._explain(action, name, error) from error

    def _explain(self, action: str, name: str, error: OSError) -> StorageError:
        """Say what failed, where, and the remedy; decide whether a retry may help."""
        code = error.errno or 0
        text = f"storage {self.url}: cannot {action} {name}: {error.strerror}"
        if code in _FATAL:
            return StorageFatal(f"{text}; {_FATAL[code]}")
        return StorageRetryable(f"{text}; {_RETRYABLE.get(code, _OTHER)}")


def _copy(source_fd: int, fd: int) -> None:
    """Copy to the end of the source without passing through our memory."""
    offset = 0
    while count := os.sendfile(fd, source_fd, offset, _CHUNK_BYTES):
        offset += count


def _checksum(fd: int) -> tuple[int, str]:
    """Read the whole file; return its size and adler32."""
    view = memoryview(bytearray(_CHUNK_BYTES))
    size_bytes, adler = 0, 1
    while count := os.preadv(fd, [view], size_bytes):
        adler = zlib.adler32(view[:count], adler)
        size_bytes += count
    return size_bytes, f"{adler:08x}"


def _sync_directory(directory: Path) -> None:
    """Make a rename or unlink in `directory` last."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
