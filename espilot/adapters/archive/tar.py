"""A tar written by hand in one pass: each byte of an output is read once and summed once.

It goes past the page cache, but for its end, which is no multiple of a block.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass

from isal.isal_zlib import adler32, crc32

from espilot.direct_io import aligned_buffer, go_past_cache, go_through_cache, write_some
from espilot.errors import OutputError
from espilot.model import Output

BLOCK_BYTES = 512
BUFFER_BYTES = 4 * 2**20
_END = bytes(2 * BLOCK_BYTES)
_ADLER_BASE = 65521
_LARGEST_TIME_S = 8**11 - 1
_LARGEST_SIZE_BYTES = 8**11 - 1


@dataclass(frozen=True, slots=True)
class PackedFile:
    """One file in an archive."""

    name: str
    size_bytes: int
    adler32: str


class TarWriter:
    """Writes a tar through one buffer; keeps the checksums of what it wrote, can step back."""

    __slots__ = ("_adler", "_crc", "_fd", "_fill", "_flushed", "_headers", "_view")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._view = aligned_buffer(BUFFER_BYTES)
        self._fill = 0
        self._flushed = 0
        go_past_cache(fd)
        self._adler = 1
        self._crc: int | None = 0
        self._headers = Headers()

    def mark(self) -> tuple[int, int]:
        """Return a place to step back to."""
        return self._flushed + self._fill, self._adler

    def step_back(self, mark: tuple[int, int]) -> None:
        """Forget everything written since `mark`; OSError if the file cannot be cut."""
        position, self._adler = mark
        if position >= self._flushed:
            self._fill = position - self._flushed
            return
        # What follows begins anywhere.
        go_through_cache(self._fd)
        os.ftruncate(self._fd, position)
        os.lseek(self._fd, position, os.SEEK_SET)
        self._flushed, self._fill = position, 0
        # Of what was written so far it is not known; who wants it reads the file.
        self._crc = None

    def add(self, name: str, output: Output, source_fd: int) -> PackedFile:
        """Append one file from its start; OutputError if it is not the recorded length."""
        size_bytes = output.size_bytes
        self._put(self._headers.make(name, size_bytes, output.mtime_ns // 10**9))
        adler = self._copy(source_fd, output)
        self._adler = combine_adler32(self._adler, adler, size_bytes)
        self._put(bytes(-size_bytes % BLOCK_BYTES))
        return PackedFile(name, size_bytes, f"{adler:08x}")

    def finish(self) -> tuple[int, str, str]:
        """End the tar, sync it to disk, and return its size, adler32 and CRC32 (maybe "")."""
        self._put(_END)
        self._flush()
        os.fsync(self._fd)
        crc = "" if self._crc is None else f"{self._crc:08x}"
        return self._flushed, f"{self._adler:08x}", crc

    def _copy(self, source_fd: int, output: Output) -> int:
        """Copy the recorded number of bytes and return their adler32."""
        adler = 1
        left = output.size_bytes
        while left:
            if self._fill == BUFFER_BYTES:
                self._flush()
            room = self._view[self._fill : self._fill + min(left, BUFFER_BYTES - self._fill)]
            count = _read(source_fd, room, output)
            adler = adler32(room[:count], adler)
            self._fill += count
            left -= count
        return adler

    def _put(self, data: bytes) -> None:
        """Append bytes of our own: headers, padding, the end."""
        self._adler = adler32(data, self._adler)
        while data:
            if self._fill == BUFFER_BYTES:
                self._flush()
            piece = data[: BUFFER_BYTES - self._fill]
            self._view[self._fill : self._fill + len(piece)] = piece
            self._fill += len(piece)
            data = data[len(piece) :]

    def _flush(self) -> None:
        """Write the buffer out; a short write is continued, so a full disk raises OSError."""
        if self._fill < BUFFER_BYTES:
            go_through_cache(self._fd)
        if self._crc is not None:
            self._crc = crc32(self._view[: self._fill], self._crc)
        done = 0
        while done < self._fill:
            done += write_some(self._fd, self._view[done : self._fill])
        self._flushed += self._fill
        self._fill = 0


class Headers:
    """Makes member headers; ordinary ones by filling in a ready block, which is far quicker."""

    __slots__ = ("_ready", "_ready_sum")

    def __init__(self) -> None:
        self._ready = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
        blank = self._ready[:148] + b" " * 8 + self._ready[156:]
        # Without the fields that are filled in: name, size, time.
        self._ready_sum = sum(blank) - sum(blank[124:148])

    def make(self, name: str, size_bytes: int, mtime_s: int) -> bytes:
        """Return the header of a file: USTAR, or PAX where USTAR cannot say it."""
        time_s = min(max(mtime_s, 0), _LARGEST_TIME_S)
        if not name.isascii() or len(name) > 100 or size_bytes > _LARGEST_SIZE_BYTES:
            return self._make_pax(name, size_bytes, time_s)
        raw_name = name.encode()
        fields = b"%011o\0%011o\0" % (size_bytes, time_s)
        total = self._ready_sum + sum(raw_name) + sum(fields)
        ready = self._ready
        start = raw_name.ljust(100, b"\0") + ready[100:124]
        return b"%b%b%06o\0 %b" % (start, fields, total, ready[156:])

    def _make_pax(self, name: str, size_bytes: int, mtime_s: int) -> bytes:
        """Let tarfile write the longer header."""
        info = tarfile.TarInfo(name)
        info.size = size_bytes
        info.mtime = mtime_s
        return info.tobuf(tarfile.PAX_FORMAT)


def combine_adler32(first: int, second: int, second_bytes: int) -> int:
    """Return the adler32 of two pieces in a row from those of the pieces, without their bytes."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + second_bytes * ((first & 0xFFFF) - 1)
    return (high % _ADLER_BASE) << 16 | low % _ADLER_BASE


def checksum(fd: int) -> tuple[int, str]:
    """Read to the end; return the number of bytes and their adler32."""
    view = memoryview(bytearray(BUFFER_BYTES))
    size_bytes, adler = 0, 1
    while count := os.readv(fd, [view]):
        adler = adler32(view[:count], adler)
        size_bytes += count
    return size_bytes, f"{adler:08x}"


def _read(fd: int, room: memoryview, output: Output) -> int:
    """Read at least one byte into `room`; an unreadable or shorter file is OutputError."""
    try:
        count = os.readv(fd, [room])
    except OSError as error:
        # Not ours: an OSError of the writer means the archive, one of the reader this output.
        raise OutputError(f"output {output.path!a}: {error.strerror}") from error
    if count == 0:
        raise OutputError(f"output {output.path!a}: changed while it was packed")
    return count
