"""Unpacking archives that somebody else made, and packing logs."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from espilot.adapters.archive import Allowance, unpack
from espilot.adapters.archive.logs import is_log, pack_logs
from espilot.adapters.storage.contract import adler32_of
from espilot.errors import InputError
from espilot.view.redaction import redact


def allowance(size_bytes: int = 10**6, files: int = 100) -> Allowance:
    return Allowance(size_bytes, files)


def make_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def plain(name: str, data: bytes = b"data") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "target"
    directory.mkdir()
    return directory


def test_plain_files_come_out(tmp_path: Path, target: Path) -> None:
    """All members come out with their bytes, in order; a leading ./ does not matter."""
    tar = make_tar(tmp_path / "a.tar", plain("b", b"B" * 3_000_000), plain("./a", b"A"))
    assert unpack(tar, target, allowance(10**7)) == ("b", "a")
    assert (target / "b").read_bytes() == b"B" * 3_000_000
    assert (target / "a").read_bytes() == b"A"


@pytest.mark.parametrize(
    "member",
    [
        plain("../escape"),
        plain("/tmp/espilot-escape"),
        plain("sub/file"),
        plain(".."),
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard", tarfile.LNKTYPE, "good"),
        special("fifo", tarfile.FIFOTYPE),
        special("device", tarfile.CHRTYPE),
        special("directory", tarfile.DIRTYPE),
        plain("good"),
    ],
    ids=lambda member: member[0].name,
)
def test_one_bad_member_condemns_all(
    tmp_path: Path, target: Path, member: tuple[tarfile.TarInfo, bytes]
) -> None:
    """Paths that escape, links, devices and repeated names: nothing of such an archive stays."""
    tar = make_tar(tmp_path / "bad.tar", plain("good"), member)
    with pytest.raises(InputError, match="archive") as caught:
        unpack(tar, target, allowance())
    assert caught.value.corrupt
    assert "\n" not in str(caught.value)
    assert list(target.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar", "target"]


def test_files_that_are_there_are_kept(tmp_path: Path, target: Path) -> None:
    """An archive overwrites nothing, not even through a link."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (target / "link").symlink_to(precious)
    with pytest.raises(InputError, match="there already"):
        unpack(make_tar(tmp_path / "a.tar", plain("link")), target, allowance())
    assert precious.read_text() == "precious"
    assert (target / "link").is_symlink()


@pytest.mark.parametrize(
    ("limits", "word"),
    [(allowance(files=2), "archive_files"), (allowance(size_bytes=11), "archive_bytes")],
)
def test_limits(tmp_path: Path, target: Path, limits: Allowance, word: str) -> None:
    """Too many files, or too many bytes, are refused with the setting to raise."""
    tar = make_tar(tmp_path / "a.tar", plain("a"), plain("b"), plain("c"))
    with pytest.raises(InputError, match=word) as caught:
        unpack(tar, target, limits)
    assert not caught.value.corrupt
    assert list(target.iterdir()) == []


def cut_in_a_member(data: bytes) -> bytes:
    return data[:700]


def cut_in_a_header(data: bytes) -> bytes:
    return data[:1024] + data[1024:1100]


def cut_between_members(data: bytes) -> bytes:
    return data[:1024]


def damaged_second_header(data: bytes) -> bytes:
    return data[:1024] + b"x" * 512 + data[1536:]


def damaged_header(data: bytes) -> bytes:
    return b"x" * 512 + data[512:]


def huge_extended_header(data: bytes) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    return info.tobuf(tarfile.GNU_FORMAT) + data


@pytest.mark.parametrize(
    "damage",
    [
        cut_in_a_member,
        cut_in_a_header,
        cut_between_members,
        damaged_header,
        damaged_second_header,
        huge_extended_header,
    ],
)
def test_damaged_archives(tmp_path: Path, target: Path, damage: Callable[[bytes], bytes]) -> None:
    """A damaged archive is said to be, in one line, and leaves nothing."""
    tar = make_tar(tmp_path / "a.tar", plain("a", b"A" * 400), plain("b", b"B" * 400))
    tar.write_bytes(damage(tar.read_bytes()))
    with pytest.raises(InputError, match=r"archive a\.tar: damaged") as caught:
        unpack(tar, target, allowance())
    assert caught.value.corrupt
    assert list(target.iterdir()) == []


def test_sparse_members_are_no_plain_files(tmp_path: Path, target: Path) -> None:
    """A member that would be larger than its archive is refused."""
    info = tarfile.TarInfo("sparse")
    info.pax_headers = {
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(2**40),
        "GNU.sparse.map": "0,4", "GNU.sparse.numblocks": "1",
    }  # fmt: skip
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    with pytest.raises(InputError):
        unpack(tmp_path / "a.tar", target, allowance())
    assert list(target.iterdir()) == []


def test_log_archive(tmp_path: Path) -> None:
    """Logs are in; inputs, outputs, ROOT files, programs, cores and links are not."""
    payload = tmp_path / "payload-1"
    (payload / "sub").mkdir(parents=True)
    for name in ("payload.stdout", "sub/log.Sim", "in.dat", "x.root.1", "run.py", "core.17"):
        (payload / name).write_text(name)
    os.symlink("/etc/passwd", payload / "link")
    os.mkfifo(payload / "fifo")
    (tmp_path / "pilot.log").write_text("pilot")
    target = tmp_path / "log.tgz"
    facts = pack_logs(target, "job-1", [tmp_path / "pilot.log", payload], leave_out={"in.dat"})
    assert facts == (target.stat().st_size, adler32_of(target.read_bytes()))
    with tarfile.open(target) as tar:
        names = sorted(tar.getnames())
        stdout = tar.extractfile("job-1/payload-1/payload.stdout")
        assert stdout is not None and stdout.read() == b"payload.stdout"
    assert names == [
        "job-1/payload-1/payload.stdout", "job-1/payload-1/sub/log.Sim", "job-1/pilot.log",
    ]  # fmt: skip
    assert not is_log("core") and is_log("core_count.txt")
    assert not is_log("out.17-4700-9-1-10", {"out"}) and is_log("out.log", {"out"})


def test_log_archive_is_bounded_and_clean(tmp_path: Path) -> None:
    """All files together stay below the limit; of a long one head and tail; secrets are gone.

    Also those in a block of lines, and what is no text is left out.
    """
    payload = tmp_path / "payload-1"
    payload.mkdir()
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQ\n" * 3000 + "-----END PRIVATE KEY-----\n"
    (payload / "a.log").write_text("first\n" + key + "password=hunter22\nlast\n")
    (payload / "b.bin").write_bytes(b"\0\1\2")
    (payload / "c.log").write_text("".join(f"line {n}\n" for n in range(200_000)))
    (payload / "d.log").write_text("no room is left\n")
    target = tmp_path / "log.tgz"
    pack_logs(target, "top", [payload], clean=redact, limit_bytes=200_000)
    with tarfile.open(target) as tar:
        texts = {
            member.name.rpartition("/")[2]: file.read().decode()
            for member in tar.getmembers() if (file := tar.extractfile(member)) is not None
        }  # fmt: skip
    assert sorted(texts) == ["a.log", "c.log"]
    assert "MIIEvQ" not in texts["a.log"] and "hunter22" not in texts["a.log"]
    assert texts["a.log"].startswith("first\n") and texts["a.log"].endswith("last\n")
    assert texts["c.log"].startswith("line 0\n") and texts["c.log"].endswith("line 199999\n")
    assert "bytes left out" in texts["c.log"] and len(texts["c.log"]) < 200_000


def test_log_that_grows_and_shrinks_while_packed(tmp_path: Path) -> None:
    """A file that grows is packed as it was when it was opened; what is not there does no harm."""
    payload = tmp_path / "payload-1"
    payload.mkdir()
    for name in ("grows", "shrinks"):
        (payload / name).write_text("x" * 99 + "\n" + "y" * 99 + "\n")

    def clean(text: str) -> str:
        with (payload / "grows").open("a") as file:
            file.write("more\n" * 1000)
        os.truncate(payload / "shrinks", 100)
        return text

    target = tmp_path / "log.tgz"
    pack_logs(target, "top", [payload, tmp_path / "nothing"], clean=clean)
    with tarfile.open(target) as tar:
        sizes = {member.name: member.size for member in tar.getmembers()}
    assert sizes == {"top/payload-1/grows": 200, "top/payload-1/shrinks": 100}
