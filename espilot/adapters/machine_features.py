"""Small files by which a site tells an end: machine and job features, a drain file.

A feature directory has one file per key (HSF-TN-2016-02). They may be anything until looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

MACHINE_KEYS = ("shutdowntime", "grace_secs", "total_cpu", "hs06")
JOB_KEYS = (
    "shutdowntime_job", "grace_secs_job", "wall_limit_secs", "cpu_limit_secs", "jobstart_secs",
    "max_rss_bytes", "max_swap_bytes", "scratch_limit_bytes", "allocated_cpu", "job_id",
)  # fmt: skip
MOST_BYTES = 256


def read_features(place: str) -> Mapping[str, str]:
    """The values by key in the directory that MACHINEFEATURES or JOBFEATURES names.

    Only local directories are read: a URL, a missing directory and an unreadable key are nothing.
    """
    if not place.startswith("/"):
        return {}
    values = {}
    for key in (*MACHINE_KEYS, *JOB_KEYS):
        text = read_small_file(Path(place, key))
        if text is not None:
            values[key] = text
    return values


def read_small_file(path: Path) -> str | None:
    """The beginning of a regular file as text; None when there is none that can be read."""
    try:
        # A FIFO that nobody writes to must not stop us.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return os.read(fd, MOST_BYTES).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(fd)


def remove_file(path: Path) -> None:
    """Remove a file, if it can be removed."""
    with suppress(OSError):
        path.unlink()
