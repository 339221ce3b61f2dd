"""Control groups (cgroup v2): the memory of ours, and a group of its own for each payload.

A limit may be set on a group above ours: the one with the least room counts. File cache is not
use: the kernel gives it back before it ends anybody.

Groups are made only where that is ours to do: in a group that was delegated to us (systemd marks it
with an extended attribute) or that belongs to our user. A group that hands controllers down must
have no processes itself, so we move into one below it first. Nothing here is ever a reason to fail:
what the kernel or the machine refuses is done without.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
PREFIX = "espilot-payload-"
"""How the names of groups begin that are ours to remove."""
SUPERVISOR = "supervisor"
"""The group that we ourselves move into, as systemd's DelegateSubgroup= calls it by custom."""
CONTROLLERS = ("cpu", "memory", "pids", "io")
MARKS = ("user.delegate", "trusted.delegate")


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """Of one group: `limit_bytes` 0 means none; `oom_kills` since the group was made."""

    used_bytes: int
    limit_bytes: int
    oom_kills: int


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Of a payload's group, ended processes included; None: the kernel does not tell.

    `memory_bytes` is without file cache that is not mapped, each page once; `limit_hits` says how
    often processes were to be ended because of the group's own limit, `oom_kills` how many were
    ended for lack of memory at all; `forks_refused` how often `pids.max` was in the way.
    """

    cpu_s: float | None = None
    memory_bytes: int | None = None
    swap_bytes: int | None = None
    peak_bytes: int | None = None
    limit_bytes: int = 0
    oom_kills: int = 0
    limit_hits: int = 0
    forks_refused: int = 0


def own_group(membership: str = "", mount: Path | None = None) -> Path | None:
    """The directory of our group; None without cgroup v2.

    `membership` is the text of /proc/self/cgroup; empty means to read it.
    """
    text = membership or _read(Path("/proc/self/cgroup"))
    name = next((line[3:] for line in text.splitlines() if line.startswith("0::/")), None)
    if name is None or ".." in name:
        return None
    return (mount or _mount()) / name.lstrip("/")


def _mount() -> Path:
    """Where version 2 is: beside version 1 it has a directory of its own."""
    hybrid = MOUNT / "unified"
    return hybrid if (hybrid / "cgroup.controllers").exists() else MOUNT


def own_groups(membership: str = "", mount: Path | None = None) -> tuple[Path, ...]:
    """Directories of our group and those above it, as far as they have figures of memory."""
    mount = mount or _mount()
    group = own_group(membership, mount)
    if group is None:
        return ()
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


def memory_limits(groups: tuple[Path, ...]) -> tuple[int, ...]:
    """The limits of memory that the groups have, in bytes; those without one are left out."""
    limits = (_number(group / "memory.max") for group in groups)
    return tuple(limit for limit in limits if limit)


def find_delegated(group: Path | None) -> Path | None:
    """The group below which we may make others: ours or the one above; None when there is none.

    Root may write everywhere, so its own group must be marked; everybody else's needs to be theirs.
    """
    if group is None:
        return None
    if _is_marked(group):
        return group
    if group.name == SUPERVISOR and _is_marked(group.parent) and not _pids(group.parent):
        return group.parent
    if os.geteuid() == 0 or not _is_writable(group):
        return None
    return group if group.stat().st_uid == os.geteuid() else None


def _is_marked(group: Path) -> bool:
    return _is_writable(group) and any(_attribute(group, mark) == b"1" for mark in MARKS)


def _attribute(path: Path, name: str) -> bytes:
    try:
        return os.getxattr(path, name)
    except OSError:
        return b""


def _is_writable(group: Path) -> bool:
    return os.access(group, os.W_OK | os.X_OK) and os.access(group / "cgroup.procs", os.W_OK)


def hand_down(base: Path) -> tuple[str, ...]:
    """Have the groups below `base` get controllers; returns which they have.

    Whoever is in `base` itself moves into a group below it first: all, if the group was delegated
    to us, else only we, and with others in it there are no controllers.
    """
    pids = _pids(base)
    if pids and (_is_marked(base) or pids == [os.getpid()]):
        _move_down(base)
    if not _pids(base):
        there = _read(base / "cgroup.controllers").split()
        for name in CONTROLLERS:
            if name in there:
                _write(base / "cgroup.subtree_control", f"+{name}")
    return tuple(_read(base / "cgroup.subtree_control").split())


def _move_down(base: Path) -> None:
    target = base / SUPERVISOR
    try:
        target.mkdir(exist_ok=True)
    except OSError:
        return
    for _ in range(3):  # one may have forked meanwhile
        for pid in _pids(base):
            _write(target / "cgroup.procs", str(pid))


def make_group(path: Path) -> bool:
    """Make a group; False when it may not be."""
    try:
        path.mkdir()
    except OSError:
        return False
    return True


def set_limits(group: Path, *, memory_bytes: int, tasks: int) -> None:
    """Limit a group where the controllers are there; 0 means no limit. Tasks include threads."""
    for name, value in (("memory.max", memory_bytes), ("pids.max", tasks)):
        if (group / name).exists():
            _write(group / name, str(value or "max"))


def tasks_limit(group: Path) -> int:
    """How many tasks a group may have; 0 means no limit."""
    return _number(group / "pids.max")


def group_figures(group: Path) -> GroupFigures:
    """What a payload's group has used."""
    cpu = _fields(group / "cpu.stat").get("usage_usec")
    memory, events = _fields(group / "memory.stat"), _fields(group / "memory.events")
    anonymous = memory.get("anon")
    # Mapped pages include the mapped ones of shared memory.
    mapped = max(memory.get("shmem", 0), memory.get("file_mapped", 0))
    return GroupFigures(
        cpu_s=None if cpu is None else cpu / 1e6,
        memory_bytes=None if anonymous is None else anonymous + mapped,
        swap_bytes=_optional(group / "memory.swap.current"),
        peak_bytes=_optional(group / "memory.peak"),
        limit_bytes=_number(group / "memory.max"),
        oom_kills=events.get("oom_kill", 0),
        limit_hits=events.get("oom", 0),
        forks_refused=_field(group / "pids.events", "max"),
    )


def kill_group(group: Path) -> bool:
    """KILL all that is in a group, and below it, at once; False when the kernel cannot."""
    return _write(group / "cgroup.kill", "1")


def remove_group(group: Path, timeout_s: float) -> bool:
    """End what is in a group of ours, and remove it with those below; False when it stays."""
    if not group.name.startswith(PREFIX) or not (group / "cgroup.procs").exists():
        return not group.exists()
    kill_group(group)
    _wait_empty(group, timeout_s)
    for path, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(path)
        except OSError:
            return False
    return True


def _wait_empty(group: Path, timeout_s: float) -> None:
    """Wait until nothing is in a group: the kernel reports a change of its events file."""
    deadline = time.monotonic() + timeout_s
    try:
        fd = os.open(group / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        poller = select.poll()
        poller.register(fd, select.POLLPRI)
        while b"populated 1" in os.pread(fd, 4096, 0):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            poller.poll(left_s * 1000)
    finally:
        os.close(fd)


def _pids(group: Path) -> list[int]:
    return [int(word) for word in _read(group / "cgroup.procs").split() if word.isdecimal()]


def _used_bytes(group: Path) -> int:
    cache = _field(group / "memory.stat", "inactive_file")
    cache += _field(group / "memory.stat", "active_file")
    return max(0, _number(group / "memory.current") - cache)


def _number(path: Path) -> int:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else 0


def _optional(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int:
    return _fields(path).get(name, 0)


def _fields(path: Path) -> dict[str, int]:
    return dict(_rows(path))


def _rows(path: Path) -> Iterator[tuple[str, int]]:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdecimal():
            yield key, int(value)


def _write(path: Path, text: str) -> bool:
    """Write to a file of the kernel, in one call; False when it refuses."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode("ascii"))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _read(path: Path) -> str:
    """A file of the kernel; "" when it is not there or not for us."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
