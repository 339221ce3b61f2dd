"""Unpacking of archives that somebody else made: flat, new, regular files, within limits.

An archive is hostile until shown otherwise: a member with a directory in its name, a link, a device
or a second file of the same name condemns all of it, and nothing of it stays.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from espilot.adapters.archive.names import require_member_name
from espilot.errors import InputError, LocalError, OutputError

_CHUNK_BYTES = 2**20
_HEADER_BYTES = 2**20
"""Longest extended header; a longer one would be read into memory."""


@dataclass(slots=True)
class Allowance:
    """What may still be unpacked; each archive takes its part."""

    size_bytes: int
    files: int

    def take(self, archive: str, size_bytes: int) -> None:
        """Count a member in; InputError when it is too much."""
        self.files -= 1
        self.size_bytes -= size_bytes
        if self.files < 0:
            raise InputError(f"archive {archive}: too many files; raise stagein.archive_files")
        if self.size_bytes < 0:
            raise InputError(f"archive {archive}: too large; raise stagein.archive_bytes")


def unpack(path: Path, directory: Path, allowance: Allowance) -> tuple[str, ...]:
    """Unpack a tar into a directory, all of it or nothing; returns the names in order.

    InputError: it is damaged, dangerous, or more than allowed. LocalError: this disk.
    """
    written: list[str] = []
    try:
        with _opened(path) as tar:
            for member in tar:
                name = _safe_name(path.name, member)
                allowance.take(path.name, member.size)
                _write(tar, member, directory / name, written)
        return tuple(written)
    except (tarfile.TarError, EOFError, ValueError) as error:
        _remove(directory, written)
        raise InputError(
            f"archive {path.name}: damaged: {str(error)!a:.200}", corrupt=True
        ) from error
    except InputError:
        _remove(directory, written)
        raise
    except OSError as error:
        _remove(directory, written)
        raise LocalError(
            f"cannot unpack {path.name} into {directory}: {error.strerror}; free some space there"
        ) from error


class _Archive(io.FileIO):
    """The archive as tarfile reads it: no header is longer than it may be."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        if size is None or not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size) or b""


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    with _Archive(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        yield tar
        # tarfile takes anything that is no header for the end.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it has no end")


def _safe_name(archive: str, member: tarfile.TarInfo) -> str:
    """The name of a plain file; InputError for anything else."""
    name = member.name.removeprefix("./")
    shown = f"archive {archive}: member {ascii(member.name)[:80]}"
    if not member.isreg() or member.issparse():
        raise InputError(f"{shown}: not a plain file", corrupt=True)
    try:
        require_member_name(name)
    except OutputError:
        raise InputError(f"{shown}: not a flat file name", corrupt=True) from None
    return name


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, written: list[str]) -> None:
    """Copy one member to a file that was not there before."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(target, flags, 0o644)
    except FileExistsError:
        raise InputError(
            f"archive of {target.name!a:.80}: a file of that name is there already", corrupt=True
        ) from None
    written.append(target.name)
    source = tar.extractfile(member)
    assert source is not None
    with open(fd, "wb") as file:  # noqa: PTH123
        left = member.size
        while left:
            piece = source.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise tarfile.ReadError("it ends in a member")
            file.write(piece)
            left -= len(piece)


def _remove(directory: Path, names: list[str]) -> None:
    for name in names:
        (directory / name).unlink(missing_ok=True)
