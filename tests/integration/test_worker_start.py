"""A worker that cannot start says so in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from espilot.config import Settings
from espilot.workers.context import Context


@pytest.mark.parametrize("role", ["stageout", "builtin-server"])
def test_worker_without_supervisor_is_no_defect(tmp_path: Path, role: str) -> None:
    """A worker whose supervisor died before it was up ends with one line, not with a traceback."""
    context = Context(tmp_path, tmp_path / "state", tmp_path, str(tmp_path / "se"), Settings())
    file = tmp_path / "context.json"
    context.write(file)
    read_fd, write_fd = os.pipe()
    os.close(write_fd)
    argv = [sys.executable, "-m", "espilot.workers", role, str(file), str(os.getpid())]
    ended = subprocess.run(
        [*argv, str(read_fd)], pass_fds=(read_fd,), capture_output=True, text=True, check=False
    )
    os.close(read_fd)
    said = f"{role}: the supervisor (process {os.getpid()}) is gone\n"
    assert (ended.returncode, ended.stderr) == (73, said)


def test_worker_without_context_is_no_defect(tmp_path: Path) -> None:
    """A worker whose context went away with its supervisor ends with one line as well."""
    argv = [sys.executable, "-m", "espilot.workers", "stageout", str(tmp_path / "context.json")]
    ended = subprocess.run([*argv, "1", "0"], capture_output=True, text=True, check=False)
    assert ended.returncode == 73
    assert ended.stderr.endswith("is gone, and so is the supervisor\n")
    assert ended.stderr.count("\n") == 1
