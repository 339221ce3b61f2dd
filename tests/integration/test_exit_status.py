"""How processes of others ended, on real ones."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from espilot.adapters.exit_status import ended_well, status_of_reaped, status_of_zombie

ENDS = {"import sys": True, "import sys; sys.exit(3)": False, "import os; os.kill(0, 9)": False}


class Ended:
    """A process that has ended and waits for being reaped."""

    def __init__(self, script: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid)
        assert select.select([self.pidfd], [], [], 30)[0]


@pytest.fixture(params=ENDS)
def ended(request: pytest.FixtureRequest) -> Iterator[tuple[Ended, bool]]:
    """A process that has ended, and whether well."""
    made = Ended(request.param)
    yield made, ENDS[request.param]
    os.close(made.pidfd)
    made.process.wait()


def test_until_it_is_reaped(ended: tuple[Ended, bool]) -> None:
    """The end of a process that nobody has waited for is known."""
    process, well = ended
    assert status_of_zombie(process.pid) is not None
    assert ended_well(process.pid, process.pidfd) is well


def test_when_it_was_reaped(ended: tuple[Ended, bool]) -> None:
    """Afterwards it is known where the kernel remembers it, and never wrong."""
    process, well = ended
    process.process.wait()
    assert status_of_zombie(process.pid) is None
    known = status_of_reaped(process.pidfd) is not None
    assert ended_well(process.pid, process.pidfd) is (well if known else None)


def test_who_lives_has_no_exit_status() -> None:
    """A process that runs, and a descriptor that is no pidfd, tell nothing."""
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pidfd = os.pidfd_open(sleeper.pid)
    try:
        assert ended_well(sleeper.pid, pidfd) is None
        with Path(os.devnull).open() as file:
            assert ended_well(sleeper.pid, file.fileno()) is None
    finally:
        os.close(pidfd)
        sleeper.send_signal(signal.SIGKILL)
        sleeper.communicate()
