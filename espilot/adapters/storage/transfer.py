"""The bytes of a transfer: counted, timed, summed up.

Whoever moves bytes tells a `Watch`; it ends what takes too long or goes too slowly, which no
time-out of a socket sees when a byte comes now and then.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from isal.isal_zlib import adler32

from espilot.adapters.storage.endpoint import TransferLimits
from espilot.direct_io import aligned_buffer, go_past_cache, read_some, whole_blocks
from espilot.errors import LocalError, StorageDiffers, StorageFatal, StorageRetryable

READ_BYTES = 2**20
"""Bytes of a file that are read at once."""
PIECE_BYTES = 2**18
"""Bytes that go to or come from a socket at once."""
BREAKS = 5
"""Broken connections in a row without a byte after which a download is given up."""


class Watch:
    """The clock of one transfer; may be told by several threads."""

    def __init__(self, limits: TransferLimits, size_bytes: int, what: str) -> None:
        self._limits = limits
        self._what = what
        self._total_s = limits.total_s(size_bytes)
        self._moved_bytes = 0
        self._started = time.monotonic()
        self._lock = threading.Lock()

    @property
    def remaining_s(self) -> float:
        """Time that is left; negative when it is over."""
        return self._started + self._total_s - time.monotonic()

    def note(self, count: int) -> None:
        """Count bytes; `StorageRetryable` when the time is over or the rate too low."""
        with self._lock:
            self._moved_bytes += count
            moved = self._moved_bytes
        elapsed_s = time.monotonic() - self._started
        if elapsed_s > self._total_s:
            raise StorageRetryable(
                f"{self._what}: not done in {self._total_s:.0f} s, {moved} bytes were moved; "
                "look at the network, or raise the time limits of [transfer]"
            )
        limits = self._limits
        if elapsed_s > limits.slow_after_s and moved < limits.slow_bytes_per_s * elapsed_s:
            raise StorageRetryable(
                f"{self._what}: slow, {moved / elapsed_s:.0f} bytes/s are below the floor of "
                f"{limits.slow_bytes_per_s:.0f}; look at the network or at the load of the storage"
            )


class WatchedBytes:
    """Bytes to send, out of memory and without a copy; may be rewound and sent again."""

    def __init__(self, data: memoryview, watch: Watch) -> None:
        self._data = data
        self._at = 0
        self._watch = watch

    def __len__(self) -> int:
        return len(self._data)

    def tell(self) -> int:
        """How many bytes were read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go on from there, as a file does."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._data)}[whence]
        self._at = min(max(start + offset, 0), len(self._data))
        return self._at

    def read(self, size: int | None = -1, /) -> memoryview:
        """Return the next piece, larger than asked for: few large writes are quicker."""
        room = len(self._data) if size is None or size < 0 else max(size, PIECE_BYTES)
        piece = self._data[self._at : self._at + room]
        self._at += len(piece)
        self._watch.note(len(piece))
        return piece


class WatchedFile:
    """A local file to send; it is read once, past the page cache, and summed up on the way.

    Its last piece comes only if all of it has the checksum: what is wrong never arrives complete. A
    piece holds until the next one is read. `what` begins an error's text.
    """

    def __init__(
        self, file: BinaryIO, watch: Watch, what: str, *, size_bytes: int, adler32: str
    ) -> None:
        self._fd = file.fileno()
        self._watch = watch
        self._what = what
        self._size_bytes, self._adler32 = size_bytes, adler32
        self._room = aligned_buffer(READ_BYTES)
        go_past_cache(self._fd)
        self.seek(0)

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[memoryview]:
        while piece := self.read():
            yield piece

    def hold_back(self) -> None:
        """End here, since nobody takes it; until it begins again."""
        self._held_back = True

    def tell(self) -> int:
        """How many bytes were handed out."""
        return self._read_bytes - len(self._ready)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Begin again, which is the only way to go."""
        if (offset, whence) != (0, os.SEEK_SET):
            raise io.UnsupportedOperation("a file to send is read from its beginning")
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._held_back, self._adler, self._read_bytes = False, 1, 0
        self._ready = self._room[:0]
        return 0

    def read(self, size: int | None = -1, /) -> memoryview:
        """Return the next piece, maybe larger than asked for: few large writes are quicker."""
        if self._held_back:
            return self._room[:0]
        if not self._ready and self._read_bytes < self._size_bytes:
            self._fill()
        piece, self._ready = self._ready[:PIECE_BYTES], self._ready[PIECE_BYTES:]
        self._watch.note(len(piece))
        return piece

    def _fill(self) -> None:
        """Read what comes next."""
        left = self._size_bytes - self._read_bytes
        count = min(left, read_some(self._fd, self._room[: whole_blocks(left)]))
        if not count:
            # The server waits for what was announced.
            raise StorageRetryable("the local file became shorter while it was sent")
        self._ready = self._room[:count]
        self._adler = adler32(self._ready, self._adler)
        self._read_bytes += count
        if count == left:
            found = self._read_bytes, f"{self._adler:08x}"
            require_same(self._what, found, size_bytes=self._size_bytes, adler32=self._adler32,
                         where="are on this disk")  # fmt: skip


@contextmanager
def opened_source(source: Path, name: str, url: str) -> Iterator[BinaryIO]:
    """Open the local file to be sent; one that cannot be read will not get better by a retry."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise StorageFatal(
            f"storage {url}: cannot read the local file for {name}: {error.strerror}"
        ) from error
    with open(fd, "rb", buffering=0) as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StorageFatal(f"storage {url}: the source of {name} is not a file")
        yield file


def require_source_size(file: BinaryIO, size_bytes: int, what: str) -> None:
    """Refuse a local file of another size before a byte is sent."""
    found = os.fstat(file.fileno()).st_size
    if found != size_bytes:
        raise StorageRetryable(
            f"{what}: the local file has {found} bytes instead of {size_bytes}; it is tried again"
        )


def require_same(
    what: str, found: tuple[int, str], *, size_bytes: int, adler32: str, where: str
) -> None:
    """Require that size and adler32 are the expected ones."""
    if found != (size_bytes, adler32.lower()):
        raise StorageDiffers(
            f"{what}: {found[0]} bytes with adler32 {found[1]} {where} instead of {size_bytes} "
            f"bytes with {adler32.lower()}; it is tried again"
        )


class Summing:
    """A sink that only counts bytes and sums them up."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._adler = 1

    @property
    def found(self) -> tuple[int, str]:
        """Size and adler32 so far."""
        return self.size_bytes, f"{self._adler:08x}"

    def add(self, piece: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._adler = adler32(piece, self._adler)
        self.size_bytes += len(piece)


Opened = AbstractContextManager[tuple[int, Iterator[bytes]]]
"""Where the pieces begin, and the pieces."""


def sum_up(opened: Opened, watch: Watch) -> tuple[int, str]:
    """Read what is stored from its first byte; returns its size and adler32."""
    sink = Summing()
    with opened as (_, pieces):
        for piece in pieces:
            watch.note(len(piece))
            sink.add(piece)
    return sink.found


def receive(
    open_from: Callable[[int], Opened],
    target: Path,
    *,
    size_bytes: int,
    adler32: str,
    watch: Watch,
    what: str,
) -> None:
    """Download to `target` under a temporary name, go on after breaks, verify, rename.

    `open_from(offset)` opens the source at this byte, or at the first where it cannot.
    """
    _require_room(target, size_bytes)
    temporary = target.with_name(f".{target.name}.part")
    try:
        with _local(target):
            # Unbuffered: what was not written is known at once.
            with temporary.open("wb", buffering=0) as file:
                found = _receive_into(file, target, open_from, size_bytes, watch)
                require_same(what, found, size_bytes=size_bytes, adler32=adler32, where="came")
                os.fsync(file.fileno())
                _require_all_written(file, size_bytes, target)
            temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _local(target: Path) -> Iterator[None]:
    """Tell an error of this disk as one of this node, never as one of the storage."""
    try:
        yield
    except OSError as error:
        raise LocalError(
            f"cannot write {target}: {error.strerror}; choose another directory or free space"
        ) from error


def _require_all_written(file: FileIO, size_bytes: int, target: Path) -> None:
    """Require that the disk has as many bytes as came."""
    found = os.fstat(file.fileno()).st_size
    if found != size_bytes:
        raise LocalError(
            f"cannot write {target}: {found} bytes are on the disk instead of {size_bytes}; "
            "look at that file system"
        )


def _write(file: FileIO, piece: bytes, target: Path) -> None:
    """Write all of it, or raise `LocalError` through whatever stands around."""
    view = memoryview(piece)
    with _local(target):
        while view:
            view = view[file.write(view) :]


def _receive_into(
    file: FileIO,
    target: Path,
    open_from: Callable[[int], Opened],
    size_bytes: int,
    watch: Watch,
) -> tuple[int, str]:
    """Write the bytes; after a break open again where it was, as long as that helps."""
    sink, breaks, farthest = Summing(), 0, 0
    while True:
        before = sink.size_bytes
        try:
            with open_from(before) as (start, pieces):
                if start != before:
                    sink = Summing()
                    with _local(target):
                        file.seek(0)
                        file.truncate()
                for piece in pieces:
                    watch.note(len(piece))
                    _write(file, piece, target)
                    sink.add(piece)
                    if sink.size_bytes > size_bytes:
                        return sink.found
            if sink.size_bytes == size_bytes:
                return sink.found
        except StorageRetryable:
            # From the beginning again to where it was is no progress.
            breaks = 0 if sink.size_bytes > farthest else breaks + 1
            farthest = max(farthest, sink.size_bytes)
            if breaks >= BREAKS or watch.remaining_s <= 0:
                raise
            continue
        return sink.found


def _require_room(target: Path, size_bytes: int) -> None:
    """Refuse what this disk cannot hold before a byte is moved."""
    try:
        free_bytes = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise LocalError(f"cannot use {target.parent}: {error.strerror}") from error
    if free_bytes < size_bytes:
        raise LocalError(
            f"no room for {target.name} in {target.parent}: {size_bytes} bytes are needed, "
            f"{free_bytes} are free; free space or choose another directory"
        )
