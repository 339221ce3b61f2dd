"""Our control group's memory (cgroup v2), read only: its limit, its use, what the kernel killed.

The limit may be set on a group above ours: the one with the least room counts. File cache is not
use: the kernel gives it back before it ends anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """Of one group: `limit_bytes` 0 means none; `oom_kills` since the group was made."""

    used_bytes: int
    limit_bytes: int
    oom_kills: int


def own_groups(membership: str = "", mount: Path = MOUNT) -> tuple[Path, ...]:
    """Directories of our group and those above it, as far as they have figures of memory.

    `membership` is the text of /proc/self/cgroup; empty means to read it. None without cgroup v2.
    """
    text = membership or _read(Path("/proc/self/cgroup"))
    name = next((line[3:] for line in text.splitlines() if line.startswith("0::/")), None)
    if name is None or ".." in name:
        return ()
    group = mount / name.lstrip("/")
    chain = [each for each in (group, *group.parents) if each.is_relative_to(mount)]
    return tuple(each for each in chain if (each / "memory.current").exists())


def read_memory(groups: tuple[Path, ...]) -> GroupMemory | None:
    """The group with the least room; kills are those of our own group. None without groups."""
    if not groups:
        return None
    found = [(_used_bytes(group), _number(group / "memory.max")) for group in groups]
    limited = [(limit - used, used, limit) for used, limit in found if limit]
    _, used, limit = min(limited, default=(0, found[0][0], 0))
    return GroupMemory(used, limit, _field(groups[0] / "memory.events", "oom_kill"))


def _used_bytes(group: Path) -> int:
    cache = _field(group / "memory.stat", "inactive_file")
    cache += _field(group / "memory.stat", "active_file")
    return max(0, _number(group / "memory.current") - cache)


def _number(path: Path) -> int:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else 0


def _field(path: Path, name: str) -> int:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdecimal():
            return int(value)
    return 0


def _read(path: Path) -> str:
    """A file of the kernel; "" when it is not there or not for us."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
