"""Outputs that a hostile payload names."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import eventually

from espilot.adapters.outputs import OutputInspector, open_checked, remove
from espilot.errors import OutputError

LIMIT = 1000


@pytest.fixture
def base() -> Iterator[Path]:
    """A place with a short path (sockets need one), with work, state and foreign directories."""
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="esout"))
    for name in ("work/payload-1/sub", "work/state", "work/storage", "foreign"):
        (path / name).mkdir(parents=True)
    for name in ("work/payload-1/out", "work/state/secret", "foreign/secret", "work/top"):
        (path / name).write_bytes(b"data")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def private(base: Path) -> list[Path]:
    """The directories below the work directory that are not the payload's."""
    return [base / "work" / "state", base / "work" / "storage"]


@pytest.fixture
def inspector(base: Path, private: list[Path]) -> OutputInspector:
    """An inspector of the work directory with a limit of 1000 bytes."""
    return OutputInspector(base / "work", private, LIMIT)


def refusal(inspector: OutputInspector, path: object) -> str:
    with pytest.raises(OutputError) as caught:
        inspector.inspect(str(path))
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def test_good_output(inspector: OutputInspector, base: Path) -> None:
    """A regular file below the work directory is described as it is, first and later times."""
    path = base / "work/payload-1/out"
    status = path.stat()
    for _ in range(2):
        output = inspector.inspect(str(path))
        assert output.path == str(path)
        assert (output.device, output.inode) == (status.st_dev, status.st_ino)
        assert (output.size_bytes, output.mtime_ns) == (4, status.st_mtime_ns)


def test_file_in_the_root_itself(inspector: OutputInspector, base: Path) -> None:
    """The work directory itself is a fine place for an output."""
    assert inspector.inspect(str(base / "work/top")).size_bytes == 4


@pytest.mark.parametrize("path", ["", "out", "./out", "a\0b", "/tmp/a\nb", "/tmp/a\0b", "\ud800/x"])
def test_path_that_is_none(inspector: OutputInspector, path: str) -> None:
    """A path that is relative, or that no one line can hold, is refused."""
    assert "not absolute" in refusal(inspector, path)


@pytest.mark.parametrize("tail", ["", "/", "/.", "/..", "/sub"])
def test_directory(inspector: OutputInspector, base: Path, tail: str) -> None:
    """A directory is no output, however it is written."""
    assert "a directory, not a" in refusal(inspector, f"{base}/work/payload-1{tail}")


@pytest.mark.parametrize(
    "path", ["foreign/secret", "work/../foreign/secret", "work/payload-1/../../foreign/secret"]
)
def test_outside(inspector: OutputInspector, base: Path, path: str) -> None:
    """A file outside the work directory is refused, also when the way there begins inside."""
    assert "outside the work directory" in refusal(inspector, base / path)


def test_sibling_with_the_same_beginning(inspector: OutputInspector, base: Path) -> None:
    """`work-other` is not inside `work`."""
    (base / "work-other").mkdir()
    (base / "work-other/out").write_bytes(b"x")
    assert "outside" in refusal(inspector, base / "work-other/out")


@pytest.mark.parametrize("path", ["work/state/secret", "work/payload-1/../state/secret"])
def test_private(inspector: OutputInspector, base: Path, path: str) -> None:
    """Our own files are no outputs."""
    assert "inside the private" in refusal(inspector, base / path)


def test_private_by_a_link(inspector: OutputInspector, base: Path) -> None:
    """Nor by a link to our own directory."""
    (base / "work/link").symlink_to(base / "work/state")
    assert "inside the private" in refusal(inspector, base / "work/link/secret")


def test_link_out(inspector: OutputInspector, base: Path) -> None:
    """A link that leads outside is refused, as a directory on the way or as the file itself."""
    (base / "work/way").symlink_to(base / "foreign")
    (base / "work/file").symlink_to(base / "foreign/secret")
    assert "outside" in refusal(inspector, base / "work/way/secret")
    assert "symbolic link" in refusal(inspector, base / "work/file")


def test_known_directory_becomes_a_link(inspector: OutputInspector, base: Path) -> None:
    """A directory that was fine and is then replaced by a link is soon looked at again.

    What is reported in the moment before that cannot be opened for packing.
    """
    sub = base / "work/payload-1/sub"
    (sub / "secret").write_bytes(b"x")
    inspector.inspect(str(sub / "secret"))
    sub.rename(base / "work/old")
    sub.symlink_to(base / "foreign")

    def is_refused() -> bool:
        try:
            output = inspector.inspect(str(sub / "secret"))
        except OutputError as error:
            return "outside" in str(error)
        with pytest.raises(OutputError, match="moved"):
            inspector.open_checked(output)
        return False

    eventually(is_refused, "the directory is looked at again")


def test_link_to_the_root(base: Path, private: list[Path]) -> None:
    """A work directory that is reached through a link works, and the output carries no link."""
    (base / "shortcut").symlink_to(base / "work")
    inspector = OutputInspector(base / "shortcut", private, LIMIT)
    output = inspector.inspect(f"{base}/shortcut/payload-1/out")
    assert output.path == f"{base}/work/payload-1/out"
    os.close(inspector.open_checked(output))


def test_what_is_no_file(inspector: OutputInspector, base: Path) -> None:
    """A fifo or a socket is refused at once, without opening it."""
    os.mkfifo(base / "work/fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(base / "work/socket"))
    for name in ("fifo", "socket"):
        assert "device, fifo or socket" in refusal(inspector, base / "work" / name)


def test_missing_empty_large(inspector: OutputInspector, base: Path) -> None:
    """Missing, empty and too large are told apart; too large names number and limit."""
    (base / "work/empty").touch()
    (base / "work/large").write_bytes(bytes(LIMIT + 1))
    (base / "work/exact").write_bytes(bytes(LIMIT))
    assert refusal(inspector, base / "work/gone").endswith("missing")
    assert refusal(inspector, base / "work/no/such/gone").endswith("missing")
    assert refusal(inspector, base / "work/top/below").endswith("missing")
    assert refusal(inspector, base / "work/empty").endswith("is empty")
    text = refusal(inspector, base / "work/large")
    assert text.endswith("has 1001 bytes, over the limit of 1000 bytes")
    assert inspector.inspect(str(base / "work/exact")).size_bytes == LIMIT


def test_circle_and_long_names(inspector: OutputInspector, base: Path) -> None:
    """Circles of links and endless names give a reason, not a hang."""
    (base / "work/circle").symlink_to("circle")
    refusal(inspector, base / "work/circle/out")
    refusal(inspector, base / f"work/{'x' * 300}")
    refusal(inspector, f"{base}/work/{'y/' * 5000}out")
    refusal(inspector, f"{base}/work/\ud800/out")
    refusal(inspector, f"{base}/work/\ud800")


def test_invented_directories_are_bounded(inspector: OutputInspector, base: Path) -> None:
    """A payload that writes the way to its file in ever new forms does not fill our memory."""
    for k in range(5000):
        inspector.inspect(f"{base}/work{'/' * (k % 7 + 1)}{'./' * (k // 7)}top")
    assert len(inspector._directories) <= 4096


# Opening what was reported.


def test_open_gives_the_bytes(inspector: OutputInspector, base: Path, private: list[Path]) -> None:
    """What is opened is what was reported."""
    output = inspector.inspect(str(base / "work/payload-1/out"))
    for fd in (inspector.open_checked(output), open_checked(output, base / "work", private)):
        assert os.read(fd, 100) == b"data"
        os.close(fd)


@pytest.mark.parametrize("how", ["append", "truncate", "touch", "replace", "fifo", "unlink"])
def test_changed_after_report(inspector: OutputInspector, base: Path, how: str) -> None:
    """Every change after the report is found, and opening never hangs."""
    path = base / "work/payload-1/out"
    output = inspector.inspect(str(path))
    if how == "append":
        path.write_bytes(b"data and more")
    elif how == "truncate":
        os.truncate(path, 2)
    elif how == "touch":
        os.utime(path, ns=(0, output.mtime_ns + 1))
    else:
        path.unlink()
    if how == "replace":
        path.write_bytes(b"DATA")
        os.utime(path, ns=(0, output.mtime_ns))
        # The file system may give the same inode again: then it is the same file by all we know.
        output = output._replace(inode=output.inode + 1)
    elif how == "fifo":
        os.mkfifo(path)
    with pytest.raises(OutputError, match="missing" if how == "unlink" else "changed after it was"):
        inspector.open_checked(output)


def test_swapped_for_a_link(inspector: OutputInspector, base: Path) -> None:
    """The same file by way of a link that came later is not opened."""
    sub = base / "work/payload-1/sub"
    (sub / "f").write_bytes(b"x")
    output = inspector.inspect(str(sub / "f"))
    sub.rename(base / "foreign/sub")
    sub.symlink_to(base / "foreign/sub")
    with pytest.raises(OutputError, match="moved"):
        inspector.open_checked(output)


@pytest.mark.parametrize("path", ["foreign/secret", "work/state/secret", "work/../foreign/secret"])
def test_record_that_leads_elsewhere(inspector: OutputInspector, base: Path, path: str) -> None:
    """A record that was not made by an inspection is checked all the same."""
    good = inspector.inspect(str(base / "work/top"))
    status = (base / path).stat()
    forged = good._replace(path=f"{base}/{path}", inode=status.st_ino, mtime_ns=status.st_mtime_ns)
    with pytest.raises(OutputError):
        inspector.open_checked(forged)


def test_no_descriptor_leaks(inspector: OutputInspector, base: Path) -> None:
    """A refused open leaves no descriptor behind."""
    output = inspector.inspect(str(base / "work/top"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OutputError):
            inspector.open_checked(output._replace(size_bytes=99))
    assert len(os.listdir("/proc/self/fd")) == before


# Removing.


def test_remove(inspector: OutputInspector, base: Path) -> None:
    """The same file goes; a second time is no error."""
    output = inspector.inspect(str(base / "work/payload-1/out"))
    assert remove(output) is True
    assert not (base / "work/payload-1/out").exists()
    assert remove(output) is False
    shutil.rmtree(base / "work/payload-1")
    assert remove(output) is False


def test_remove_leaves_another_file(inspector: OutputInspector, base: Path) -> None:
    """Another file under the same name, or behind a later link, stays."""
    sub = base / "work/payload-1/sub"
    (sub / "secret").write_bytes(b"x")
    output = inspector.inspect(str(sub / "secret"))
    keeper = sub / "keeper"
    (sub / "secret").rename(keeper)
    (sub / "secret").write_bytes(b"new")
    assert remove(output) is False
    assert (sub / "secret").read_bytes() == b"new"
    shutil.rmtree(sub)
    sub.symlink_to(base / "foreign")
    assert remove(output) is False
    assert (base / "foreign/secret").exists()
