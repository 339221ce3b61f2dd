"""The server is told when this worker of a Harvester starts and when it ends, once each.

That helps those who watch; a server that refuses, fails or hangs changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from espilot.errors import EspilotError
from espilot.ports import EventServer
from espilot.wire.messages import TaskOver, Work
from espilot.workers.calls import Calls
from espilot.workers.child import Child

LONGEST_S = 5.0
"""So long the end waits for the server to hear of it."""


class Presence:
    """What is told of the worker, if it is one. `open_server` gives a connection of its own."""

    def __init__(self, child: Child, calls: Calls, open_server: Callable[[], EventServer]) -> None:
        self._child = child
        self._calls = calls
        self._open_server = open_server
        known = child.settings.identity
        # Who only ends what was found is not that worker.
        self._wanted = bool(known.harvester_id and known.worker_id) and known.tell_worker
        self._wanted = self._wanted and child.context.jobs
        self._told: list[str] = []
        self._over: TaskOver | None = None
        self._said = False

    def begin(self) -> None:
        """The worker is here."""
        self._tell("started", lambda: None)

    def end(self, over: TaskOver, work: Work | None) -> None:
        """No further job is taken: the supervisor hears it when the server has, or cannot."""
        self._over = over
        if not self._wanted or self._said:
            self._child.send(over)
            return
        if self._tell("finished", self._say):
            hurry_s = work.hurry_s if work is not None else 0.0
            self._child.loop.call_later(min(hurry_s or LONGEST_S, LONGEST_S), self._say)

    def _say(self) -> None:
        if not self._said and self._over is not None:
            self._said = True
            self._child.send(self._over)

    def _tell(self, state: str, then: Callable[[], None]) -> bool:
        """Tell the server, unless it was told; True when that is under way now."""
        if not self._wanted or state in self._told:
            return False
        self._told.append(state)

        def done(nothing: None) -> None:
            self._child.log.info("server", "worker state told", state=state)
            then()

        def failed(error: EspilotError) -> None:
            self._child.log.warning("server", "worker state not told", state=state, error=error)
            then()

        server = self._open_server()
        self._calls.start(lambda: server.update_worker(state), then=done, failed=failed)
        return True
