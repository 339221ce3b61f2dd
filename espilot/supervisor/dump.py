"""What all processes of a pilot are doing, as text for people: the tree, and each one's stacks.

Nothing here asks the supervisor's loop, so a pilot that hangs can be looked at too. The payload
gets no signal: of its processes only what /proc shows is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from espilot.adapters import stacks
from espilot.adapters.proctree import Process, descendants, look_up

MOST_PROCESSES = 200
COMMAND_CHARS = 120
STACKS_S = 2.0
"""Longest wait for the stacks of one process."""


def picture_of(root_pid: int) -> str:
    """The tree below a process and where each thread is in the kernel; never waits.

    For a payload before it is ended: `append_to(log_file, picture_of(launcher_pid))`.
    """
    processes = tree_of(root_pid)
    lines = [*tree_lines(processes), ""]
    for process in processes[:MOST_PROCESSES]:
        lines += kernel_lines(process.pid)
    return "\n".join(lines) + "\n"


def picture_of_pilot(supervisor_pid: int, runtime: Path) -> str:
    """The tree of a pilot, the stacks of its own processes, and the kernel's view of the others."""
    processes = tree_of(supervisor_pid)
    lines = [*tree_lines(processes), ""]
    for process in processes[:MOST_PROCESSES]:
        own = supervisor_pid in (process.pid, process.ppid)
        text = stacks.ask_for_stacks(runtime, process.pid, timeout_s=STACKS_S) if own else ""
        if text:
            lines += [heading(process.pid), *text.rstrip().splitlines(), ""]
        else:
            lines += kernel_lines(process.pid)
    return "\n".join(lines) + "\n"


def append_to(log_file: Path, title: str, text: str) -> None:
    """Put a picture into the pilot's log, in one write, so that log lines do not mix with it.

    Errors: `OSError`.
    """
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with log_file.open("ab", buffering=0) as file:
        file.write(f"---- {stamp} {title}\n{text}---- end of {title}\n".encode())


def tree_of(root_pid: int) -> list[Process]:
    """A process and all below it, each parent before its children; empty when it is gone."""
    root = look_up(root_pid)
    if root is None:
        return []
    children: dict[int, list[Process]] = {}
    for process in sorted(descendants(root_pid), key=lambda each: each.pid):
        children.setdefault(process.ppid, []).append(process)
    return list(walk(root, children))


def walk(root: Process, children: Mapping[int, list[Process]]) -> Iterator[Process]:
    """Depth first, without recursion: a payload may fork a chain as deep as it likes."""
    waiting = [root]
    seen = set()
    while waiting:
        process = waiting.pop()
        if process.pid not in seen:
            seen.add(process.pid)
            yield process
            waiting += reversed(children.get(process.pid, []))


def tree_lines(
    processes: list[Process], command_of: Callable[[int], str] = stacks.command_of
) -> list[str]:
    """One line per process: pid, state, CPU time, memory, threads, command."""
    depth: dict[int, int] = {}
    lines = [f"{'pid':>8} {'state':5} {'cpu s':>9} {'MiB':>8} {'threads':>7}  command"]
    for process in processes[:MOST_PROCESSES]:
        level = depth[process.pid] = depth.get(process.ppid, -1) + 1
        command = command_of(process.pid)[:COMMAND_CHARS]
        lines.append(
            f"{process.pid:>8} {process.state:5} {process.cpu_s:>9.2f} "
            f"{process.rss_bytes / 2**20:>8.1f} {process.threads:>7}  {'  ' * level}{command}"
        )
    if len(processes) > MOST_PROCESSES:
        lines.append(f"... and {len(processes) - MOST_PROCESSES} more")
    return lines


def heading(pid: int) -> str:
    """The line before the stacks of a process."""
    return f"process {pid}: {stacks.command_of(pid)[:COMMAND_CHARS]}"


def kernel_lines(pid: int) -> list[str]:
    """Where the threads of a process are in the kernel."""
    threads = stacks.kernel_view(pid)
    if not threads:
        return []
    lines = [heading(pid)]
    for thread in threads:
        where = f", waits in {thread.waits_in}" if thread.waits_in else ""
        lines.append(f"  thread {thread.tid} {thread.name}: {thread.state}{where}")
        lines += [f"    {frame}" for frame in thread.stack]
    return [*lines, ""]
