"""Sizes on disk with real files."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from espilot.adapters.disk import (
    SizeWalker,
    WalkResult,
    deleted_bytes,
    file_size,
    free_bytes,
    remove_path,
)
from espilot.errors import LocalError


@pytest.fixture(autouse=True)
def _no_open_directory() -> Iterator[None]:
    """No test leaves a file descriptor behind."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def walk(root: Path, exclude: tuple[Path, ...] = (), budget_entries: int = 7) -> WalkResult:
    walker = SizeWalker(root, exclude)
    steps = 0
    while not walker.step(budget_entries):
        steps += 1
        assert steps < 10_000
    assert walker.result is not None
    return walker.result


def blocks(*paths: Path) -> int:
    return sum(os.lstat(path).st_blocks * 512 for path in paths)


def test_files_and_directories(tmp_path: Path) -> None:
    """A tree's size is what its files and directories take, found in many small steps."""
    paths = [tmp_path]
    for number in range(10):
        below = tmp_path / f"d{number}" / "e"
        below.mkdir(parents=True)
        paths += [below, below.parent]
        for size in (0, 1, 5000, 100_000):
            path = below / f"f{size}"
            path.write_bytes(b"x" * size)
            paths.append(path)
    before = time.time()
    result = walk(tmp_path)
    assert result.size_bytes == blocks(*paths)
    assert result.entries == len(paths) - 1
    assert before <= result.completed_at <= time.time()
    assert (result.failures, result.errors) == (0, ())


def test_sparse_hard_linked_and_symbolic(tmp_path: Path) -> None:
    """A sparse file counts little, a hard-linked one once, a link's target not at all."""
    root = tmp_path / "root"
    root.mkdir()
    outside = tmp_path / "outside"
    outside.write_bytes(b"x" * 10**6)
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to(root)
    with (root / "sparse").open("wb") as stream:
        stream.truncate(10**9)
    (root / "one").write_bytes(b"x" * 10**6)
    os.link(root / "one", root / "two")
    assert 10**6 <= walk(root).size_bytes < 10**6 + 40_000


def test_exclude(tmp_path: Path) -> None:
    """What is excluded does not count, nor anything below it."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "big").write_bytes(b"x" * 10**6)
    (tmp_path / "state2").write_bytes(b"x" * 10**5)
    assert 10**5 <= walk(tmp_path, (tmp_path / "state",)).size_bytes < 3 * 10**5


def test_vanishing_files(tmp_path: Path) -> None:
    """Files and directories that vanish during a walk are tolerated."""
    for number in range(50):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}" / "f").touch()
    walker = SizeWalker(tmp_path)
    assert not walker.step(60)
    for number in range(50):
        (tmp_path / f"d{number}" / "f").unlink()
        (tmp_path / f"d{number}").rmdir()
    while not walker.step(10):
        pass
    assert walker.result is not None
    assert walker.result.errors == ()


def test_growth_is_seen_by_the_next_walk(tmp_path: Path) -> None:
    """After a complete walk the next step begins a new one; the old result stays until then."""
    walker = SizeWalker(tmp_path)
    assert walker.step()
    first = walker.result
    (tmp_path / "new").write_bytes(b"x" * 10**6)
    assert walker.result is first
    assert walker.step()
    assert walker.result is not None
    assert first is not None
    assert walker.result.size_bytes >= first.size_bytes + 10**6


def test_unreadable_is_reported(tmp_path: Path) -> None:
    """What cannot be measured is reported by name: here a path too long to be opened."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    result = walk(tmp_path)
    assert result.failures > 0
    assert "File name too long" in result.errors[0]
    assert result.errors[0].startswith(f"cannot measure {tmp_path}")


def test_missing_root(tmp_path: Path) -> None:
    """A root that is not there is an error that names it."""
    with pytest.raises(LocalError, match="absent: No such file"):
        SizeWalker(tmp_path / "absent").step()


def test_time_budget(tmp_path: Path) -> None:
    """A step ends when its time is over, and close gives the walk up without a leak."""
    for number in range(200):
        (tmp_path / f"f{number}").touch()
    walker = SizeWalker(tmp_path)
    assert not walker.step(10**6, budget_s=0.0)
    walker.close()
    walker.close()
    assert walker.step(10**6)


def test_special_files(tmp_path: Path) -> None:
    """Sockets and pipes are counted, not opened."""
    short = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(short / "s"))
            os.mkfifo(short / "p")
            assert walk(short).entries == 2
    finally:
        for path in short.iterdir():
            path.unlink()
        short.rmdir()


def test_deleted_but_open(tmp_path: Path) -> None:
    """A file that is deleted but open still takes its space, however often it is open."""
    path = tmp_path / "f"
    device = os.stat(tmp_path).st_dev
    before = deleted_bytes([os.getpid()], device)
    with path.open("wb") as stream, path.open("rb"):
        stream.write(b"x" * 10**6)
        stream.flush()
        assert deleted_bytes([os.getpid()], device) == before
        path.unlink()
        assert 10**6 <= deleted_bytes([os.getpid(), os.getpid()], device) - before < 2 * 10**6
        assert deleted_bytes([os.getpid()], device + 1) == 0
    assert deleted_bytes([2**22 + 1], device) == 0


def test_open_files_are_looked_at_within_a_budget(tmp_path: Path) -> None:
    """A process with many open files costs no more than the budget."""
    device = os.stat(tmp_path).st_dev
    streams = []
    try:
        for number in range(5):
            path = tmp_path / f"f{number}"
            streams.append(path.open("wb"))
            streams[-1].write(b"x" * 10**5)
            streams[-1].flush()
            path.unlink()
        assert deleted_bytes([os.getpid()], device) >= 5 * 10**5
        assert deleted_bytes([os.getpid()], device, budget_files=0) == 0
    finally:
        for stream in streams:
            stream.close()


class Crowd:
    """A directory with as many entries as one likes, which counts how often it is asked."""

    def __init__(self, entries: int, status: os.stat_result) -> None:
        self.left = entries
        self.asked = 0
        self.path = "/crowd/file"
        self._status = status

    def __iter__(self) -> Crowd:
        return self

    def __next__(self) -> Crowd:
        if not self.left:
            raise StopIteration
        self.left -= 1
        self.asked += 1
        return self

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        assert not follow_symlinks
        return self._status

    def close(self) -> None:
        """Nothing to close."""


def test_lesson_43_a_million_files_stall_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step looks at more entries than its budget, and nothing is kept of them."""
    (tmp_path / "f").write_bytes(b"x" * 5000)
    crowd = Crowd(1_000_000, os.lstat(tmp_path / "f"))
    monkeypatch.setattr(os, "scandir", lambda path: crowd)
    walker = SizeWalker(tmp_path)
    tracemalloc.start()
    try:
        steps = before = 0
        while not walker.step(5000, budget_s=10.0):
            assert crowd.asked - before <= 5000
            before = crowd.asked
            steps += 1
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert steps >= 200
    assert walker.result is not None
    assert walker.result.entries == 1_000_000


def test_largest_and_newest_of_the_payload(tmp_path: Path) -> None:
    """Only regular files of the watched directory count, and of the own ones none."""
    watched = tmp_path / "payload"
    (watched / "below").mkdir(parents=True)
    (tmp_path / "queue").write_bytes(b"x" * 9000)
    (watched / "log").write_bytes(b"x" * 8000)
    (watched / "small").write_bytes(b"x" * 10)
    (watched / "below" / "big").write_bytes(b"x" * 7000)
    for path, second in ((tmp_path / "queue", 9), (watched / "log", 8), (watched / "small", 7)):
        os.utime(path, (4e9 + second, 4e9 + second))
    os.utime(watched / "below", (5e9, 5e9))
    walker = SizeWalker(tmp_path)
    walker.watched = watched
    walker.own = frozenset({str(watched / "log")})
    assert walker.step()
    assert walker.result is not None
    assert walker.result.newest_change_at == 4e9 + 7
    largest = walker.result.largest
    assert largest is not None
    assert (largest.path, largest.size_bytes) == (str(watched / "below" / "big"), 7000)
    os.utime(watched / "below" / "big", (1e9, 1e9))
    assert walker.step()
    assert walker.result.largest is not None
    assert walker.result.largest.path == str(watched / "small"), "the other one stands still"


def test_largest_is_measured_by_length(tmp_path: Path) -> None:
    """A sparse output of 500 GB is as large as what would be shipped (lesson 29)."""
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(500 * 10**9)
    result = walk(tmp_path)
    assert result.size_bytes < 10**6
    assert result.largest is not None
    assert result.largest.size_bytes == 500 * 10**9


def test_free_bytes(tmp_path: Path) -> None:
    """Free space is told, or an error names the path."""
    assert 0 < free_bytes(tmp_path) < 10**18
    with pytest.raises(LocalError, match="absent"):
        free_bytes(tmp_path / "absent")


def test_file_size(tmp_path: Path) -> None:
    """A file's size, None when it is not there, an error when it cannot be told."""
    (tmp_path / "f").write_bytes(b"12345")
    assert file_size(tmp_path / "f") == 5
    assert file_size(tmp_path / "absent") is None
    assert file_size(tmp_path / "f" / "below") is None
    with pytest.raises(LocalError, match="File name too long"):
        file_size(tmp_path / ("x" * 300))


def test_many_directories_need_one_descriptor(tmp_path: Path) -> None:
    """A walk holds one directory open, however many there are."""
    for number in range(100):
        (tmp_path / f"d{number}" / "e").mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 3, hard)
    )
    try:
        assert walk(tmp_path).errors == ()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_remove_path(tmp_path: Path) -> None:
    """Directories, files and links go, a link's target stays, a missing path is no error."""
    full = tmp_path / "full"
    (full / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(full)
    remove_path(tmp_path / "link")
    assert (full / "below").is_dir()
    remove_path(full)
    remove_path(full)
    assert not full.exists()


@pytest.mark.parametrize("path", ["/", "/tmp", "/tmp/", "relative/a/b", "/tmp/../etc"])
def test_remove_path_refuses(path: str) -> None:
    """Nothing near to the root is ever removed."""
    with pytest.raises(LocalError, match="will not remove"):
        remove_path(Path(path))
