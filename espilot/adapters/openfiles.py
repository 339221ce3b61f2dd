"""Which process has a file open: how a living pilot is known without touching its lock."""

from __future__ import annotations

import os
from pathlib import Path


def has_open(pid: int, path: Path) -> bool:
    """Whether the process `pid` has the file open; an unreadable process that exists has it."""
    try:
        sought = path.stat()
        names = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return True
    except OSError:
        return False
    return any(_is_same(f"/proc/{pid}/fd/{name}", sought) for name in names)


def _is_same(link: str, sought: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(link), sought)
    except OSError:
        return False
