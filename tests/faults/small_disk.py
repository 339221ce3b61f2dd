"""A small file system, to see what happens when a disk is full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(target: Path, size: str) -> Iterator[None]:
    """A small file system at this directory; the test is skipped where it cannot be made."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(target)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


def enlarge(target: Path, size: str = "16m") -> None:
    """Give the small file system room."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(target)], check=True)
