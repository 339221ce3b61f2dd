"""The cache of inputs: what it gives is verified, what it holds is bounded, and it may fail."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from espilot.adapters.input_cache import InputCache
from espilot.core.retry import Backoff
from espilot.executors.stagein import StageIn
from espilot.logs import open_log
from espilot.wire.jobfiles import JobInput
from espilot.workers.inputs import Sources

DATA = bytes(range(256)) * 100


def adler32_of(data: bytes) -> str:
    return f"{zlib.adler32(data):08x}"


@pytest.fixture
def cache(tmp_path: Path) -> InputCache:
    return InputCache(tmp_path / "cache", 3 * len(DATA))


def keep(cache: InputCache, directory: Path, lfn: str, data: bytes = DATA) -> bool:
    source = directory / "source"
    source.write_bytes(data)
    return cache.keep(lfn, source, size_bytes=len(data), adler32=adler32_of(data))


def take(cache: InputCache, directory: Path, lfn: str, data: bytes = DATA) -> bytes | None:
    target = directory / "target"
    target.unlink(missing_ok=True)
    taken = cache.take(lfn, target, size_bytes=len(data), adler32=adler32_of(data))
    assert taken == target.exists()
    return target.read_bytes() if taken else None


def test_kept_and_taken(cache: InputCache, tmp_path: Path) -> None:
    """What was kept comes back; the same name with other content, or another name, is not there."""
    assert take(cache, tmp_path, "a") is None
    assert keep(cache, tmp_path, "a")
    assert take(cache, tmp_path, "a") == DATA
    assert take(cache, tmp_path, "a", b"other") is None
    assert take(cache, tmp_path, "b") is None


def test_rot_is_found(cache: InputCache, tmp_path: Path) -> None:
    """A file that has changed in the cache is thrown away and not given out."""
    keep(cache, tmp_path, "a")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"\1" + DATA[1:])
    assert take(cache, tmp_path, "a") is None
    assert list((tmp_path / "cache").iterdir()) == []


def test_planted_link_and_fifo(cache: InputCache, tmp_path: Path) -> None:
    """What is no plain file in the cache is not read, and nothing waits for it."""
    keep(cache, tmp_path, "a")
    (file,) = (tmp_path / "cache").iterdir()
    file.unlink()
    file.symlink_to(tmp_path / "source")
    assert take(cache, tmp_path, "a") is None
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    assert take(cache, tmp_path, "a") is None
    file.unlink()
    file.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    assert take(cache, tmp_path, "a") is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_oldest_goes_first(cache: InputCache, tmp_path: Path) -> None:
    """Beyond its bytes the cache forgets what was used least lately; a giant is not kept at all."""
    for age, lfn in enumerate("abc"):
        keep(cache, tmp_path, lfn)
        for path in (tmp_path / "cache").iterdir():
            status = path.stat()
            os.utime(path, (status.st_atime, status.st_mtime - 100 + age))
    assert take(cache, tmp_path, "a") == DATA
    keep(cache, tmp_path, "d")
    kept = [lfn for lfn in "abcd" if take(cache, tmp_path, lfn) is not None]
    assert kept == ["a", "c", "d"]
    assert not keep(cache, tmp_path, "giant", DATA * 4)


def test_cache_that_cannot_be_used(tmp_path: Path) -> None:
    """A cache that is no directory costs nothing but the copy."""
    (tmp_path / "cache").write_text("a file")
    cache = InputCache(tmp_path / "cache", 10**9)
    assert not keep(cache, tmp_path, "a")
    assert take(cache, tmp_path, "a") is None


class Counting:
    """A storage that counts what is fetched from it."""

    url, storage_id = "counting:", 1

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def get(self, name: str, target: Path, *, size_bytes: int, adler32: str) -> None:
        self.fetched.append(name)
        target.write_bytes(DATA)


def test_second_job_fetches_nothing(cache: InputCache, tmp_path: Path) -> None:
    """Inputs of one job are there for the next one, in another directory."""
    storage = Counting()
    wanted = JobInput("in.root", size_bytes=len(DATA), adler32=adler32_of(DATA))
    for number in (1, 2):
        directory = tmp_path / f"job-{number}"
        directory.mkdir()
        stage_in = StageIn(
            Sources({"far": storage}, {}, cache),  # type: ignore[dict-item]
            directory,
            Backoff(0.0, 0.0, attempts=1),
            parallel=1,
            log=open_log("executor", tmp_path / "log"),
            pause=lambda _: True,
        )
        assert stage_in.fetch([wanted]) == []
        assert (directory / "in.root").read_bytes() == DATA
    assert storage.fetched == ["in.root"]
    assert "taken from the cache" in (tmp_path / "log").read_text()


def test_files_of_others_stay(tmp_path: Path) -> None:
    """Where others have files too only the cache's own go, and nothing stands in the way."""
    place = tmp_path / "cache"
    (place / "lost+found").mkdir(parents=True)
    (place / f"{'a' * 16}-5-{'b' * 8}").mkdir()
    names = ["thesis.root", ".profile", "0123-5-00000001", f".{'a' * 16}-5-{'b' * 8}.old"]
    for name in names:
        (place / name).write_bytes(DATA)
    (place / f"{'c' * 16}-5-{'d' * 8}").symlink_to(place / "thesis.root")
    debris = place / f".{'a' * 16}-5-{'b' * 8}.77"
    debris.write_bytes(DATA)
    foreign = {path.name for path in place.iterdir()} - {debris.name}
    for path in place.iterdir():
        os.utime(path, (1, 1), follow_symlinks=False)
    cache = InputCache(place, 2 * len(DATA))
    for lfn in "abc":
        assert keep(cache, tmp_path, lfn)
    left = {path.name for path in place.iterdir()}
    assert foreign < left
    assert debris.name not in left
    assert len(left - foreign) == 2


def test_cache_that_cannot_be_cleaned_up(cache: InputCache, tmp_path: Path) -> None:
    """Where not even a temporary file can be removed the input is just not here."""
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "in.root"
    assert not cache.take("a", target, size_bytes=len(DATA), adler32=adler32_of(DATA))
    assert keep(cache, tmp_path, "a")
    assert not cache.take("a", target, size_bytes=len(DATA), adler32=adler32_of(DATA))
