"""What processes are doing just now: stacks of our own, the kernel's view of any.

Each process of the pilot makes itself ready with `StackFile`; whoever wants its stacks sends it
`DUMP_SIGNAL`, and its interpreter writes them from the signal handler, even when its loop stands
still. A process that is not ready would die of the signal, so it is only sent where it is caught.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

DUMP_SIGNAL = signal.SIGRTMIN + 2
"""A real-time signal, because batch systems send none of those."""
LOOK_EVERY_S = 0.05
MOST_THREADS = 16
_MOST_BYTES = 1 << 20


class StackFile:
    """Makes this process write its stacks when it is asked; `close` ends that."""

    def __init__(self, runtime: Path) -> None:
        """Errors: `OSError` when the file cannot be made."""
        path = stack_path(runtime, os.getpid())
        self._file = path.open("wb", buffering=0)
        faulthandler.register(DUMP_SIGNAL, file=self._file, all_threads=True, chain=False)

    def close(self) -> None:
        """Be deaf to the signal; dying of it would be worse."""
        faulthandler.unregister(DUMP_SIGNAL)
        signal.signal(DUMP_SIGNAL, signal.SIG_IGN)
        self._file.close()


def stack_path(runtime: Path, pid: int) -> Path:
    """Where a process writes its stacks."""
    return runtime / f"stacks-{pid}"


def ask_for_stacks(runtime: Path, pid: int, *, timeout_s: float) -> str:
    """The stacks of a process of the pilot, newest call first; "" when it gives none in time.

    A stopped process writes them when it goes on.
    """
    path = stack_path(runtime, pid)
    try:
        before = path.stat().st_size
        if not catches(pid, DUMP_SIGNAL):
            return ""
        os.kill(pid, DUMP_SIGNAL)
        _wait_until_written(path, before, timeout_s)
        with path.open("rb") as file:
            file.seek(before)
            return file.read(_MOST_BYTES).decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _wait_until_written(path: Path, before: int, timeout_s: float) -> None:
    # Nobody tells when another process's signal handler is through: it is when nothing more comes.
    deadline = time.monotonic() + timeout_s
    last = before
    while time.monotonic() < deadline:
        select.select((), (), (), LOOK_EVERY_S)
        size = path.stat().st_size
        if size == last and size > before:
            return
        last = size


def catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler for a signal."""
    mask = _status(f"/proc/{pid}/status").get("SigCgt", "0")
    return bool(int(mask, 16) >> (signum - 1) & 1)


@dataclass(frozen=True, slots=True)
class KernelView:
    """What the kernel tells of a thread.

    `waits_in` is the kernel function it sleeps in, `stack` all of them (only root may read it).
    """

    tid: int
    name: str
    state: str
    waits_in: str
    stack: tuple[str, ...]


def kernel_view(pid: int) -> tuple[KernelView, ...]:
    """The threads of a process, the first `MOST_THREADS`; empty when it is gone."""
    try:
        tids = sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return ()
    return tuple(_view(f"/proc/{pid}/task/{tid}", tid) for tid in tids[:MOST_THREADS])


def command_of(pid: int) -> str:
    """The command line of a process on one printable line; its name when it has none."""
    words = _read(f"/proc/{pid}/cmdline").rstrip("\0").replace("\0", " ")
    text = words or f"[{_read(f'/proc/{pid}/comm').strip()}]"
    return "".join(c if c.isprintable() else "?" for c in text)


def _view(directory: str, tid: int) -> KernelView:
    status = _status(f"{directory}/status")
    frames = [line.partition("] ")[2] for line in _read(f"{directory}/stack").splitlines()]
    waits_in = _read(f"{directory}/wchan").strip()
    return KernelView(
        tid=tid,
        name="".join(c if c.isprintable() else "?" for c in status.get("Name", "")),
        state=status.get("State", "gone"),
        waits_in="" if waits_in == "0" else waits_in,
        stack=tuple(frames),
    )


def _status(path: str) -> dict[str, str]:
    lines = [line.partition(":") for line in _read(path).splitlines()]
    return {name: value.strip() for name, _, value in lines}


def _read(path: str) -> str:
    """A /proc file; "" when the process is gone, or it is not ours to read."""
    try:
        return Path(path).read_bytes()[:65536].decode(errors="replace")
    except OSError:
        return ""
