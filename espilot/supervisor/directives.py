"""What the supervisor wants of its roles: whole states, sent when they differ from the last."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from espilot.adapters.control import ControlRouter
from espilot.core.deadline import Cause, Horizon
from espilot.core.job import KILLED_BY_SERVER
from espilot.core.payload_life import Life, channel_mode
from espilot.supervisor.keeper import PayloadKeeper
from espilot.wire import envelope
from espilot.wire.messages import Serve, Ship, Used, Work

SHIP_AGE_S = 0.5
"""So long an output waits to be packed while we drain."""
DISPATCHER, EVENT_SERVER, STAGEOUT = "dispatcher", "event-server", "stageout"

Directive = Serve | Work | Ship


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the directives follow from, besides the payload.

    `storage` is `ok`, `behind`, `trouble` or `given-up`; `ending` is why the job ends, or (0, "").
    At a foreign server (`at_server`) the end of one job is no reason to take none.
    """

    panda_id: int
    draining: bool
    storage: str
    ending: tuple[int, str]
    horizon: Horizon = field(default_factory=Horizon)
    at_server: bool = False


class Directives:
    """Tells each role the newest wanted state; a role that was replaced is told it again."""

    def __init__(self, control: ControlRouter) -> None:
        self.drain: Cause | None = None
        self.jobs_taken = 0
        self._since_mono = time.monotonic()
        self._control = control
        self._told: dict[str, Directive] = {}
        self._used: dict[str, Any] = {}

    def forget(self, role: str) -> None:
        """The role has a new process, which knows nothing."""
        self._told.pop(role, None)
        if role == EVENT_SERVER:
            self._used = {}

    def tell_all(self, payload: PayloadKeeper, wanted: Wanted) -> None:
        """Send each role its directive, if it is another one than the role has."""
        directives: dict[str, Directive] = {EVENT_SERVER: self._work_of(payload, wanted)}
        if payload.channel:
            directives[DISPATCHER] = serve_of(payload, wanted)
        if wanted.draining:
            directives[STAGEOUT] = Ship(max_age_s=SHIP_AGE_S)
        for role, directive in directives.items():
            if self._told.get(role) != directive:
                self._told[role] = directive
                self.send(role, directive)

    def _work_of(self, payload: PayloadKeeper, wanted: Wanted) -> Work:
        work = work_of(payload, wanted, self.drain)
        return replace(work, jobs_taken=self.jobs_taken, since_mono=self._since_mono)

    def tell_used(self, totals: dict[str, Any]) -> None:
        """Let the event-server worker know what the payload has used, when that has changed."""
        if totals != self._used:
            self._used = totals
            self.send(EVENT_SERVER, Used(totals))

    def send(self, role: str, message: Any) -> None:
        """Send any message."""
        self._control.send(role, envelope.encode(message))


def serve_of(payload: PayloadKeeper, wanted: Wanted) -> Serve:
    """What the dispatcher shall do."""
    mode, reason = channel_mode(payload.life, draining=wanted.draining, storage=wanted.storage)
    if mode == "settle" and (payload.crashed or payload.killed):
        reason = "crash" if payload.crashed else "killed"
    return Serve(payload.epoch, payload.channel, mode, reason)


def work_of(payload: PayloadKeeper, wanted: Wanted, drain: Cause | None = None) -> Work:
    """What the event-server worker shall do; a reason of the job itself goes before a drain."""
    code, diag = wanted.ending
    ahead = wanted.horizon
    if wanted.at_server:
        jobs = not ahead.over and not ahead.late and wanted.storage == "ok"
    else:
        jobs = not wanted.draining and code in (0, KILLED_BY_SERVER)
    drained = drain is not None and not code
    return Work(
        panda_id=wanted.panda_id,
        fetch=not wanted.draining and not code and wanted.storage == "ok",
        jobs=jobs,
        payload_over=payload.life is Life.OVER,
        code=drain.code if drain is not None and drained else code,
        diag=drain.text if drain is not None and drained else diag,
        drained=drained,
        hurry_s=drain.call_s if drain is not None else 0.0,
        final_by=drain.final_by if drain is not None else 0.0,
        over=ahead.over,
        late=ahead.late,
        end_mono=ahead.end_mono,
    )
