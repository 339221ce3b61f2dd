"""One kind of call to the server: at most one under way, with a pause after errors."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from espilot.core.pace import Smoothed
from espilot.core.retry import Backoff
from espilot.errors import EspilotError, ServerRefused
from espilot.histogram import CALLS_S, Histogram
from espilot.ports import EventServer
from espilot.workers.calls import Calls
from espilot.workers.child import Child


class Conversation(Protocol):
    """The worker that a flow belongs to."""

    child: Child
    calls: Calls

    def open_server(self) -> EventServer:
        """A connection of its own for one flow."""
        ...

    def step(self) -> None:
        """Start whatever is due."""
        ...

    def refused(self, flow: str) -> None:
        """The server said a definite no to a call of this flow."""
        ...


class Flow:
    """One kind of call: its own connection, at most one call at a time, back-off after errors."""

    def __init__(self, worker: Conversation, name: str) -> None:
        self.name = name
        self.server = worker.open_server()
        self._worker = worker
        self._busy = False
        self.failures = 0
        self._not_before = 0.0
        self._began = 0.0
        self._duration = Smoothed()
        self._durations = Histogram(CALLS_S)
        self._number = 0
        self._hurry_s = 0.0

    @property
    def due(self) -> bool:
        """Whether a call may start now."""
        return not self._busy and time.monotonic() >= self._not_before

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self._busy

    def call(self, function: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Start a call; `then` gets its result, an error is logged and means a pause."""
        self._busy = True
        self._began = time.monotonic()
        self._number += 1
        self._worker.calls.start(
            function,
            then=partial(self._succeeded, self._number, then),
            failed=partial(self._failed, self._number),
        )

    def hurry(self, call_s: float) -> None:
        """From now on no call takes longer, and pauses are short.

        A call under way that does not end in that time is left behind: what it brings comes too
        late. New connections are to have the same patience by then.
        """
        if self._hurry_s and call_s >= self._hurry_s:
            return
        self._hurry_s = call_s
        # A call under way has its connection; whatever becomes of it, the next one has this.
        self.server = self._worker.open_server()
        if self._busy:
            self._worker.child.loop.call_later(call_s, partial(self._leave, self._number))
        else:
            self.pause(min(max(0.0, self._not_before - time.monotonic()), self._longest_s))

    def pause(self, delay_s: float) -> None:
        """Make no call for a while."""
        self._not_before = time.monotonic() + delay_s
        self._worker.child.loop.call_later(delay_s, self._worker.step)

    def _leave(self, number: int) -> None:
        """A call that began with more patience than there is left."""
        if number != self._number or not self._busy:
            return
        self._number += 1
        self._busy = False
        self.server = self._worker.open_server()
        self._worker.child.log.warning(
            "server", "call left behind", flow=self.name, after_s=time.monotonic() - self._began
        )
        self._worker.step()

    @property
    def _longest_s(self) -> float:
        """The longest pause: several tries must fit before the server gives the job up."""
        server = self._worker.child.settings.server
        longest_s = min(server.retry_max_s, server.lost_after_s / 8)
        if self._hurry_s:
            longest_s = min(longest_s, self._hurry_s / 2)
        return max(server.retry_min_s, longest_s)

    def _succeeded(self, number: int, then: Callable[[Any], None], result: Any) -> None:
        if number != self._number:
            return
        self._busy = False
        self._count("ok")
        self.failures = 0
        self._duration.add(time.monotonic() - self._began)
        self._worker.child.facts[f"{self.name}_s"] = self._duration.value
        if not result:
            self._add("empty")
        then(result)
        self._worker.step()

    def _failed(self, number: int, error: EspilotError) -> None:
        if number != self._number:
            return
        self._busy = False
        self._count("failed")
        self.failures += 1
        longest_s = self._longest_s
        backoff = Backoff(self._worker.child.settings.server.retry_min_s, longest_s)
        delay_s = backoff.next_delay(self.failures, random.random()) or longest_s
        self._worker.child.log.warning("server", "call failed", flow=self.name, error=error,
                                       failures=self.failures, retry_in_s=delay_s)  # fmt: skip
        if isinstance(error, ServerRefused):
            self._worker.refused(self.name)
        self.pause(delay_s)

    def _count(self, result: str) -> None:
        """Calls by flow and result, for metrics; `contacts`: the server was tried."""
        facts = self._worker.child.facts
        facts["contacts"] = facts.get("contacts", 0) + 1
        self._durations.add(time.monotonic() - self._began)
        facts.setdefault("call_times", {})[self.name] = self._durations.facts()
        self._add(result)
        if result == "ok":
            facts["last_success_at"] = time.time()

    def _add(self, result: str) -> None:
        facts, name = self._worker.child.facts, f"calls_{self.name}_{result}"
        facts[name] = facts.get(name, 0) + 1
