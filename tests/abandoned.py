"""What killed pilots leave outside their directories, taken away as their next start would do it.

A test that kills a pilot for good has no next start: its sockets, its runtime directory and its
control group would stay for ever.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from espilot.supervisor.statedir import StateDir

RECORD = "pilot.json"
DEEPEST = 5


def clean_up(base: Path) -> list[Path]:
    """Clean up after each pilot whose state is below `base` and that is dead; those states."""
    states = [Path(directory) for directory in directories(base) if RECORD in os.listdir(directory)]
    dead = [
        state for state in states if is_free(state / "lock") and is_free(state / "workers.lock")
    ]
    for state in dead:
        StateDir(state).close()
    return dead


def directories(base: Path) -> Iterator[str]:
    """Those that can be read, no deeper than a state may lie: some tests make very deep ones."""
    for directory, below, _ in os.walk(base):
        if os.access(directory, os.R_OK):
            yield directory
        if len(Path(directory).relative_to(base).parts) >= DEEPEST:
            below.clear()


def is_free(lock: Path) -> bool:
    """Whether nobody holds a lock; one that is not there tells of no pilot."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
