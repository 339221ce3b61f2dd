"""`espilot top` on a real (pseudo) terminal: 80x24, with and without colour, its end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from espilot.adapters.story import NAME, Story

ROOT = Path(__file__).resolve().parents[2]
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])m")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What a pilot left that was killed in its first moments: a record and a story."""
    (tmp_path / "run.json").write_text('{"state": "running", "task": {"name": "t"}}')
    story = Story(tmp_path / NAME, "dispatcher")
    story.tell("fetched", ["r1", "r2"], each={"events": [[1, 1], [2, 2]], "lfn": ["f", "f"]})
    story.tell("failed", ["r2"], diag="boom", code=1305)
    story.flush()
    return tmp_path


class Screen:
    """A terminal of some size with the command on it."""

    def __init__(self, state: Path, *, columns: int = 80, rows: int = 24, **environ: str) -> None:
        self.seen = b""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
        env = {**inherited, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environ}
        argv = [sys.executable, str(ROOT / "bin" / "espilot"), "top", str(state)]
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)

    def wait_for(self, text: bytes, within_s: float = 30.0) -> None:
        """Read until this has come."""
        end = time.monotonic() + within_s
        while text not in self.seen:
            assert time.monotonic() < end, (text, self.seen[-2000:])
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:  # the other end is closed
                    assert text in self.seen, (text, self.seen[-2000:])

    def close(self) -> None:
        """End what is left."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_live(state: Path, number: int) -> None:
    """The screen is taken, shows ranges, health and remedy, follows the story, and is given back at
    the end, with exit code 0."""
    screen = Screen(state)
    try:
        screen.wait_for(b"\x1b[?1049h")
        screen.wait_for("✗ failed 1".encode())
        screen.wait_for(b"espilot recover")
        assert COLOUR.search(screen.seen)
        story = Story(state / NAME, "dispatcher")
        story.tell("fatal", ["r1"], diag="gone")
        story.flush()
        screen.wait_for("▼ fatal 1".encode())
        screen.process.send_signal(number)
        screen.wait_for(b"\x1b[?1049l")
        assert screen.process.wait(20) == 0
    finally:
        screen.close()


def test_no_color(state: Path) -> None:
    """With NO_COLOR there is no colour, and the glyphs tell the same."""
    screen = Screen(state, NO_COLOR="1")
    try:
        screen.wait_for("✗ failed 1".encode())
        screen.wait_for(b"Health")
        assert not COLOUR.search(screen.seen)
    finally:
        screen.close()


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot(state: Path, term: str) -> None:
    """On a terminal that cannot be drawn on: one plain frame."""
    screen = Screen(state, TERM=term)
    try:
        screen.wait_for("✗ failed 1".encode())
        assert screen.process.wait(20) == 0
        assert b"\x1b" not in screen.seen
    finally:
        screen.close()


def test_no_terminal(state: Path) -> None:
    """Into a pipe: one plain frame, exit 0; FORCE_COLOR changes nothing of that."""
    argv = [sys.executable, str(ROOT / "bin" / "espilot"), "top", str(state)]
    env = {**os.environ, "FORCE_COLOR": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.returncode == 0 and done.stderr == ""
    assert "✗ failed 1" in done.stdout and "\x1b" not in done.stdout
