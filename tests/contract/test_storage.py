"""One suite for every kind of storage: the in-memory twin and the real ones."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from espilot.adapters.storage import open_storage, posix
from espilot.adapters.storage.contract import CHECKS, Subject, adler32_of
from espilot.adapters.storage.endpoint import require_name
from espilot.adapters.storage.posix import PosixStorage
from espilot.errors import ConfigError, LocalError, StorageFatal, StorageRetryable
from espilot.ports import Storage

DATA = bytes(range(256)) * 40_000


class MemoryStorage:
    """A storage element in a dict, as the pipeline's tests use it."""

    def __init__(self, storage_id: int) -> None:
        self.files: dict[str, bytes] = {}
        self._storage_id = storage_id

    @property
    def url(self) -> str:
        return "memory:"

    @property
    def storage_id(self) -> int:
        return self._storage_id

    def put(
        self, source: Path, name: str, *, size_bytes: int, adler32: str, crc32: str = ""
    ) -> None:
        self._require_name(name)
        try:
            data = source.read_bytes()
        except OSError as error:
            raise StorageFatal(f"storage memory: cannot read {name}: {error.strerror}") from error
        if (len(data), adler32_of(data)) != (size_bytes, adler32):
            raise StorageRetryable(f"storage memory: {name} differs")
        self.files[name] = data

    def verify(self, name: str, *, size_bytes: int, adler32: str) -> None:
        data = self.files.get(name, b"")
        if (len(data), adler32_of(data)) != (size_bytes, adler32):
            raise StorageRetryable(f"storage memory: {name} differs")

    def get(self, name: str, target: Path, *, size_bytes: int, adler32: str) -> None:
        self.verify(name, size_bytes=size_bytes, adler32=adler32)
        target.write_bytes(self.files[name])

    def delete(self, name: str) -> None:
        self._require_name(name)
        self.files.pop(name, None)

    def url_of(self, name: str) -> str:
        self._require_name(name)
        return f"memory:{name}"

    def close(self) -> None:
        pass

    def _require_name(self, name: str) -> None:
        require_name(name, self.url)


@pytest.fixture(params=["memory", "posix", "posix-group"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """Each kind of storage with id 7, empty."""
    local, directory = tmp_path / "local", tmp_path / "se" / "deep"
    local.mkdir()
    if request.param == "memory":
        memory = MemoryStorage(7)
        return Subject(memory, local, lambda: dict(memory.files))
    storage = PosixStorage(directory, 7, group_readable=request.param == "posix-group")
    return Subject(storage, local, lambda: files_of(directory))


def files_of(directory: Path) -> dict[str, bytes]:
    if not directory.exists():
        return {}
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A local file of 10 MB."""
    path = tmp_path / "local.tar"
    path.write_bytes(DATA)
    return path


def put(storage: Storage, source: Path, name: str = "a b;c.tar") -> None:
    data = source.read_bytes()
    storage.put(source, name, size_bytes=len(data), adler32=adler32_of(data))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Subject], None], subject: Subject) -> None:
    """Each kind of storage fulfils the contract."""
    check(subject)


@pytest.mark.parametrize("check", CHECKS[1:], ids=lambda check: check.__name__)
def test_contract_refuses_a_liar(check: Callable[[Subject], None], tmp_path: Path) -> None:
    """A storage that says yes and does nothing passes no check but that of its name."""
    liar = Subject(Liar(7), tmp_path, lambda: {})
    with pytest.raises((AssertionError, FileNotFoundError)):
        check(liar)


class Liar(MemoryStorage):
    """Says yes to everything."""

    def put(
        self, source: Path, name: str, *, size_bytes: int, adler32: str, crc32: str = ""
    ) -> None:
        pass

    def verify(self, name: str, *, size_bytes: int, adler32: str) -> None:
        pass

    def get(self, name: str, target: Path, *, size_bytes: int, adler32: str) -> None:
        target.write_bytes(b"?")

    def delete(self, name: str) -> None:
        self.files["never deleted"] = b""


# What only a directory can suffer.


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file of this process may grow beyond 1 MiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    yield 2**20
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_write_that_fails_midway(tmp_path: Path, source: Path, small_files: int) -> None:
    """A write that fails in the middle leaves nothing, and the error names storage and file."""
    directory = tmp_path / "se"
    with pytest.raises(StorageFatal, match=r"se: cannot write x\.tar: File too large; raise"):
        put(PosixStorage(directory, 1), source, "x.tar")
    assert list(directory.iterdir()) == []
    assert len(DATA) > small_files


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        (errno.ENOSPC, StorageRetryable, "free space"),
        (errno.EDQUOT, StorageRetryable, "quota"),
        (errno.EIO, StorageRetryable, "tried again"),
        (errno.ETIMEDOUT, StorageRetryable, "tried again"),
        (errno.ESTALE, StorageRetryable, "tried again"),
        (errno.EACCES, StorageFatal, "permission"),
        (errno.EROFS, StorageFatal, "writable"),
    ],
)
def test_errors_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: Path,
    code: int,
    kind: type[Exception],
    remedy: str,
) -> None:
    """Each error of the file system says whether to retry and what to do, and leaves nothing."""

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "sendfile", fail)
    with pytest.raises(kind, match=remedy) as caught:
        put(PosixStorage(tmp_path / "se", 1), source, "x.tar")
    assert os.strerror(code) in str(caught.value)
    assert list((tmp_path / "se").iterdir()) == []


def test_group_readable(tmp_path: Path, source: Path) -> None:
    """By option the group may read the files, whatever the process's mask is; others may not."""
    old = os.umask(0o077)
    try:
        put(PosixStorage(tmp_path / "se", 1, group_readable=True), source, "x.tar")
    finally:
        os.umask(old)
    assert (tmp_path / "se" / "x.tar").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "se").stat().st_mode & 0o777 == 0o750


def test_get_without_room(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that this disk cannot hold is refused before a byte is written."""
    storage = PosixStorage(tmp_path / "se", 1)
    put(storage, source, "x.tar")
    with pytest.raises(LocalError, match="no room"):
        storage.get("x.tar", tmp_path / "y", size_bytes=2**62, adler32="00000001")
    assert not list(tmp_path.glob(".y*"))


def test_directory_is_a_file(tmp_path: Path, source: Path) -> None:
    """A storage that is no directory is a fault that no retry mends."""
    with pytest.raises(StorageFatal, match="name a directory"):
        put(PosixStorage(source, 1), source, "x.tar")
    with pytest.raises(StorageFatal, match="name a directory"):
        put(PosixStorage(source / "below", 1), source, "x.tar")


def test_name_taken_by_a_directory(tmp_path: Path, source: Path) -> None:
    """A directory in the place of the file is not replaced."""
    (tmp_path / "se" / "x.tar").mkdir(parents=True)
    with pytest.raises(StorageFatal, match="remove the directory"):
        put(PosixStorage(tmp_path / "se", 1), source, "x.tar")


def test_debris_of_a_killed_upload_goes(tmp_path: Path, source: Path) -> None:
    """What a killed upload left is replaced by the next try, and a planted link is not followed."""
    directory, victim = tmp_path / "se", tmp_path / "victim"
    directory.mkdir()
    victim.write_bytes(b"precious")
    (directory / ".x.tar.tmp").symlink_to(victim)
    put(PosixStorage(directory, 1), source, "x.tar")
    assert files_of(directory) == {"x.tar": DATA}
    assert victim.read_bytes() == b"precious"


def test_fifo_as_source_does_not_hang(tmp_path: Path) -> None:
    """A source that is no file is refused at once."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StorageFatal, match="not a file"):
        PosixStorage(tmp_path / "se", 1).put(
            tmp_path / "fifo", "x.tar", size_bytes=1, adler32="00000001"
        )


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}", "file://localhost{}"])
def test_open_storage(tmp_path: Path, form: str) -> None:
    """A directory may be given as a path or as any form of file URL."""
    storage = open_storage(form.format(tmp_path), storage_id=3)
    assert (storage.url, storage.storage_id) == (tmp_path.as_uri(), 3)


def test_open_storage_decodes(tmp_path: Path, source: Path) -> None:
    """A blank in a file URL is written as %20; in a path it is a blank."""
    put(open_storage(f"{(tmp_path / 'a b').as_uri()}"), source, "x.tar")
    put(open_storage(f"{tmp_path / 'a b'}"), source, "y.tar")
    assert sorted(files_of(tmp_path / "a b")) == ["x.tar", "y.tar"]


def test_open_storage_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative directory is fixed when the storage is made."""
    monkeypatch.chdir(tmp_path)
    assert open_storage("se").url == (tmp_path / "se").as_uri()


@pytest.mark.parametrize(
    "url",
    [
        "", "a\nb", "file://elsewhere/x", "file:rel", "file:///x?secret=1", "gopher://secret/x",
        "s3://key:secret@h/b", "s3:///x", "s3://B/x", "s3://bucket/x?secret=1", "s3:bucket",
    ],
)  # fmt: skip
def test_open_storage_refuses(url: str) -> None:
    """What is not supported is refused with what is, without repeating secrets."""
    with pytest.raises(ConfigError, match=r"file:///DIRECTORY|write s3://BUCKET") as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def put_in_child(storage: Storage, source: Path, kill_at: int) -> bool:
    """Put `x.tar` in a child that dies at its `kill_at`-th line; tell whether it lived."""
    left = [kill_at]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != posix.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    pid = os.fork()
    if pid == 0:
        try:
            sys.settrace(trace)
            put(storage, source, "x.tar")
            sys.settrace(None)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


@pytest.mark.parametrize("old", [None, b"old"])
def test_killed_at_every_line(tmp_path: Path, old: bytes | None) -> None:
    """Whenever an upload is killed, its name shows the old state or the new, and a retry cleans."""
    directory, source = tmp_path / "se", tmp_path / "local.tar"
    source.write_bytes(b"new content")
    storage, kill_at, lived = PosixStorage(directory, 1), 0, False
    while not lived:
        kill_at += 1
        directory.mkdir(exist_ok=True)
        if old is None:
            storage.delete("x.tar")
        else:
            (directory / "x.tar").write_bytes(old)
        lived = put_in_child(storage, source, kill_at)
        assert files_of(directory).get("x.tar") in (old, b"new content")
        put(storage, source, "x.tar")
        assert files_of(directory) == {"x.tar": b"new content"}
    assert kill_at > 40
