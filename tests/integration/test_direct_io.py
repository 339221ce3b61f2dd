"""Bytes that go past the page cache, on file systems that can and cannot do it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from espilot.direct_io import (
    BLOCK_BYTES,
    aligned_buffer,
    go_past_cache,
    go_through_cache,
    read_some,
    write_some,
)


@pytest.fixture(params=["disk", "memory"])
def fd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """An empty file; on older kernels one in memory knows no other way than the cache."""
    if request.param == "disk":
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    else:
        fd = os.open("/dev/shm", os.O_RDWR | os.O_TMPFILE)
    yield fd
    os.close(fd)


def is_past_cache(fd: int) -> bool:
    """What the kernel says."""
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)


def test_buffer() -> None:
    """Large enough, from the beginning of a page."""
    for size in (1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1):
        view = aligned_buffer(size)
        assert size <= len(view) < size + BLOCK_BYTES
        assert isinstance(view.obj, mmap.mmap) and not view.readonly


def test_way_of_a_file(fd: int) -> None:
    """Blocks past the cache, an odd end through it, and everything is read again."""
    view = aligned_buffer(4 * BLOCK_BYTES)
    view[:] = data = os.urandom(len(view))
    assert go_past_cache(fd) == is_past_cache(fd)
    assert write_some(fd, view) == len(view)
    go_through_cache(fd)
    assert not is_past_cache(fd)
    assert write_some(fd, view[:100]) == 100
    go_past_cache(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    back = aligned_buffer(8 * BLOCK_BYTES)
    count = 0
    while more := read_some(fd, back[count:]):
        count += more
    assert back[:count] == data + data[:100]


def test_other_bounds(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that refuses our multiples is asked again, the ordinary way; once."""
    if not go_past_cache(fd):
        pytest.skip("this file system cannot do without the page cache")
    write, readv = os.write, os.readv

    def refuse() -> None:
        if is_past_cache(fd):
            raise OSError(errno.EINVAL, "not a multiple")

    monkeypatch.setattr(os, "write", lambda *args: (refuse(), write(*args))[1])
    monkeypatch.setattr(os, "readv", lambda *args: (refuse(), readv(*args))[1])
    view = aligned_buffer(BLOCK_BYTES)
    view[:3] = b"abc"
    assert write_some(fd, view[:3]) == 3 and not is_past_cache(fd)
    go_past_cache(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    assert read_some(fd, view[3:]) == 3 and not is_past_cache(fd)
    assert view[:6] == b"abcabc"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EINVAL])
def test_true_errors_remain(fd: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is no reason to ask again, and who goes through the cache has no other way."""
    if number == errno.ENOSPC:
        go_past_cache(fd)
    asked = []

    def refuse(*args: object) -> int:
        asked.append(args)
        raise OSError(number, "no")

    monkeypatch.setattr(os, "write", refuse)
    monkeypatch.setattr(os, "readv", refuse)
    for action in (write_some, read_some):
        with pytest.raises(OSError, match="no"):
            action(fd, aligned_buffer(1))
    assert len(asked) == 2
