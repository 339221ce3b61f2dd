"""One poller per process: sockets, file descriptors, deadlines; no sleep, no timed polling."""

from __future__ import annotations

import heapq
import itertools
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import zmq

Callback = Callable[[], None]


class Timer:
    """A callback due at a time; cancelled by forgetting the callback."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callback) -> None:
        self.due = due
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Never call it."""
        self.callback = None


class Loop:
    """Calls back when a source is readable or a deadline has come. All times are monotonic."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._readers: dict[Any, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._running = False

    def on_readable(self, source: Any, callback: Callback) -> None:
        """Call back whenever a ZeroMQ socket or a file descriptor is readable."""
        self._readers[source] = callback
        self._poller.register(source, zmq.POLLIN)

    def forget(self, source: Any) -> None:
        """Stop watching a source."""
        if self._readers.pop(source, None) is not None:
            self._poller.unregister(source)

    def call_at(self, due: float, callback: Callback) -> Timer:
        """Call back once at a monotonic time."""
        timer = Timer(due, callback)
        heapq.heappush(self._timers, (due, next(self._numbers), timer))
        return timer

    def call_later(self, delay_s: float, callback: Callback) -> Timer:
        """Call back once after a delay."""
        return self.call_at(time.monotonic() + delay_s, callback)

    def every(self, period_s: float, callback: Callback) -> None:
        """Call back again and again, a period after each call."""

        def again() -> None:
            self.call_later(period_s, again)
            callback()

        self.call_later(period_s, again)

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            self.turn()

    def turn(self) -> None:
        """Wait for the next source or deadline and serve it."""
        ready, readers = self._poller.poll(self._timeout_ms()), self._readers
        for source, callback in [(source, readers.get(source)) for source, _ in ready]:
            # Meanwhile a descriptor may have been closed, and its number be another source's.
            if callback is not None and readers.get(source) is callback:
                callback()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                timer.callback()

    def stop(self) -> None:
        """Leave `run` after this turn."""
        self._running = False

    def _timeout_ms(self) -> int | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        # Rounded up: waking a fraction of a millisecond early would turn the loop in vain.
        return max(0, int((self._timers[0][0] - time.monotonic()) * 1000) + 1)


class Wakeup:
    """Lets another thread wake the loop: an eventfd."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """Make the descriptor readable; callable from any thread."""
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Make it unreadable again."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
