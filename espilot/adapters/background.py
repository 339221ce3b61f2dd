"""Measurements that may hang (a dead network disk, a process that the kernel holds): in a thread.

The owner starts one call at a time and takes its result later; it never waits. A thread that hangs
for ever does not keep the process from ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """One thread for one kind of measurement."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], T] | None] = SimpleQueue()
        self._results: SimpleQueue[T | BaseException] = SimpleQueue()
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def start(self, call: Callable[[], T]) -> bool:
        """Have `call` made; False when the one before has not ended or was not taken."""
        if self._busy_since is not None:
            return False
        self._busy_since = time.monotonic()
        self._calls.put(call)
        return True

    def take(self) -> T | None:
        """The result, once; None when there is none yet. Raises what the call raised."""
        if self._results.empty():
            return None
        result = self._results.get()
        self._busy_since = None
        if isinstance(result, BaseException):
            raise result
        return result

    def busy_s(self, now_mono: float) -> float:
        """For how long the present call runs; 0 when there is none."""
        return 0.0 if self._busy_since is None else now_mono - self._busy_since

    def close(self, timeout_s: float = 1.0) -> bool:
        """End the thread after its present call; returns whether it ended in time."""
        self._calls.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                self._results.put(call())
            except Exception as error:  # noqa: BLE001 - raised again where it is taken
                self._results.put(error)
