"""A directory as storage element: local disk, or a shared file system of the site."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from isal.isal_zlib import adler32

from espilot.adapters.storage.endpoint import TransferLimits, require_name
from espilot.adapters.storage.transfer import Watch, opened_source, receive, require_same
from espilot.errors import StorageDiffers, StorageError, StorageFatal, StorageRetryable

_CHUNK_BYTES = 4 * 2**20
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

    __slots__ = ("_directory", "_file_mode", "_limits", "_storage_id")

    def __init__(
        self,
        directory: Path,
        storage_id: int,
        *,
        group_readable: bool = False,
        limits: TransferLimits | None = None,
    ) -> None:
        self._directory = directory
        self._storage_id = storage_id
        self._file_mode = 0o640 if group_readable else None
        self._limits = limits or TransferLimits()

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

    def put(
        self, source: Path, name: str, *, size_bytes: int, adler32: str, crc32: str = ""
    ) -> None:
        """Copy `source` to `name`, durable and verified; nothing partial ever has that name.

        The temporary name follows from `name`: what a killed upload left behind is overwritten by
        the next try of the same archive.
        """
        require_name(name, self.url)
        with opened_source(source, name, self.url) as file, self._translated("write", name):
            self._make_directory()
            temporary = self._directory / f".{name}.tmp"
            try:
                found = self._write(file.fileno(), temporary)
                what = f"storage {self.url}: {temporary.name}"
                require_same(what, found, size_bytes=size_bytes, adler32=adler32, where="is there")
                temporary.replace(self._directory / name)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_directory(self._directory)
            self._require_there(name, size_bytes)

    def _require_there(self, name: str, size_bytes: int) -> None:
        """Require the file under its own name: a file system may say yes and do nothing."""
        found_bytes = (self._directory / name).stat().st_size
        if found_bytes != size_bytes:
            raise StorageRetryable(
                f"storage {self.url}: {name} has {found_bytes} bytes after its upload instead of "
                f"{size_bytes}; {_OTHER}"
            )

    def verify(self, name: str, *, size_bytes: int, adler32: str) -> None:
        """Read `name` and compare."""
        require_name(name, self.url)
        with self._translated("read", name), self._open_stored(name) as file:
            found = _checksum(file.fileno())
        what = f"storage {self.url}: {name}"
        require_same(what, found, size_bytes=size_bytes, adler32=adler32, where="is there")

    def get(self, name: str, target: Path, *, size_bytes: int, adler32: str) -> None:
        """Copy `name` to `target`, verified; nothing partial ever has that path."""
        require_name(name, self.url)
        what = f"storage {self.url}: {name}"
        receive(
            lambda offset: self._opened(name, offset),
            target,
            size_bytes=size_bytes,
            adler32=adler32,
            watch=Watch(self._limits, size_bytes, what),
            what=what,
        )

    def url_of(self, name: str) -> str:
        """Give the file's URL."""
        require_name(name, self.url)
        return f"{self.url}/{quote(name)}"

    def close(self) -> None:
        """Nothing is kept open."""

    def delete(self, name: str) -> None:
        """Remove `name`; a missing one, and a missing directory, is no error."""
        require_name(name, self.url)
        with self._translated("delete", name):
            try:
                (self._directory / name).unlink(missing_ok=True)
                _sync_directory(self._directory)
            except FileNotFoundError:
                return

    def _make_directory(self) -> None:
        """Make the directory, and let the group in if it shall read."""
        if not self._directory.is_dir():
            self._directory.mkdir(parents=True, exist_ok=True)
            if self._file_mode is not None:
                self._directory.chmod(0o750)

    def _write(self, source_fd: int, path: Path) -> tuple[int, str]:
        """Copy to `path`, sync, read it again; size and adler32 of what is there."""
        path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o644)
        try:
            if self._file_mode is not None:
                os.fchmod(fd, self._file_mode)
            _copy(source_fd, fd)
            os.fsync(fd)
            # Without this the reading below would only see our own page cache.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return _checksum(fd)
        finally:
            os.close(fd)

    @contextmanager
    def _opened(self, name: str, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Open for reading from `offset` on."""
        with self._translated("read", name), self._open_stored(name) as file:
            file.seek(offset)
            yield offset, iter(lambda: file.read(_CHUNK_BYTES), b"")

    def _open_stored(self, name: str) -> BinaryIO:
        """Open a file, and nothing else: a pipe would be waited on for ever."""
        fd = os.open(self._directory / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise StorageFatal(
                f"storage {self.url}: cannot read {name}: it is no file; remove what has that name"
            )
        os.set_blocking(fd, True)
        return open(fd, "rb")  # noqa: PTH123

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
        if code == errno.ENOENT and action == "read":
            return StorageDiffers(f"{text}; {_OTHER}")
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
        adler = adler32(view[:count], adler)
        size_bytes += count
    return size_bytes, f"{adler:08x}"


def _sync_directory(directory: Path) -> None:
    """Make a rename or unlink in `directory` last."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
