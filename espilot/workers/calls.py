"""Slow calls (HTTP, disk, storage) in a few threads, their results back in the loop's thread.

A call that hangs does not keep the process from ending: there is a successor that starts anew.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from espilot.adapters.loop import Loop, Wakeup
from espilot.errors import EspilotError

T = TypeVar("T")
Then = Callable[[Any], None]


class Calls:
    """Runs functions beside the loop; the loop never waits for one."""

    def __init__(self, loop: Loop, threads: int) -> None:
        self._most = threads
        self._threads = 0
        self._lock = threading.Lock()
        self._users = 1
        self._open = 0
        self._waiting: SimpleQueue[tuple[Callable[[], Any], Then, Then] | None] = SimpleQueue()
        self._wakeup = Wakeup()
        self._ended: deque[tuple[Any, BaseException | None, Then, Then]] = deque()
        self._loop: Loop | None = loop
        loop.on_readable(self._wakeup.fd, self._deliver)

    def start(
        self,
        call: Callable[[], T],
        *,
        then: Callable[[T], None],
        failed: Callable[[EspilotError], None],
    ) -> None:
        """Run `call` in a thread; then `then(result)` or `failed(error)` in the loop's thread.

        An error that is not ours is a defect: it is raised in the loop's thread.
        """
        self._open += 1
        if self._threads < min(self._open, self._most):
            self._threads += 1
            with self._lock:
                self._users += 1
            threading.Thread(target=self._serve, name=f"call-{self._threads}", daemon=True).start()
        self._waiting.put((call, then, failed))

    def close(self) -> None:
        """Deliver no more results and do not wait for the calls that run."""
        for _ in range(self._threads):
            self._waiting.put(None)
        if self._loop is not None:
            self._loop.forget(self._wakeup.fd)
            self._loop = None
            self._leave()

    def _leave(self) -> None:
        """The last one closes the wake-up: a late call must not ring a foreign descriptor."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._wakeup.close()

    def _serve(self) -> None:
        try:
            self._work()
        finally:
            self._leave()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            call, then, failed = job
            result, error = None, None
            try:
                result = call()
            except Exception as raised:  # noqa: BLE001 - raised again in the loop's thread
                error = raised
            self._ended.append((result, error, then, failed))
            self._wakeup.ring()

    def _deliver(self) -> None:
        self._wakeup.clear()
        while self._ended:
            result, error, then, failed = self._ended.popleft()
            self._open -= 1
            if isinstance(error, EspilotError):
                failed(error)
            elif error is not None:
                raise error
            else:
                then(result)
