"""Sealed archives: complete and true, or not there."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espilot.adapters import archive as archive_package
from espilot.adapters.archive import (
    Member,
    Sealed,
    archive_name,
    manifest_path,
    member_names,
    member_of,
    read_manifest,
    remove_debris,
    seal,
    verify,
)
from espilot.adapters.archive.tar import BUFFER_BYTES, Headers, combine_adler32
from espilot.adapters.outputs import OutputInspector
from espilot.errors import LocalError, OutputError
from espilot.model import DoneRange, Output

NAME = archive_name(12, "1-2-3-4-5", 1.8e9)
MIB = 2**20


class Site:
    """A work directory, a state directory, and outputs between them."""

    def __init__(self, root: Path) -> None:
        self.work, self.state = root / "work", root / "state"
        self.work.mkdir()
        self.state.mkdir()
        self.inspector = OutputInspector(self.work, [self.state], 2**40)
        self.data: dict[str, bytes] = {}

    def output(self, data: bytes) -> Output:
        path = self.work / f"output {len(list(self.work.iterdir()))};x"
        path.write_bytes(data)
        return self.inspector.inspect(str(path))

    def member(self, range_id: str, *contents: bytes, lfn: str = "HITS.root") -> Member:
        names = member_names((lfn,), range_id, len(contents))
        self.data.update(zip(names, contents, strict=True))
        return Member(range_id, 2, names, tuple(self.output(data) for data in contents))

    def seal(self, *members: Member, open_output: Callable[[Output], int] | None = None) -> Sealed:
        chosen = open_output or self.inspector.open_checked
        return seal(self.state, NAME, members, job_id=12, open_output=chosen)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.state.iterdir())

    def extracted(self) -> dict[str, bytes]:
        with tarfile.open(self.state / NAME, "r:") as tar:
            return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty site."""
    return Site(tmp_path)


def members_of_all_kinds(site: Site) -> list[Member]:
    """Sizes around blocks and the buffer, names that are easy, odd and long."""
    sizes = [1, 511, 512, 513, BUFFER_BYTES - 512, BUFFER_BYTES, BUFFER_BYTES + 1, 3 * MIB]
    members = [
        site.member(f"r-{k}", os.urandom(size), os.urandom(k + 1)) for k, size in enumerate(sizes)
    ]
    lfns = ["a b.root", "x;rm -rf *", "Zürich→μμ", "n" * 101, "ü" * 60, "-dash", "'quote\"", "%s"]
    return members + [site.member(f"o-{k}", b"odd", lfn=lfn) for k, lfn in enumerate(lfns)]


def test_everything_comes_out_again(site: Site) -> None:
    """Python's tarfile finds every member, under its name, with its bytes, and nothing else."""
    members = members_of_all_kinds(site)
    sealed = site.seal(*members)
    assert sealed.dropped == ()
    assert site.extracted() == site.data
    assert site.files() == [NAME, f"{NAME}.json"]


def test_sums_and_manifest(site: Site) -> None:
    """Archive, manifest and file agree on size, adler32, events, ranges and members."""
    members = members_of_all_kinds(site)
    archive = site.seal(*members).archive
    assert archive is not None
    raw = (site.state / NAME).read_bytes()
    assert (archive.name, archive.size_bytes) == (NAME, len(raw))
    assert archive.adler32 == f"{zlib.adler32(raw):08x}"
    assert archive.crc32 == f"{zlib.crc32(raw):08x}"
    assert archive.ids == tuple(member.range_id for member in members)
    assert archive.events == 2 * len(members)
    manifest = verify(site.state / NAME)
    assert manifest == read_manifest(site.state / NAME)
    assert (manifest.job_id, manifest.events) == (12, archive.events)
    assert (manifest.ids, manifest.adler32) == (archive.ids, archive.adler32)
    listed = {file.name: file for row in manifest.ranges for file in row.members}
    assert {name: file.size_bytes for name, file in listed.items()} == {
        name: len(data) for name, data in site.data.items()
    }
    for name, data in site.data.items():
        assert listed[name].adler32 == f"{zlib.adler32(data):08x}"


def test_lesson_39_each_output_byte_is_read_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packing reads exactly as many bytes as the outputs have."""
    members = members_of_all_kinds(site)
    total, real = [0], os.readv

    def count(fd: int, buffers: list[memoryview]) -> int:
        got = real(fd, buffers)
        total[0] += got
        return got

    monkeypatch.setattr(os, "readv", count)
    site.seal(*members)
    assert total[0] == sum(len(data) for data in site.data.values())


@pytest.mark.parametrize("size_bytes", [1000, BUFFER_BYTES + 1])
def test_crc32_of_an_archive_from_which_a_range_dropped_out(site: Site, size_bytes: int) -> None:
    """It is right, or it is not told: where the range was on disk already, nobody knows it."""
    members = [site.member("r0", b"x"), site.member("r1", os.urandom(size_bytes), b"y")]
    members.append(site.member("r2", os.urandom(BUFFER_BYTES)))
    Path(members[1].outputs[1].path).unlink()
    sealed = site.seal(*members)
    assert sealed.archive is not None and len(sealed.dropped) == 1
    raw = (site.state / NAME).read_bytes()
    assert sealed.archive.adler32 == f"{zlib.adler32(raw):08x}"
    known = size_bytes < BUFFER_BYTES
    assert sealed.archive.crc32 == (f"{zlib.crc32(raw):08x}" if known else "")


def test_sources_stay(site: Site) -> None:
    """Sealing never deletes or changes an output."""
    members = [site.member("a", b"1"), site.member("b", b"2")]
    before = {path: path.read_bytes() for path in site.work.iterdir()}
    site.seal(*members)
    assert {path: path.read_bytes() for path in site.work.iterdir()} == before


@pytest.mark.parametrize("how", ["missing", "append", "shrink", "unreadable", "bad name", "twice"])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_bad_range_drops_out_whole(site: Site, how: str, position: int) -> None:
    """A range with one bad file leaves only a reason in the result; the rest is whole."""
    members = [site.member(f"r{k}", os.urandom(5 * MIB), b"second") for k in range(3)]
    victim = members[position]
    path = Path(victim.outputs[1].path)
    if how == "missing":
        path.unlink()
    elif how == "append":
        path.write_bytes(b"second and third")
    elif how == "shrink":
        os.truncate(path, 1)
    elif how == "unreadable":
        path.unlink()
        path.mkdir()
    elif how == "bad name":
        names = (victim.names[0], "../escape")
        members[position] = Member(victim.range_id, 2, names, victim.outputs)
    else:
        outputs = (victim.outputs[0], victim.outputs[0])
        members[position] = Member(victim.range_id, 2, victim.names, outputs)
    sealed = site.seal(*members)
    assert [range_id for range_id, _ in sealed.dropped] == [victim.range_id]
    assert "\n" not in str(sealed.dropped[0][1])
    expected = {name: data for name, data in site.data.items() if name not in victim.names}
    assert site.extracted() == expected
    assert verify(site.state / NAME).ids == tuple(
        member.range_id for member in members if member.range_id != victim.range_id
    )


@pytest.mark.parametrize("how", ["shrink", "grow", "rewrite"])
def test_change_during_the_copy(site: Site, how: str) -> None:
    """A file that changes while it is copied, parts already written, drops its range cleanly."""
    members = [site.member(f"r{k}", os.urandom(9 * MIB)) for k in range(3)]
    victim = members[1].outputs[0]

    def open_then_change(output: Output) -> int:
        fd = site.inspector.open_checked(output)
        if output == victim:
            # After the check of the open file, so only the copy itself can notice.
            if how == "shrink":
                os.truncate(output.path, 5 * MIB)
            else:
                with Path(output.path).open("r+b") as file:
                    file.seek(0, os.SEEK_END if how == "grow" else os.SEEK_SET)
                    file.write(b"changed")
                os.utime(output.path, ns=(0, output.mtime_ns + 10**9))
        return fd

    sealed = site.seal(*members, open_output=open_then_change)
    assert [(range_id, str(error)) for range_id, error in sealed.dropped] == [
        ("r1", f"output {victim.path!a}: changed while it was packed")
    ]
    del site.data[members[1].names[0]]
    assert site.extracted() == site.data
    verify(site.state / NAME)


def test_same_file_in_two_ranges(site: Site) -> None:
    """A file that two ranges claim goes in once; the later range drops out, also by a hard link."""
    first = site.member("a", b"one")
    (site.work / "link").hardlink_to(first.outputs[0].path)
    linked = site.inspector.inspect(str(site.work / "link"))
    again = Member("b", 2, member_names(("x",), "b", 1), (linked,))
    sealed = site.seal(first, again, site.member("c", b"two"))
    assert [range_id for range_id, _ in sealed.dropped] == ["b"]
    assert site.extracted() == site.data


def test_file_of_a_dropped_range_is_free(site: Site) -> None:
    """What a dropped range claimed does not take the file from the range that has it."""
    good = site.member("b", b"one")
    outputs = (good.outputs[0], site.output(b"x"))
    Path(outputs[1].path).unlink()
    bad = Member("a", 2, member_names(("x",), "a", 2), outputs)
    assert [range_id for range_id, _ in site.seal(bad, good).dropped] == ["a"]
    assert site.extracted() == {good.names[0]: b"one"}


def test_same_range_twice(site: Site) -> None:
    """A range goes into an archive once."""
    sealed = site.seal(site.member("a", b"1"), Member("a", 2, ("other",), (site.output(b"2"),)))
    assert [range_id for range_id, _ in sealed.dropped] == ["a"]
    assert verify(site.state / NAME).ids == ("a",)


def test_nothing_left(site: Site) -> None:
    """When every range drops out there is no archive and no debris."""
    member = site.member("a", b"1")
    Path(member.outputs[0].path).unlink()
    sealed = site.seal(member)
    assert sealed.archive is None
    assert len(sealed.dropped) == 1
    assert site.files() == []


def test_seal_again_overwrites_debris(site: Site) -> None:
    """A pair that no transaction fixed is replaced as a whole by the next try."""
    site.seal(site.member("a", b"1"), site.member("b", b"2"))
    site.data.clear()
    site.seal(site.member("a", b"3"))
    assert site.extracted() == site.data
    assert verify(site.state / NAME).ids == ("a",)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 6 MiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * MIB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_write_that_fails_midway(site: Site, small_files: None) -> None:
    """When the archive cannot be written to its end, nothing is left but a clear error."""
    members = [site.member(f"r{k}", bytes(5 * MIB)) for k in range(3)]
    with pytest.raises(LocalError, match=f"cannot write archive {NAME} .*File too large"):
        site.seal(*members)
    assert site.files() == []
    assert len(list(site.work.iterdir())) == 3


@pytest.mark.parametrize("at", [1, 2, 3])
def test_failure_at_the_end_leaves_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The disk fails at the sync of tar, manifest or directory: nothing has the name, as each try
    has another one."""
    synced, real = [0], os.fsync

    def fsync(fd: int) -> None:
        synced[0] += 1
        if synced[0] == at:
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(LocalError, match="cannot write archive"):
        site.seal(site.member("a", b"1"))
    assert (synced[0], site.files()) == (at, [])


def test_no_state_directory(site: Site) -> None:
    """A state directory that is gone is the node's fault, not the range's."""
    member = site.member("a", b"1")
    site.state.rmdir()
    with pytest.raises(LocalError, match="No such file"):
        site.seal(member)


def test_too_many_open_files_is_no_fault_of_the_range(site: Site) -> None:
    """When this node has no descriptor left, the archive fails and no range is dropped."""
    members = [site.member("a", b"1")]

    def open_without_descriptor(output: Output) -> int:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            return site.inspector.open_checked(output)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(LocalError, match="open files"):
        site.seal(*members, open_output=open_without_descriptor)
    assert site.files() == []


def test_no_descriptor_leaks(site: Site) -> None:
    """Whatever drops out, every descriptor is closed."""
    members = [site.member(f"r{k}", b"1", b"2") for k in range(5)]
    os.truncate(members[2].outputs[1].path, 0)
    before = len(os.listdir("/proc/self/fd"))
    site.seal(*members)
    assert len(os.listdir("/proc/self/fd")) == before


# Verifying, and what is left after a crash.


@pytest.mark.parametrize("offset", [0, 700, -1])
def test_damage_is_found(site: Site, offset: int) -> None:
    """One flipped bit anywhere in the tar is found."""
    site.seal(site.member("a", os.urandom(1000)))
    path = site.state / NAME
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)
    with pytest.raises(LocalError, match="adler32"):
        verify(path)


def test_truncation_is_found(site: Site) -> None:
    """A tar that is short, empty or gone does not verify."""
    site.seal(site.member("a", b"1"))
    path = site.state / NAME
    os.truncate(path, path.stat().st_size - 512)
    with pytest.raises(LocalError, match="instead of"):
        verify(path)
    path.unlink()
    with pytest.raises(LocalError, match="cannot be read"):
        verify(path)


def corrupt(change: dict[str, Any]) -> Callable[[dict[str, Any]], str]:
    return lambda document: json.dumps({**document, **change})


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda _: "{",
        lambda _: "[]",
        lambda _: "null",
        lambda _: '"text"',
        lambda _: "[" * 100_000,
        corrupt({"version": 2}),
        corrupt({"ranges": 5}),
        corrupt({"ranges": [{"id": 5, "members": []}]}),
        corrupt({"ranges": [{"id": "a"}]}),
        corrupt({"size_bytes": "many"}),
        corrupt({"name": "other.tar"}),
        corrupt({"ranges": []}),
        corrupt({"adler32": "00000000"}),
    ],
)
def test_damaged_manifest(site: Site, damage: Callable[[dict[str, Any]], str]) -> None:
    """A manifest that is not as it was written is one clear error, never another exception."""
    site.seal(site.member("a", b"1"))
    path = manifest_path(site.state / NAME)
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(LocalError) as caught:
        verify(site.state / NAME)
    assert NAME in str(caught.value)
    assert "\n" not in str(caught.value)


def test_debris(site: Site) -> None:
    """Temporaries and unknown pairs go; known pairs and what is not ours stay."""
    site.seal(site.member("a", b"1"))
    kept = ["data.mdb", "job.json", "tarball"]
    for name in [
        *kept,
        ".x.tar.tmp",
        ".x.tar.json.tmp",
        "old.tar",
        "old.tar.json",
        "lone.tar.json",
    ]:
        (site.state / name).write_bytes(b"")
    (site.state / "queue.tar").mkdir()
    removed = remove_debris(site.state, {NAME})
    assert removed == (
        ".x.tar.json.tmp",
        ".x.tar.tmp",
        "lone.tar.json",
        "old.tar",
        "old.tar.json",
    )
    assert site.files() == sorted([NAME, f"{NAME}.json", "queue.tar", *kept])
    assert remove_debris(site.state / "none", ()) == ()


# Names.


def test_member_names() -> None:
    """The k-th output has the k-th output name; further ones repeat the last with a number."""
    assert member_names(("A", "B"), "id", 1) == ("A.id",)
    assert member_names(("A", "B"), "id", 2) == ("A.id", "B.id")
    assert member_names(("A", "B"), "id", 4) == ("A.id", "B.id", "B_3.id", "B_4.id")


@pytest.mark.parametrize(
    ("lfns", "range_id"),
    [
        ((), "id"),
        (("",), "id"),
        (("A",), ""),
        (("a/b",), "id"),
        (("../a",), "id"),
        (("A",), "x/../../y"),
        (("A\0",), "id"),
        (("A\n",), "id"),
        (("A",), "\ud800"),
        (("A" * 300,), "id"),
    ],
)
def test_bad_member_names(lfns: tuple[str, ...], range_id: str) -> None:
    """A name that would not be one flat file is refused in one line."""
    with pytest.raises(OutputError) as caught:
        member_names(lfns, range_id, 1)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_member_of_a_done_range(site: Site) -> None:
    """A done range becomes a member with its names."""
    outputs = (site.output(b"1"), site.output(b"2"))
    done = DoneRange("id", outputs, 7, 0.0)
    assert member_of(done, ("A",)) == Member("id", 7, ("A.id", "A_2.id"), outputs)


def test_archive_name() -> None:
    """An ordinary range id is part of the name as it is; so is the time, since ids come again."""
    assert archive_name(9, "1-2-3-4-5", 0.031) == "EventService_premerge_9_1-2-3-4-5_1f.tar"
    assert archive_name(9, "1-2-3-4-5", 1.8e9) != archive_name(9, "1-2-3-4-5", 1.8e9 + 0.001)


@given(first=st.text(max_size=400), second=st.text(max_size=400))
def test_archive_names_are_safe_and_distinct(first: str, second: str) -> None:
    """Whatever a server sends as id: a flat short file name, and another one for another id."""
    names = archive_name(1, first, 1.8e9), archive_name(1, second, 1.8e9)
    for name in names:
        assert name.isascii()
        assert len(name) <= 200
        assert "/" not in name
        assert name.isprintable()
    assert (names[0] == names[1]) == (first == second)


@pytest.mark.parametrize(
    "name", ["", "x", "a/b.tar", "../a.tar", ".hidden.tar", "x" * 300 + ".tar"]
)
def test_bad_archive_name(site: Site, name: str) -> None:
    """An archive name that was not made here is refused before anything is written."""
    with pytest.raises(LocalError, match="archive name"):
        seal(site.state, name, [], job_id=1, open_output=site.inspector.open_checked)
    assert site.files() == []


# Headers and sums.


@given(
    name=st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=130),
    size_bytes=st.one_of(st.integers(0, 2**20), st.integers(8**11 - 2, 8**11 + 2), st.just(2**50)),
    mtime_s=st.integers(-(10**12), 10**12),
)
def test_headers_are_those_of_tarfile(name: str, size_bytes: int, mtime_s: int) -> None:
    """Every header is byte by byte what tarfile writes, with the time bounded to what fits."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size_bytes, min(max(mtime_s, 0), 8**11 - 1)
    assert Headers().make(name, size_bytes, mtime_s) == info.tobuf(tarfile.PAX_FORMAT)


def test_huge_member_is_listed(tmp_path: Path) -> None:
    """A member of 9 GiB is found with its size, and so is what follows it."""
    size_bytes, headers = 9 * 2**30, Headers()
    path = tmp_path / "huge.tar"
    with path.open("wb") as file:
        file.write(headers.make("huge", size_bytes, 1))
        file.seek(size_bytes, os.SEEK_CUR)
        file.write(headers.make("next", 0, 1))
        file.write(bytes(1024))
    with tarfile.open(path) as tar:
        assert [(entry.name, entry.size) for entry in tar] == [("huge", size_bytes), ("next", 0)]


@given(first=st.binary(), second=st.binary())
def test_combined_adler32(first: bytes, second: bytes) -> None:
    """The adler32 of two pieces follows from those of the pieces."""
    combined = combine_adler32(zlib.adler32(first), zlib.adler32(second), len(second))
    assert combined == zlib.adler32(first + second)


# Killed at every line.


def die_at(countdown: int) -> Callable[[FrameType, str, Any], Any]:
    """Make a trace function that kills this process at the n-th line of the archive's modules."""
    package = str(Path(archive_package.__file__).parent)
    left = [countdown]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(package):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def seal_in_child(site: Site, members: list[Member], kill_at: int) -> bool:
    """Seal in a child that dies at its `kill_at`-th line; tell whether it lived to the end."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.settrace(die_at(kill_at))
            site.seal(*members)
            sys.settrace(None)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


@pytest.mark.parametrize("earlier", [False, True])
def test_killed_at_every_line(site: Site, earlier: bool) -> None:
    """Whenever sealing is killed: a complete pair that verifies, or debris that can be removed.

    With and without a complete pair of the same name that an earlier try left.
    """
    old = [site.member("old", b"old")]
    members = [site.member("a", b"1", bytes(1000)), site.member("b", b"3"), site.member("c", b"4")]
    Path(members[1].outputs[0].path).unlink()
    sources = {path: path.read_bytes() for path in site.work.iterdir()}
    kill_at, complete = 1, 0
    while True:
        if earlier:
            site.seal(*old)
        lived = seal_in_child(site, members, kill_at)
        if (site.state / NAME).exists():
            ids = verify(site.state / NAME).ids
            assert ids == ("a", "c") or (earlier and ids == ("old",))
            complete += ids == ("a", "c")
            remove_debris(site.state, {NAME})
            assert site.files() == [NAME, f"{NAME}.json"]
        remove_debris(site.state, ())
        assert site.files() == []
        assert {path: path.read_bytes() for path in site.work.iterdir()} == sources
        if lived:
            break
        kill_at += 1
    assert kill_at > 150
    assert complete > 1
