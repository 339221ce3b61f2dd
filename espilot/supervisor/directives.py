"""What the supervisor wants of its roles: whole states, sent when they differ from the last."""

from __future__ import annotations

from typing import Any

from espilot.adapters.control import ControlRouter
from espilot.core.payload_life import Life, channel_mode
from espilot.supervisor.keeper import PayloadKeeper
from espilot.wire import envelope
from espilot.wire.messages import Serve, Work

KILLED_BY_SERVER = 1237
"""Pilot error code of a job that the server ordered to be killed; it concerns that job alone."""

Directive = Serve | Work


class Directives:
    """Tells each role the newest wanted state; a role that was replaced is told it again."""

    def __init__(self, control: ControlRouter) -> None:
        self._control = control
        self._told: dict[str, Directive] = {}

    def forget(self, role: str) -> None:
        """The role has a new process, which knows nothing."""
        self._told.pop(role, None)

    def tell(self, role: str, directive: Directive) -> None:
        """Send a directive, if it is another one than the role has."""
        if self._told.get(role) != directive:
            self._told[role] = directive
            self.send(role, directive)

    def send(self, role: str, message: Any) -> None:
        """Send any message."""
        self._control.send(role, envelope.encode(message))


def wanted_channel(payload: PayloadKeeper, *, draining: bool, storage: str) -> Serve | None:
    """What the dispatcher shall do; None before the first channel."""
    if not payload.channel:
        return None
    mode, reason = channel_mode(payload.life, draining=draining, storage=storage)
    return Serve(payload.epoch, payload.channel, mode, reason)


def wanted_work(
    panda_id: int, payload: PayloadKeeper, *, draining: bool, storage: str, ending: tuple[int, str]
) -> Work:
    """What the event-server worker shall do; `ending` is why the job ends, or (0, "")."""
    code, diag = ending
    return Work(
        panda_id=panda_id,
        fetch=not draining and not code and storage == "ok",
        jobs=not draining and code in (0, KILLED_BY_SERVER),
        payload_over=payload.life is Life.OVER,
        code=code,
        diag=diag,
    )
