"""Signals as a readable descriptor: handlers do nothing, the loop does the work."""

from __future__ import annotations

import os
import signal
from types import FrameType

CAUGHT = (
    signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU,
    signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP,
)  # fmt: skip


class Signals:
    """Catches what a pilot must hear, even if its starter had it ignored; but a hang-up that is
    ignored (nohup) stays so."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._former_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._former = {number: signal.signal(number, ignore) for number in caught()}

    def take(self) -> list[int]:
        """The signals since the last time. SIGCHLD stands for any number of children."""
        try:
            return list(os.read(self.fd, 4096))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Put the former handlers back."""
        signal.set_wakeup_fd(self._former_fd)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write_fd)


def caught() -> list[int]:
    """The signals to catch."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in CAUGHT if number != signal.SIGHUP or not nohup]


def ignore(signum: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has it already."""
