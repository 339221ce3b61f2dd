"""The story's file: several pens at once, torn lines, turned pages, full disks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from espilot.adapters.story import NAME, Story, older_page, read_lines

WRITER = """
import sys
from pathlib import Path
from espilot.adapters.story import Story
path, role, flushes, page_bytes = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
story = Story(path, role, page_bytes=page_bytes)
sys.stdin.readline()
for n in range(flushes):
    for m in range(5):
        story.tell("sent", [f"{role}-{n}-{m}-{i}" for i in range(20)], n=n, m=m)
    assert story.flush(), story.error
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the story is written."""
    return tmp_path / NAME


def write_together(path: Path, *, flushes: int, page_bytes: int) -> list[str]:
    """Have three processes write at the same time; their roles."""
    roles = ["one", "two", "three"]
    pens = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), role, str(flushes), str(page_bytes)],
            stdin=subprocess.PIPE,
        )
        for role in roles
    ]
    for pen in pens:
        assert pen.stdin is not None
        pen.stdin.close()  # end of file lets all of them go at once
    assert [pen.wait() for pen in pens] == [0, 0, 0]
    return roles


def test_lines_are_whole_and_complete(path: Path) -> None:
    """A line has time, role, process, word, ranges and facts; ids of any kind come back."""
    story = Story(path, "stageout")
    odd = ['a"b', "é€", "\udc80", "line\nbreak"]
    story.tell("packed", odd, archive="x.tar", each={"size": [1, 2, 3, 4]})
    story.tell("verdict", (), where=Path("/p"))
    assert not path.exists(), "telling writes nothing"
    assert story.flush()
    first, second = read_lines(path)
    assert first["ranges"] == odd and first["each"] == {"size": [1, 2, 3, 4]}
    assert (first["role"], first["pid"], first["what"]) == ("stageout", os.getpid(), "packed")
    assert second["ranges"] == [] and second["where"] == "/p"
    assert first["t"] <= second["t"]
    assert path.stat().st_mode & 0o077 == 0
    assert story.flush(), "nothing to write is no failure"


@pytest.mark.parametrize("word", ['a"b', "é€", "1-2-3-4-5"])
def test_only_lines_with_a_word(path: Path, word: str) -> None:
    """A reader that looks for one id gets all its lines, and none of an id that contains it."""
    story = Story(path, "dispatcher")
    story.tell("sent", [word, "other"])
    story.tell("sent", [f"1{word}"])
    story.tell("done", [word])
    story.flush()
    assert [line["what"] for line in read_lines(path, (word,))] == ["sent", "done"]
    assert list(read_lines(path, ("nobody",))) == []


def test_due_is_called_once_for_what_waits(path: Path) -> None:
    """A loop is told when there is something to flush, not at each word."""
    calls: list[int] = []
    story = Story(path, "x", due=lambda: calls.append(1))
    for _ in range(2):
        story.tell("sent", ["a"])
        story.tell("done", ["a"])
        story.flush()
    assert len(calls) == 2


def test_lines_of_several_processes_never_mix(path: Path) -> None:
    """Three processes that write at once lose no line and break none."""
    roles = write_together(path, flushes=100, page_bytes=1 << 30)
    lines = list(read_lines(path))
    assert Counter(line["role"] for line in lines) == dict.fromkeys(roles, 500)
    assert all(len(line["ranges"]) == 20 for line in lines)
    raw = [line for line in path.read_bytes().splitlines() if line]
    assert len(raw) == len(lines), "no torn line"


def test_page_turns_with_several_writers(path: Path) -> None:
    """The page is turned at its size, by one writer at a time: both pages stay bounded, and the
    newest lines are all there."""
    page_bytes = 100_000
    roles = write_together(path, flushes=100, page_bytes=page_bytes)
    older = older_page(path)
    assert page_bytes <= older.stat().st_size < 1.5 * page_bytes
    assert not path.exists() or path.stat().st_size < 1.5 * page_bytes
    assert sorted(each.name for each in path.parent.iterdir()) in (
        [NAME, f"{NAME}.1"],
        [f"{NAME}.1"],
    )
    lines = list(read_lines(path))
    for role in roles:
        mine = [(line["n"], line["m"]) for line in lines if line["role"] == role]
        everything = [(n, m) for n in range(100) for m in range(5)]
        assert mine == everything[len(everything) - len(mine) :], "no line is missing in between"


@pytest.mark.parametrize("torn", [b'{"t": 1.0, "what": "se', b"\xff\xfe\0", b'{"t": 1}\n[1]\nnull'])
def test_torn_line_spoils_nothing(path: Path, torn: bytes) -> None:
    """What a killed writer left unfinished is skipped; the lines before and after it are read."""
    story = Story(path, "x")
    story.tell("sent", ["a"])
    story.flush()
    with path.open("ab") as file:
        file.write(torn)
    story.tell("done", ["a"])
    story.flush()
    assert [line["what"] for line in read_lines(path)] == ["sent", "done"]
    with path.open("ab") as file:
        file.write(torn)
    assert [line["what"] for line in read_lines(path)] == ["sent", "done"]


def test_lines_of_strange_shape_are_skipped(path: Path) -> None:
    """Only objects with time, word and ranges are lines."""
    shapes = [
        {"t": "x", "what": "a", "ranges": []},
        {"t": 1, "ranges": []},
        {"t": 1, "what": "a"},
        {"t": 1, "what": "a", "ranges": "abc"},
        {"t": 1, "what": "good", "ranges": []},
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in shapes) + "[" * 100_000)
    assert [line["what"] for line in read_lines(path)] == ["good"]


def test_no_story_is_an_empty_one(path: Path) -> None:
    """A state directory without a story has no lines."""
    assert list(read_lines(path)) == []


def test_unwritable_story_stops_nobody(path: Path) -> None:
    """What cannot be written is counted, with the reason; when it can be again, all goes on."""
    path.mkdir()
    story = Story(path, "x")
    story.tell("sent", ["a"])
    story.tell("done", ["a"])
    assert not story.flush()
    assert story.lost == 2
    assert str(path) in story.error and "directory" in story.error
    path.rmdir()
    story.tell("packed", ["a"])
    assert story.flush()
    assert [line["what"] for line in read_lines(path)] == ["packed"]


def test_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    """A symbolic link does not lead the story elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path.symlink_to(victim)
    story = Story(path, "x")
    story.tell("sent", ["a"])
    assert not story.flush()
    assert victim.read_text() == "mine"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this needs the right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_costs_lines_only(small_disk: Path) -> None:
    """On a full disk lines are lost and counted, never half read; with room again all goes on."""
    path = small_disk / NAME
    story = Story(path, "x")
    told = 0
    while story.flush():
        story.tell("sent", ["r" * 50] * 100, n=told)
        told += 1
        assert told < 1000, "the disk is never full"
    whole = [line["n"] for line in read_lines(path)]
    assert whole == list(range(told - story.lost))
    path.rename(older_page(path))
    os.truncate(older_page(path), 1000)
    story.tell("done", ["a"])
    assert story.flush()
    assert [line["what"] for line in read_lines(path)][-1] == "done"
