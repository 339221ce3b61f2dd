"""The same function in several processes, for payloads that use more than one core.

* Processes are forked, so create sockets (`EventRanges`) inside the worker, not before.
* A worker that dies of a signal or ends with a code other than 0 is started again, at most
  `MAX_RESTARTS` times each; the others go on meanwhile.
* SIGTERM goes to every worker and ends the restarts.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from espilot.errors import UsageError

CORES_VARIABLE = "ESPILOT_CORES"
MAX_RESTARTS = 3

_FORWARDED = (signal.SIGTERM, signal.SIGINT)


def run_processes(worker: Callable[[int], None], processes: int | None = None) -> int:
    """Run `worker(index)` in each of N processes and return an exit code when all have ended.

    N is by default what the pilot allows (`ESPILOT_CORES`, else 1). The code is 0 when every worker
    came to a good end, 128 + signal number when we were told to end, else that of a lost worker.
    """
    count = cores() if processes is None else processes
    if count < 1:
        raise UsageError(f"{count} processes: must be at least 1")
    return _Pool(worker).run(count)


def cores() -> int:
    """Return the number of processes that the pilot allows."""
    text = os.environ.get(CORES_VARIABLE, "1")
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{CORES_VARIABLE} is {text[:40]!r}, not a number of processes")
    return int(text)


class _Pool:
    """The parent of the workers."""

    def __init__(self, worker: Callable[[int], None]) -> None:
        self._worker = worker
        self._poll = select.poll()
        self._children: dict[int, tuple[int, int]] = {}  # pidfd: (pid, index)
        self._restarts: dict[int, int] = {}
        self._told_to_end = 0
        self._code = 0

    def run(self, count: int) -> int:
        before = {number: signal.signal(number, self._forward) for number in _FORWARDED}
        try:
            for index in range(count):
                self._start(index)
            while self._children:
                for pidfd, _ in self._poll.poll():
                    self._bury(pidfd)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return 128 + self._told_to_end if self._told_to_end else self._code

    def _start(self, index: int) -> None:
        """Fork one worker. Signals wait meanwhile, so that none misses a child just born."""
        sys.stdout.flush()
        sys.stderr.flush()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
        try:
            if self._told_to_end:
                return
            pid = os.fork()
            if pid == 0:
                self._become_worker(index, mask)
            pidfd = os.pidfd_open(pid)
            self._children[pidfd] = (pid, index)
            self._poll.register(pidfd, select.POLLIN)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _become_worker(self, index: int, mask: set[int]) -> None:
        """Run the worker and end this process; never returns into the parent's frames."""
        for number in _FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # The parent's exit functions are the parent's; only what the worker registers is run here.
        atexit._clear()
        for pidfd in self._children:
            os.close(pidfd)
        code = _outcome(lambda: self._worker(index))
        exit_code = _outcome(atexit._run_exitfuncs)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or exit_code)

    def _bury(self, pidfd: int) -> None:
        pid, index = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(status)
        if code == 0 or self._told_to_end:
            return
        used = self._restarts.get(index, 0)
        how = f"signal {-code}" if code < 0 else f"code {code}"
        if used < MAX_RESTARTS:
            self._restarts[index] = used + 1
            sys.stderr.write(f"payload process {index} ended with {how}; started again\n")
            self._start(index)
        else:
            sys.stderr.write(f"payload process {index} ended with {how}; given up\n")
            self._code = self._code or (128 - code if code < 0 else code)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._told_to_end = number
        for pidfd in self._children:
            signal.pidfd_send_signal(pidfd, number)


def _outcome(call: Callable[[], object]) -> int:
    """Call and return the exit code that an interpreter would end with."""
    try:
        call()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        sys.stderr.write(f"{end.code}\n")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001  (the top of a process)
        traceback.print_exc()
        return 1
    return 0
