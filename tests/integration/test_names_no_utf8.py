"""Directories whose names are not UTF-8: what a run left there can be read, none starts there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from espilot.cli import exit_codes
from espilot.cli.main import main
from espilot.model import EventRange
from espilot.queue.store import Queue


def odd(directory: Path) -> Path:
    """A path with a byte that is no UTF-8."""
    return directory / os.fsdecode(b"sl\xf6p")


def test_queue(tmp_path: Path) -> None:
    """The queue is opened, kept and opened again."""
    queue = Queue(odd(tmp_path))
    with queue.moves() as moves:
        moves.put_ranges([EventRange("1-2-3-1-1", 1, 1, "f", "g", "s")], now=1.0)
    queue.close()
    queue = Queue(odd(tmp_path))
    assert queue.counts().ready == 1
    queue.close()


def test_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages to a payload cannot hold its name: it is refused before anything is made."""
    words = ["run", "--local", "--events", "2", "--workdir", str(odd(tmp_path)), "--", "/bin/true"]
    assert main(words) == exit_codes.USAGE
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "not UTF-8" in told and "--workdir" in told
    assert list(tmp_path.iterdir()) == []
