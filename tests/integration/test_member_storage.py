"""A directory in which the outputs of an archive lie as files of their own."""

from __future__ import annotations

import io
import tarfile
import zlib
from pathlib import Path

import pytest

from espilot.adapters.storage import open_storage
from espilot.errors import ConfigError, StorageFatal, StorageRetryable
from espilot.ports import Storage

FILES = {"out.1-2-3-4-1": b"first" * 1000, "out.1-2-3-5-1": b"second"}


def write_tar(path: Path, files: dict[str, bytes]) -> tuple[int, str]:
    """A tar of these files; its size and checksum."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = path.read_bytes()
    return len(data), f"{zlib.adler32(data):08x}"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"members:{tmp_path / 'shared'}")


def put(storage: Storage, tmp_path: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """Put an archive; what is in the directory then."""
    source = tmp_path / "a.tar"
    size_bytes, adler32 = write_tar(source, files)
    storage.put(source, source.name, size_bytes=size_bytes, adler32=adler32)
    return {path.name: path.read_bytes() for path in (tmp_path / "shared").iterdir()}


def test_members_lie_there_as_files(storage: Storage, tmp_path: Path) -> None:
    """Each output is a file under its own name, also after a repetition; nothing else is there."""
    assert put(storage, tmp_path, FILES) == FILES
    (tmp_path / "shared" / ".out.1-2-3-4-1.tmp").write_bytes(b"left by a killed upload")
    (tmp_path / "shared" / "out.1-2-3-4-1").unlink()
    assert put(storage, tmp_path, FILES) == FILES
    assert storage.url == f"members:{tmp_path / 'shared'}"


def test_archive_stays_whole_where_a_range_has_two_outputs(
    storage: Storage, tmp_path: Path
) -> None:
    """A range can be told with one file only, so the archive is that file."""
    found = put(storage, tmp_path, {**FILES, "other.1-2-3-4-1": b"x"})
    assert set(found) == {"a.tar"}
    assert found["a.tar"] == (tmp_path / "a.tar").read_bytes()


def test_damaged_archive_is_not_unpacked(storage: Storage, tmp_path: Path) -> None:
    """An archive that is not what it should be leaves no file."""
    source = tmp_path / "a.tar"
    size_bytes, _ = write_tar(source, FILES)
    with pytest.raises(StorageRetryable):
        storage.put(source, "a.tar", size_bytes=size_bytes, adler32="00000001")
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize("name", ["../out.1-2-3-4-1", "/tmp/x.1", ".hidden.1"])
def test_names_that_leave_the_directory(storage: Storage, tmp_path: Path, name: str) -> None:
    """A member is written inside the directory, or nothing is."""
    with pytest.raises(StorageFatal, match="name"):
        put(storage, tmp_path, {name: b"x"})
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / "a.tar"]


def test_directory_is_needed() -> None:
    """Without a directory it is refused."""
    with pytest.raises(ConfigError):
        open_storage("members:")
