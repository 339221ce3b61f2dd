"""A process is killed at every Python opcode of each verb: a move has happened, or it has not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("queue_opcodes.py")
GROUPS = {
    "open": ("open",),
    "ready": ("put", "take"),
    "outcome": ("finish", "fail", "drop"),
    "back": ("return-sent", "return-ranges", "give-back", "forget-failures"),
    "archive": ("pack", "staged", "reported"),
    "forget": ("abandon", "forget-archive", "job", "epoch", "clear-job"),
    "batch": ("hot-path", "seal"),
    "end": ("book", "let-go"),
}


def run(*names: str) -> subprocess.CompletedProcess[str]:
    """The program with these scenarios."""
    command = [sys.executable, str(PROGRAM), *names]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("group", GROUPS)
def test_killed_at_every_opcode(group: str) -> None:
    """Wherever a verb is killed, the queue is as before it or as after it, and goes on."""
    names = GROUPS[group]
    done = run(*names)
    assert done.returncode == 0, done.stderr[-2000:]
    points = dict(line.split() for line in done.stdout.splitlines())
    assert list(points) == list(names)
    assert all(int(n) > 50 for n in points.values()), points


def test_two_transactions_are_found() -> None:
    """The test can fail: a verb that needs two transactions is caught between them."""
    done = run("two-transactions")
    assert done.returncode != 0
    assert "half done when killed at opcode" in done.stderr
