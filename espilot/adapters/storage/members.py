"""A directory in which the outputs of an archive lie as files of their own, for a program that
ships them itself.

Only where each range of the archive has one output; otherwise the archive lies there as it is,
since a range can be told with one file only. A file has its name when it is complete and on disk:
that program may take whatever has the name of an output.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from isal.isal_zlib import adler32

from espilot.adapters.storage.endpoint import TransferLimits, require_name
from espilot.adapters.storage.posix import PosixStorage
from espilot.adapters.storage.transfer import opened_source, require_same
from espilot.errors import StorageFatal, StorageRetryable

_CHUNK_BYTES = 4 * 2**20
SCHEME = "members"


class MemberStorage(PosixStorage):
    """Unpacks each archive that is put; `verify` and `get` know archives only as they lie there."""

    __slots__ = ()

    def __init__(
        self, directory: Path, storage_id: int, *, limits: TransferLimits | None = None
    ) -> None:
        super().__init__(directory, storage_id, group_readable=True, limits=limits)

    @property
    def url(self) -> str:
        """Where it is, and that it unpacks."""
        return f"{SCHEME}:{self._directory.absolute()}"

    def put(
        self, source: Path, name: str, *, size_bytes: int, adler32: str, crc32: str = ""
    ) -> None:
        """Write each member, durable and verified; again gives the same files."""
        require_name(name, self.url)
        with opened_source(source, name, self.url) as file:
            with self._translated("unpack", name):
                found = _sum_up(file.fileno())
            require_same(
                f"{source}", found, size_bytes=size_bytes, adler32=adler32, where="is there"
            )
            if is_single(_names(source)):
                with self._translated("unpack", name):
                    self._unpack(source)
                return
        super().put(source, name, size_bytes=size_bytes, adler32=adler32)

    def _unpack(self, source: Path) -> None:
        self._make_directory()
        written = []
        with tarfile.open(source, "r:") as tar:
            for member in tar:
                require_name(member.name, self.url)
                content = tar.extractfile(member)
                if content is None:
                    raise StorageFatal(f"storage {self.url}: {member.name} is no file")
                pieces = iter(partial(content.read, _CHUNK_BYTES), b"")
                written.append((member.name, self._write_temporary(member.name, pieces)))
        # All are complete before the first has its name, so a killed upload shows nothing new.
        for name, temporary in written:
            temporary.replace(self._directory / name)
        _sync(self._directory)

    def _write_temporary(self, name: str, pieces: Iterator[bytes]) -> Path:
        """Write a file under its temporary name, on disk, and read it again."""
        path = self._directory / f".{name}.tmp"
        path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o640)
        adler, size_bytes = 1, 0
        with os.fdopen(fd, "wb", buffering=0) as file:
            if self._file_mode is not None:
                os.fchmod(fd, self._file_mode)
            for piece in pieces:
                adler, size_bytes = adler32(piece, adler), size_bytes + len(piece)
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.lseek(fd, 0, os.SEEK_SET)
            found = _sum_up(fd)
        if found != (size_bytes, f"{adler:08x}"):
            raise StorageRetryable(
                f"storage {self.url}: {name} is not what was written; look at that file system"
            )
        return path


def is_single(names: list[str]) -> bool:
    """Whether no two members are of the same range, whose id ends their names."""
    ids = {name.rpartition(".")[2] for name in names}
    return len(ids) == len(names)


def _names(source: Path) -> list[str]:
    with tarfile.open(source, "r:") as tar:
        return tar.getnames()


def _sum_up(fd: int) -> tuple[int, str]:
    adler, size_bytes = 1, 0
    while piece := os.read(fd, _CHUNK_BYTES):
        adler, size_bytes = adler32(piece, adler), size_bytes + len(piece)
    return size_bytes, f"{adler:08x}"


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
