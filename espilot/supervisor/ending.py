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

    @property
    def begun(self) -> bool:
        """Whether the run is being closed."""
        return self.outcome is not None

    def begin(self, outcome: Outcome) -> None:
        """Stop everything, then leave the loop."""
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
                self._loop.call_later(STOP_S, partial(self._roles.kill, name))
                return
        self._loop.stop()
