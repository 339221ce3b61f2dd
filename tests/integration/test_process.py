"""Starting, guarding and reaping of children."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from espilot.adapters import process
from espilot.errors import LocalError

DEADLINE_S = 20.0


def test_guard_against_orphanhood() -> None:
    """A worker whose parent is gone, or whose death pipe is closed, does not start."""
    code = (
        "import sys\nfrom espilot.adapters import process\nfrom espilot.errors import LocalError\n"
        "try: process.guard_against_orphanhood(int(sys.argv[1]), int(sys.argv[2]))\n"
        "except LocalError as error: print(error)\nelse: print('guarded')\n"
    )
    with process.DeathPipe() as death:

        def guard(parent_pid: int) -> str:
            argv = [sys.executable, "-c", code, str(parent_pid), str(death.read_fd)]
            return subprocess.check_output(argv, pass_fds=[death.read_fd], text=True).strip()

        assert guard(os.getpid()) == "guarded"
        assert guard(1) == "the supervisor (process 1) is gone"


def test_spawn_and_reap(tmp_path: Path) -> None:
    """A spawned child is reaped once, with its true exit code, and described in words."""
    with pytest.raises(LocalError, match="cannot start /no/such: No such file"):
        process.spawn(["/no/such"], env={})
    child = process.spawn([sys.executable, "-S", "-c", "raise SystemExit(255)"], env={})
    assert select.select([child.pidfd], [], [], DEADLINE_S)[0]
    assert process.reap() == [(child.pid, 255)]
    assert process.reap() == []
    assert not child.signal(signal.SIGTERM)
    child.close()
    assert process.pidfd_open(child.pid) is None
    assert process.describe_exit(255) == "exit code 255"
    assert process.describe_exit(-9) == "killed by SIGKILL (9)"
