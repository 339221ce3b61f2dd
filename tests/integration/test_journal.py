"""Log lines in the journal: their fields, by its native protocol, over a real socket."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espilot.adapters.journal import JournalHandler, encode, message_id, stderr_is_journal
from espilot.logs import open_log


@contextmanager
def journal(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(5.0)
        yield sock


def test_fields(tmp_path: Path) -> None:
    """A line can be found by job, range, role and action; its priority is right."""
    path = tmp_path / "socket"
    with journal(path) as sock:
        log = open_log("stageout", tmp_path / "log", also=JournalHandler("espilot-1", path))
        log.job = 4711
        log.warning("pack", "output lost", range="r-1", error="gone")
        fields = dict(line.split("=", 1) for line in sock.recv(4096).decode().splitlines())
    assert fields["PRIORITY"] == "4"
    assert fields["SYSLOG_IDENTIFIER"] == "espilot-1"
    assert fields["ESPILOT_JOB"] == "4711"
    assert fields["ESPILOT_RANGE"] == "r-1"
    assert (fields["ESPILOT_ROLE"], fields["ESPILOT_ACTION"]) == ("stageout", "pack")
    assert fields["MESSAGE_ID"] == message_id("pack") != message_id("upload")
    assert message_id("drain") == "d7c933742f1d5d6691a6b630c0a268e0", (
        "others search for it: it stays"
    )
    assert "output lost" in fields["MESSAGE"]
    assert "output lost" in (tmp_path / "log").read_text()


def test_line_feeds_make_no_fields() -> None:
    """A value with line feeds cannot smuggle a field in."""
    assert encode({"A": "x\nPRIORITY=0"}) == b"A\n" + struct.pack("<Q", 12) + b"x\nPRIORITY=0\n"


def test_without_a_journal(tmp_path: Path) -> None:
    """Nobody there: the line is in the file, and nothing is raised."""
    log = open_log("x", tmp_path / "log", also=JournalHandler("x", tmp_path / "none"))
    log.info("start", "hello")
    assert "hello" in (tmp_path / "log").read_text()


def test_stderr_and_the_journal() -> None:
    """Only when stderr is that very stream it is the journal."""
    status = os.fstat(2)
    assert stderr_is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    assert not stderr_is_journal({"JOURNAL_STREAM": "1:2"})
    assert not stderr_is_journal({})


def test_lesson_61_log_goes_on_after_rotation(tmp_path: Path) -> None:
    """A log that was moved away is begun anew, without restart or signal."""
    path = tmp_path / "log"
    log = open_log("x", path)
    log.info("start", "one")
    path.rename(tmp_path / "log.1")
    log.info("start", "two")
    assert "two" in path.read_text()
    assert "two" not in (tmp_path / "log.1").read_text()
