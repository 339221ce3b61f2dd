"""Signals as a readable descriptor: handlers do nothing, the loop does the work."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

CAUGHT = (
    signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU,
    signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP,
)  # fmt: skip
FAULTS = (signal.SIGBUS, signal.SIGSEGV)
"""Wrappers forward these too. A handler for them would run for ever after a fault of our own; so
they are blocked and waited for: one that was sent is heard, a fault still ends the process."""


class Signals:
    """Catches what a pilot must hear, even if its starter had it ignored; but a hang-up that is
    ignored (nohup) stays so."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._former_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._former = {number: signal.signal(number, ignore) for number in caught()}
        self._former_mask = signal.pthread_sigmask(signal.SIG_BLOCK, FAULTS)
        self._closing = threading.Event()
        self._waiter = threading.Thread(target=self._wait_for_faults, name="signals", daemon=True)
        self._waiter.start()

    def take(self) -> list[int]:
        """The signals since the last time. SIGCHLD stands for any number of children."""
        try:
            return list(os.read(self.fd, 4096))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Put the former handlers back."""
        self._closing.set()
        assert self._waiter.ident is not None
        signal.pthread_kill(self._waiter.ident, FAULTS[0])
        self._waiter.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._former_mask)
        signal.set_wakeup_fd(self._former_fd)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write_fd)

    def _wait_for_faults(self) -> None:
        while True:
            number = signal.sigwait(FAULTS)
            if self._closing.is_set():
                return
            os.write(self._write_fd, bytes([number]))


def caught() -> list[int]:
    """The signals to catch."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in CAUGHT if number != signal.SIGHUP or not nohup]


def ignore(signum: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has it already."""
