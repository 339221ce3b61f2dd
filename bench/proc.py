"""What /proc tells of the pilot's processes, seen from outside and sorted by role."""

from __future__ import annotations

from pathlib import Path

LAUNCHER = "espilot.supervisor.launcher"
WORKERS = ("dispatcher", "event-server", "stageout", "builtin-server")
PAYLOAD = "payload"
SUPERVISOR = "supervisor"
_KIB = 1024


def role_of(argv: list[str]) -> str:
    """The role of a process by its command line; what is nothing of ours is payload."""
    if "espilot.workers" in argv:
        name = argv[argv.index("espilot.workers") + 1]
        return name if name in WORKERS else PAYLOAD
    return "launcher" if any(LAUNCHER in word for word in argv[:5]) else PAYLOAD


def pilot_processes(supervisor_pid: int) -> dict[int, str]:
    """The supervisor and all its descendants, by pid, with their roles."""
    found = {supervisor_pid: SUPERVISOR}
    waiting = [supervisor_pid]
    while waiting:
        for pid in children_of(waiting.pop()):
            if pid not in found:
                found[pid] = role_of(command_line(pid))
                waiting.append(pid)
    return found


def children_of(pid: int) -> list[int]:
    """The children of all threads of a process."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        children += [int(word) for word in read(path).split()]
    return children


def command_line(pid: int) -> list[str]:
    """The arguments of a process; none when it is gone."""
    return read(Path(f"/proc/{pid}/cmdline")).split("\0")


def own_bytes(pid: int) -> int:
    """Memory of its own that a process has now; 0 when it is gone.

    The pages of the queue's file do not count: they are page cache that all roles share, and the
    file's size is fixed.
    """
    return _field_bytes(Path(f"/proc/{pid}/status"), "RssAnon:")


def pss_bytes(pid: int) -> int:
    """The proportional size of a process: what it shares is counted in parts."""
    return _field_bytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond; 0 when it is gone."""
    texts = [read(path) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(text.split()[0]) for text in texts if text) / 1e9


def read(path: Path) -> str:
    """A file of /proc; empty when its process is gone."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _field_bytes(path: Path, name: str) -> int:
    for line in read(path).splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * _KIB
    return 0
