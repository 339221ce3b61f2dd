"""Signals before the supervisor listens: some arrive ignored, none may be lost.

A wrapper's shell starts its pilot with SIGINT and SIGQUIT ignored, and Python then leaves them so.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

HEARD = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


class Ended(Exception):
    """A signal came before anything was started."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class EarlySignals:
    """Until `hand_over` a signal ends the pilot; after it signals are noted, for `resend`."""

    def __init__(self) -> None:
        self._noting = False
        self._noted: list[int] = []
        for number in HEARD:
            signal.signal(number, self._handle)

    def hand_over(self) -> None:
        """Something is about to be started which must not be broken off."""
        self._noting = True

    def resend(self) -> None:
        """Now others listen: what came in between comes again."""
        noted, self._noted = self._noted, []
        for number in noted:
            os.kill(os.getpid(), number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._noting:
            self._noting = True
            raise Ended(number)
        self._noted.append(number)
