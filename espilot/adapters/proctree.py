"""Trees of processes as /proc shows them: who belongs to a payload, what it uses, how it is ended.

A process belongs to a payload when it descends from the launcher, or carries the payload's run id
in its environment (it may have been re-parented when the launcher was killed). Only processes of
our own user are ever returned for killing, never we ourselves, and never an ancestor of ours.
A pid alone is no identity: before a signal is sent, the start time is compared behind a pidfd.

/proc is read directly: one pass over the `stat` files costs a third of the same by psutil, and the
launcher need not load anything to end a tree.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

RUN_ID_VARIABLE = "ESPILOT_RUN_ID"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_READ_BYTES = 65536
_PIDFDS_AT_ONCE = 128
_FULL_PASS_EVERY = 16


@dataclass(frozen=True, slots=True)
class Process:
    """A process at one instant. `pid` and `start_ticks` (since boot) together are its identity.

    `cpu_s` includes its ended and waited-for children. `state` is the letter of /proc (of the main
    thread).
    """

    pid: int
    ppid: int
    state: str
    threads: int
    start_ticks: int
    cpu_s: float
    rss_bytes: int

    @property
    def identity(self) -> tuple[int, int]:
        """What no other process has while the machine runs."""
        return self.pid, self.start_ticks

    @property
    def alive(self) -> bool:
        """Whether it still runs: a zombie does not, unless only its main thread has ended."""
        return self.state not in "ZX" or self.threads > 1


@dataclass(frozen=True, slots=True)
class TreeSample:
    """What a tree uses. `cpu_s` includes ended children; `pids` are its living processes, and
    `wanting` of them have a CPU or a disk, or wait for one."""

    processes: int
    cpu_s: float
    rss_bytes: int
    pids: tuple[int, ...] = ()
    wanting: int = 0


def _read(path: str, limit_bytes: int = _READ_BYTES) -> bytes | None:
    """The head of a /proc file; None when the process is gone or not ours to read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return None
    try:
        return os.read(fd, limit_bytes)
    except (PermissionError, ProcessLookupError):
        return None
    finally:
        os.close(fd)


def look_up(pid: int) -> Process | None:
    """The process `pid` as it is now, zombies included; None when there is none."""
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    # The command name may hold blanks and parentheses: count from the last one.
    fields = stat[stat.rindex(b")") + 2 :].split()
    ticks = int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
    return Process(
        pid=pid,
        ppid=int(fields[1]),
        state=fields[0].decode("ascii"),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
        cpu_s=ticks / _TICKS_PER_S,
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
    )


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _look_up_all(pids: Iterable[int]) -> dict[int, Process]:
    return {pid: process for pid in pids if (process := look_up(pid)) is not None}


def snapshot() -> dict[int, Process]:
    """Every process of the machine by pid, in one pass over /proc."""
    return _look_up_all(_pids())


def _below(processes: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """The pids of `roots` and of everything that descends from them."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def descendants(pid: int) -> tuple[Process, ...]:
    """All descendants of `pid`, zombies and other users' included, `pid` itself not."""
    processes = snapshot()
    below = _below(processes, [pid]) - {pid}
    return tuple(processes[child] for child in below if child in processes)


def carries(pid: int, run_id: str) -> bool:
    """Whether the environment that `pid` was started with names this run; unreadable means no."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:  # noqa: PTH123 - no pathlib here
            environ = stream.read()
    except OSError:
        return False
    return f"{RUN_ID_VARIABLE}={run_id}".encode() in environ.split(b"\0")


def _is_ours(pid: int) -> bool:
    """Whether the real user of `pid` is ours.

    The owner of /proc/PID does not tell: it is root for a process that forbids core dumps.
    """
    status = _read(f"/proc/{pid}/status", 4096) or b""
    for line in status.splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1]) == os.getuid()
    return False


def _ancestors(processes: dict[int, Process], pid: int) -> set[int]:
    """`pid` and all its ancestors."""
    found: set[int] = set()
    while pid in processes and pid not in found:
        found.add(pid)
        pid = processes[pid].ppid
    return found


def carriers(run_id: str) -> tuple[Process, ...]:
    """Own live processes that carry the run id, except ourselves and our ancestors."""
    processes = snapshot()
    spared = _ancestors(processes, os.getpid())
    return tuple(
        process
        for pid, process in processes.items()
        if pid not in spared and process.alive and carries(pid, run_id) and _is_ours(pid)
    )


class TreeFinder:
    """Finds the members of one payload (see `members`) again and again.

    What was looked at is not looked at again: whoever ends a tree that grows must be faster than
    its fork. A finder lives for one ending only, so pids that are used again need no thought.
    """

    def __init__(self, root_pid: int, run_id: str) -> None:
        self._root_pid = root_pid
        self._run_id = run_id
        self._spared = _ancestors(snapshot(), os.getpid())
        self._foreign: set[int] = set()
        self._answers: dict[tuple[int, int, str], bool] = {}

    def find(self) -> tuple[Process, ...]:
        """Those that live now, the youngest first."""
        pids = set(_pids())
        self._foreign &= pids
        processes = _look_up_all(pids - self._foreign)
        roots = [
            each.pid
            for each in processes.values()
            if each.pid not in self._spared and self._ask(self._carries, each)
        ]
        below = _below(processes, [self._root_pid, *roots])
        self._foreign |= processes.keys() - below
        found = [
            each
            for each in processes.values()
            if each.pid in below - self._spared and each.alive and self._ask(_is_ours, each)
        ]
        return tuple(sorted(found, key=lambda each: each.identity[::-1], reverse=True))

    def _ask(self, question: Callable[[int], bool], process: Process) -> bool:
        """Look once whether it carries the run id, or is ours, and remember it."""
        key = (*process.identity, question.__name__)
        if key not in self._answers:
            self._answers[key] = question(process.pid)
        return self._answers[key]

    def _carries(self, pid: int) -> bool:
        return carries(pid, self._run_id)


def members(root_pid: int, run_id: str) -> tuple[Process, ...]:
    """Own live processes of a payload: `root_pid`, the carriers of its run id, and all below them.

    Never ourselves or an ancestor of ours, so a launcher may give its own pid.
    """
    return TreeFinder(root_pid, run_id).find()


class TreeSampler:
    """Measures the tree below one root again and again.

    A process that is not in the tree never gets into it, so most of the machine's processes are
    looked at once; a full pass now and then corrects for pids that were used again.
    """

    def __init__(self, root_pid: int) -> None:
        self._root_pid = root_pid
        self._foreign: set[int] = set()
        self._passes = 0

    def sample(self) -> TreeSample:
        """Measure now: the root and everything below it; zombies count for their CPU time only."""
        if self._passes % _FULL_PASS_EVERY == 0:
            self._foreign = set()
        self._passes += 1
        pids = set(_pids())
        self._foreign &= pids
        processes = _look_up_all(pids - self._foreign)
        below = _below(processes, [self._root_pid])
        self._foreign |= processes.keys() - below
        return _sum([processes[pid] for pid in below if pid in processes])


def _sum(processes: Sequence[Process]) -> TreeSample:
    alive = [process for process in processes if process.alive]
    return TreeSample(
        processes=len(alive),
        cpu_s=sum(process.cpu_s for process in processes),
        rss_bytes=sum(process.rss_bytes for process in alive),
        pids=tuple(process.pid for process in alive),
        wanting=sum(process.state in "RD" for process in alive),
    )


def sample_tree(root_pid: int, run_id: str) -> TreeSample:
    """Measure a payload once. Carriers are looked for only when the root is gone.

    As long as the root (the launcher, a subreaper) lives, everything is below it. For measuring
    again and again `TreeSampler` is cheaper.
    """
    root = look_up(root_pid)
    if root is not None and root.alive:
        return TreeSampler(root_pid).sample()
    return _sum(members(root_pid, run_id))


def _open_verified(process: Process) -> int | None:
    """A pidfd of exactly this process; None when it is gone, even if its pid is in use again."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return None
        raise
    now = look_up(process.pid)
    if now is None or not now.alive or now.identity != process.identity:
        os.close(pidfd)
        return None
    return pidfd


def signal_all(processes: Iterable[Process], signum: int) -> int:
    """Signal each of them if it is still the same process; returns how many got the signal."""
    reached = 0
    for process in processes:
        pidfd = _open_verified(process)
        if pidfd is None:
            continue
        try:
            signal.pidfd_send_signal(pidfd, signum)
            reached += 1
        except (ProcessLookupError, PermissionError):
            continue  # ended just now, or changed its user: not ours any more
        finally:
            os.close(pidfd)
    return reached


def wait_gone(
    processes: Sequence[Process], timeout_s: float, *, wake_fds: Sequence[int] = ()
) -> tuple[Process, ...]:
    """Wait until all have ended (a zombie has), at most `timeout_s`; returns those that live.

    Returns early when one of `wake_fds` becomes readable. Never polls by time: each process is
    watched by its pidfd, a limited number of them at once.
    """
    deadline = time.monotonic() + timeout_s
    for first in range(0, len(processes), _PIDFDS_AT_ONCE):
        batch = processes[first : first + _PIDFDS_AT_ONCE]
        left = _wait_batch(batch, deadline, wake_fds)
        if left:
            rest = processes[first + _PIDFDS_AT_ONCE :]
            return (*left, *(process for process in rest if is_same(process)))
    return ()


def is_same(process: Process) -> bool:
    """Whether the process lives, and its number is not another one's by now."""
    now = look_up(process.pid)
    return now is not None and now.alive and now.identity == process.identity


def _wait_batch(
    batch: Sequence[Process], deadline: float, wake_fds: Sequence[int]
) -> list[Process]:
    poller = select.poll()
    for fd in wake_fds:
        poller.register(fd, select.POLLIN)
    watched: dict[int, Process] = {}
    try:
        for process in batch:
            pidfd = _open_verified(process)
            if pidfd is not None:
                watched[pidfd] = process
                poller.register(pidfd, select.POLLIN)
        _poll_until_gone(poller, watched, deadline)
        return list(watched.values())
    finally:
        for pidfd in watched:
            os.close(pidfd)


def _poll_until_gone(poller: select.poll, watched: dict[int, Process], deadline: float) -> None:
    """Take out of `watched` what ends, until it is empty, the deadline is over, or a wake-up."""
    while watched:
        left_ms = max(0, int((deadline - time.monotonic()) * 1000) + 1)
        ready = [fd for fd, _ in poller.poll(left_ms)]
        for fd in ready:
            if watched.pop(fd, None) is None:
                return
            poller.unregister(fd)
            os.close(fd)
        if time.monotonic() >= deadline:
            return


def kill_until_gone(
    find: Callable[[], Sequence[Process]], timeout_s: float
) -> tuple[int, tuple[Process, ...]]:
    """KILL what `find` returns, all at once, and look again until it finds nothing.

    Who was forked while we looked is killed before anybody is waited for. Returns how many were
    killed, and which live after `timeout_s` (one in uninterruptible sleep cannot be ended).
    """
    deadline = time.monotonic() + timeout_s
    seen: set[tuple[int, int]] = set()
    while found := find():
        if (left_s := deadline - time.monotonic()) <= 0:
            return len(seen), tuple(process for process in found if is_same(process))
        new = [process for process in found if process.identity not in seen]
        seen.update(process.identity for process in new)
        if new:
            signal_all(new, signal.SIGKILL)
        else:
            wait_gone(found, min(left_s, 1.0))
    return len(seen), ()
