"""The end of a run: the payload and all roles are stopped, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from espilot.adapters.loop import Loop
from espilot.core.restart import stop_order
from espilot.supervisor.keeper import PayloadKeeper
from espilot.supervisor.outcome import Outcome
from espilot.supervisor.roles import STOP_S, Roles
from espilot.wire.messages import Stop

HURRY_S = 0.5
"""So long a role may take to end when there is no time."""


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
        for name in stop_order():
            if self._roles.unwant(name):
                self._send(name, Stop())
                self._roles.terminate(name)
                self._loop.call_later(self._patience_s, partial(self._roles.kill, name))
                return
        self._loop.stop()
