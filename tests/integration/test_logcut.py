"""Logs of a payload that grow too large: head and tail are kept, the space is given back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from espilot.adapters.logcut import cut_log, log_bytes
from espilot.errors import LocalError


def test_lesson_46_holes_take_no_space(tmp_path: Path) -> None:
    """A log with a long hole is as large as what was written into it."""
    path = tmp_path / "log"
    with path.open("wb") as stream:
        stream.truncate(10**9)
        stream.seek(10**9)
        stream.write(b"end")
    assert 0 < log_bytes(path) < 10**6
    path.write_bytes(b"x" * 5)
    assert log_bytes(path) == 5
    assert log_bytes(tmp_path / "absent") == 0


def test_cut_keeps_head_and_tail(tmp_path: Path) -> None:
    """What came first and last is kept beside the log, and the cut says how much is gone."""
    path = tmp_path / "payload.stdout"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, b"first" + b"m" * 1000 + b"last.")
        assert cut_log(path, 5) == 1000
        os.write(fd, b"goes on\n")
    finally:
        os.close(fd)
    assert (tmp_path / "payload.stdout.head").read_bytes() == b"first"
    assert (tmp_path / "payload.stdout.tail").read_bytes() == b"last."
    assert path.read_text() == "[espilot: 1000 bytes were cut out before this line]\ngoes on\n"
    assert log_bytes(path) < 100


def test_second_cut_keeps_the_first_head(tmp_path: Path) -> None:
    """The head is that of the whole log; the tail that of the last cut."""
    path = tmp_path / "log"
    path.write_bytes(b"first" + b"m" * 100 + b"tail1")
    assert cut_log(path, 5) == 100
    with path.open("ab") as stream:
        stream.write(b"n" * 100 + b"tail2")
    size_bytes = path.stat().st_size
    assert cut_log(path, 5) == size_bytes - 5 + 5, "the middle, and the former tail"
    assert (tmp_path / "log.head").read_bytes() == b"first"
    assert (tmp_path / "log.tail").read_bytes() == b"tail2"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "log.head", "log.tail"]


def test_small_log_loses_nothing(tmp_path: Path) -> None:
    """Head and tail do not overlap: nothing is thrown away, nothing is there twice."""
    path = tmp_path / "log"
    path.write_bytes(b"0123456789")
    assert cut_log(path, 8) == 0
    assert (tmp_path / "log.head").read_bytes() == b"01234567"
    assert (tmp_path / "log.tail").read_bytes() == b"89"


def test_links_of_the_payload_are_not_followed(tmp_path: Path) -> None:
    """A payload that puts links in the way reaches no file of others."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = tmp_path / "log"
    path.symlink_to(victim)
    with pytest.raises(LocalError, match="cannot cut"):
        cut_log(path, 2)
    path.unlink()
    path.write_bytes(b"x" * 100)
    (tmp_path / "log.tail").symlink_to(victim)
    (tmp_path / f".log.head.{os.getpid()}.tmp").symlink_to(victim)
    cut_log(path, 2)
    assert victim.read_bytes() == b"precious"


def test_log_that_is_gone(tmp_path: Path) -> None:
    """A log that was removed is one clear line."""
    with pytest.raises(LocalError, match="absent: No such file"):
        cut_log(tmp_path / "absent", 5)
