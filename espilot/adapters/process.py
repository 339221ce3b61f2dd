"""Starting, signalling and reaping of child processes (Linux).

Death of a parent is told twice: by a death pipe, whose write end is open in the supervisor only,
and by the kernel's parent-death signal, which also reaches a child that is stopped.
The payload's launcher stands on this module and must stay small: what is not needed at rest
(subprocess) is imported where it is used, and `Child` is a plain class.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time

from espilot.errors import LocalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, argument: int) -> None:
    """Call prctl(2); LocalError when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        raise LocalError(f"prctl({option}, {argument}): {os.strerror(ctypes.get_errno())}")


def set_parent_death_signal(signum: int) -> None:
    """Have the kernel send us `signum` when the thread that started us ends; 0 switches it off."""
    _prctl(_PR_SET_PDEATHSIG, int(signum))


def become_subreaper() -> None:
    """Become the parent of every orphan among our descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def pidfd_open(pid: int) -> int | None:
    """A close-on-exec file descriptor for the process `pid`; None when there is none."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        raise LocalError(f"cannot watch process {pid}: {error.strerror}") from error


def send_signal(pidfd: int, signum: int) -> bool:
    """Signal the process behind `pidfd`; False when it is gone or not ours."""
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def join_group(group: str) -> bool:
    """Move this process into a control group; False when that cannot be."""
    try:
        fd = os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(fd, b"0") == 1
    except OSError:
        return False
    finally:
        os.close(fd)


def reset_signals() -> None:
    """Give every signal its default disposition and unblock all of them.

    What started us may have handed over ignored signals (a shell's background job ignores SIGINT
    and SIGQUIT, Python itself ignores SIGPIPE), and exec keeps them ignored.
    """
    for signum in signal.valid_signals():
        if signum in (signal.SIGKILL, signal.SIGSTOP):
            continue
        if signal.getsignal(signum) is not signal.SIG_DFL:
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def signal_name(signum: int) -> str:
    """`SIGKILL (9)`; a real-time signal without a name is `signal 40`."""
    try:
        return f"{signal.Signals(signum).name} ({signum})"
    except ValueError:
        return f"signal {signum}"


def describe_exit(code: int) -> str:
    """What a `waitstatus_to_exitcode` value says: `exit code 3`, `killed by SIGKILL (9)`."""
    return f"killed by {signal_name(-code)}" if code < 0 else f"exit code {code}"


class DeathPipe:
    """A pipe that reads end-of-file when the process that made it is dead.

    Both ends are close-on-exec: a child gets `read_fd` through `pass_fds` and nobody else anything.
    """

    __slots__ = ("_write_fd", "read_fd")

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)

    def close(self) -> None:
        """Close both ends; who holds the read end learns of it. Harmless when repeated."""
        for fd in (self.read_fd, self._write_fd):
            if fd >= 0:
                os.close(fd)
        self.read_fd = self._write_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def is_dead(death_fd: int) -> bool:
    """Whether the other end of the death pipe is closed."""
    poller = select.poll()
    poller.register(death_fd, select.POLLIN)
    return bool(poller.poll(0))


def guard_against_orphanhood(parent_pid: int, death_fd: int) -> None:
    """Make sure that we do not outlive our parent; LocalError when it is gone already.

    To be called at the start of a worker, from its main thread. The parent may die between our exec
    and the call of prctl: hence the look at the parent's pid afterwards.
    """
    set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent_pid or is_dead(death_fd):
        raise LocalError(f"the supervisor (process {parent_pid}) is gone")


class Child:
    """A process that we started.

    Its pid is valid until `reap` returned it, its pidfd until `close`; `started_at` is Unix time.
    """

    __slots__ = ("pid", "pidfd", "started_at")

    def __init__(self, pid: int, pidfd: int, started_at: float) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.started_at = started_at

    def __repr__(self) -> str:
        return f"Child(pid={self.pid})"

    def signal(self, signum: int) -> bool:
        """Signal exactly this process, whoever has its pid by now; False when it is gone."""
        return self.pidfd >= 0 and send_signal(self.pidfd, signum)

    def close(self) -> None:
        """Close the pidfd; harmless when repeated. The process lives on."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> Child:
    """Start `argv` in a session of its own with exactly the environment `env`, stdin empty.

    `stdout` and `stderr` are file descriptors (None: ours). LocalError when it cannot be started.
    To be called from the main thread: the parent-death signal follows the thread that spawned.
    """
    import subprocess  # the launcher never spawns: it need not carry this

    try:
        started = subprocess.Popen(
            list(argv),
            env=dict(env),
            pass_fds=tuple(pass_fds),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except OSError as error:
        raise LocalError(f"cannot start {argv[0]}: {error.strerror}") from error
    # Only reap() waits for children. Popen is let go with a return code, else it would warn of a
    # child nobody waited for.
    started.returncode = 0
    # Unreaped, so the pid cannot be anybody else's: a pidfd is always to be had.
    return Child(started.pid, os.pidfd_open(started.pid), time.time())


def reap() -> list[tuple[int, int]]:
    """Collect every child that has ended: (pid, exit code; a negative one is a signal's number)."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))
