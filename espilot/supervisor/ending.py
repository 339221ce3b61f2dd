"""The end of a run: the payload and all roles are stopped, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from espilot.adapters.archive import manifest_path
from espilot.adapters.loop import Loop
from espilot.core.restart import stop_order
from espilot.errors import LocalError
from espilot.logs import Log
from espilot.model import ArchiveState
from espilot.queue.store import Queue
from espilot.supervisor.keeper import PayloadKeeper
from espilot.supervisor.outcome import Outcome
from espilot.supervisor.roles import STOP_S, Roles
from espilot.supervisor.spare import spare
from espilot.wire.messages import Stop
from espilot.workers.context import Context

HURRY_S = 0.5
"""So long a role may take to end when there is no time."""


def complete(outcome: Outcome, context: Context, queue: Queue, log: Log) -> None:
    """When all roles have ended: the last counts, and what is not shipped is spared."""
    outcome.complete(queue.counts())
    remove_reported(context, queue, log)
    if not context.settings.recovery_dir:
        return
    try:
        target = spare(context, queue)
    except LocalError as error:
        log.error("spare", "archives not spared", error=error)
        return
    if target is not None:
        log.warning("spare", "archives spared", to=target)
        text = f"archives that wait for the storage are in {target}, for espilot recover"
        outcome.reason = f"{outcome.reason}; {text}" if outcome.reason else text


def remove_reported(context: Context, queue: Queue, log: Log) -> None:
    """Remove archives that the stage-out worker had no time to remove after their report."""
    for archive in queue.archives(ArchiveState.REPORTED):
        path = context.archives / archive.name
        try:
            for file in (path, manifest_path(path)):
                file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("delete", "reported archive not deleted", name=archive.name, error=error)


class Closing:
    """Once begun it goes to its end; the first outcome counts."""

    def __init__(
        self, roles: Roles, payload: PayloadKeeper, *, loop: Loop, send: Callable[[str, Stop], None]
    ) -> None:
        self.outcome: Outcome | None = None
        self._roles = roles
        self._payload = payload
        self._loop = loop
        self._send = send
        self._patience_s = STOP_S

    @property
    def begun(self) -> bool:
        """Whether the run is being closed."""
        return self.outcome is not None

    def begin(self, outcome: Outcome, *, patience_s: float = STOP_S) -> None:
        """Stop everything, then leave the loop; a role that does not end in its time is killed."""
        self._patience_s = min(self._patience_s, patience_s)
        if self._patience_s < STOP_S:
            self._payload.kill()
        if self.begun:
            return
        self.outcome = outcome
        self.go_on()

    def go_on(self) -> None:
        """Stop the next in stop order; when none is left, leave. Called again at each death."""
        payload = self._payload.process
        if payload is not None:
            if payload.kill_at is None:
                payload.terminate(time.monotonic())
            return
        running = [name for name in stop_order() if self._roles.unwant(name)]
        # One after the other, so that each can hand over; without time all at once.
        for name in running if self._patience_s < STOP_S else running[:1]:
            self._send(name, Stop())
            self._roles.terminate(name)
            self._loop.call_later(self._patience_s, partial(self._roles.kill, name))
        if not running:
            self._loop.stop()
