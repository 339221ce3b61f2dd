"""A control group of the kernel's tree that is delegated to us, as systemd would do it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from espilot.adapters import cgroup


@contextmanager
def delegated_group() -> Iterator[Path]:
    """Its directory; it goes with all that is in it. Skips where there can be none."""
    here = cgroup.own_group()
    if os.geteuid() != 0 or here is None:
        pytest.skip("SKIPPED, no control group of the kernel: not root, or no version 2")
    base = here / f"espilot-test-{uuid.uuid4().hex[:8]}"
    try:
        base.mkdir()
        os.setxattr(base, cgroup.MARKS[0], b"1")
    except OSError as error:
        if base.is_dir():
            base.rmdir()
        pytest.skip(f"SKIPPED, no control group can be made in {here}: {error.strerror}")
    try:
        yield base
    finally:
        cgroup.kill_group(base)
        for path, _, _ in os.walk(base, topdown=False):
            remove(Path(path))


def remove(group: Path) -> None:
    """Remove a group as soon as nothing is in it."""
    deadline = time.monotonic() + 10.0
    while "populated 0" not in (group / "cgroup.events").read_text():
        assert time.monotonic() < deadline, f"not empty: {group}"
        time.sleep(0.01)
    group.rmdir()


def members_of(group: Path) -> set[int]:
    """Who is in a group itself."""
    return {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
