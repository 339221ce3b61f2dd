"""Reading and writing past the page cache, for bytes that nobody reads a second time soon.

An archive is written once, read once and deleted. In the page cache it would push out what the
payload reads again and again, and finding room for it there costs more than all else that is done
with its bytes. Where a file system cannot do without the cache, nothing else changes.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from errno import EINVAL

BLOCK_BYTES = 4096
"""Memory, position and length of what goes past the cache are multiples of it."""


def whole_blocks(size_bytes: int) -> int:
    """So many bytes, rounded up. To ask for more than a file has costs the time of clearing it."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def aligned_buffer(size_bytes: int) -> memoryview:
    """Memory for at least so many bytes that begins at a page; freed with its last view."""
    return memoryview(mmap.mmap(-1, whole_blocks(size_bytes)))


def go_past_cache(fd: int) -> bool:
    """Have an open file read and written without the page cache; False where that cannot be."""
    return _set_flags(fd, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)


def go_through_cache(fd: int) -> None:
    """The ordinary way again, which takes any length and position."""
    _set_flags(fd, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)


def write_some(fd: int, data: memoryview) -> int:
    """Write a part of the data; the number of bytes, OSError as it comes."""
    try:
        return os.write(fd, data)
    except OSError as error:
        _require_other_bounds(fd, error)
        return os.write(fd, data)


def read_some(fd: int, room: memoryview) -> int:
    """Read into a part of the room; 0 at the end of the file, OSError as it comes."""
    try:
        return os.readv(fd, [room])
    except OSError as error:
        _require_other_bounds(fd, error)
        return os.readv(fd, [room])


def _require_other_bounds(fd: int, error: OSError) -> None:
    """Take the ordinary way where ours are not this file system's multiples; else raise."""
    if error.errno != EINVAL or not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
        raise error
    go_through_cache(fd)


def _set_flags(fd: int, flags: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    except OSError:
        return False
    return True
