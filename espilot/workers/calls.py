"""Slow calls (HTTP, disk, storage) in a few threads, their results back in the loop's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from espilot.adapters.loop import Loop, Wakeup
from espilot.errors import EspilotError

T = TypeVar("T")


class Calls:
    """Runs functions beside the loop; the loop never waits for one."""

    def __init__(self, loop: Loop, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._wakeup = Wakeup()
        self._ended: deque[tuple[Future[Any], Callable[[Any], None], Callable[..., None]]] = deque()
        self._loop = loop
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
        future = self._pool.submit(call)
        future.add_done_callback(lambda ended: self._note(ended, then, failed))

    def close(self) -> None:
        """Take no more calls and do not wait for those that run."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._loop.forget(self._wakeup.fd)

    def _note(
        self, future: Future[Any], then: Callable[[Any], None], failed: Callable[..., None]
    ) -> None:
        self._ended.append((future, then, failed))
        self._wakeup.ring()

    def _deliver(self) -> None:
        self._wakeup.clear()
        while self._ended:
            future, then, failed = self._ended.popleft()
            if future.cancelled():
                continue
            error = future.exception()
            if isinstance(error, EspilotError):
                failed(error)
            elif error is not None:
                raise error
            else:
                then(future.result())
