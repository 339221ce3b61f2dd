"""Shows the run to an attendant once a second, and carries out a reload of the settings."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from espilot.config import Settings
from espilot.core.reload import Change
from espilot.model import AtRisk, Counts
from espilot.queue.store import Queue
from espilot.supervisor.directives import Directives
from espilot.supervisor.monitor import Monitor
from espilot.supervisor.observation import ahead_of
from espilot.supervisor.outcome import Snapshot
from espilot.supervisor.roles import Roles
from espilot.supervisor.standing import Standing
from espilot.view.look import Look
from espilot.wire.messages import Stop
from espilot.workers.context import Context

STAGEOUT = "stageout"


class Attendant(Protocol):
    """Who is shown the run once a second, and knows new settings."""

    def look(self, look: Look) -> None:
        """See how it goes."""
        ...

    def reload(self, present: Settings) -> Change | None:
        """Read the settings again; None when they cannot be used."""
        ...

    def reloaded(self) -> None:
        """The new settings are in force, or refused."""
        ...


@dataclass(frozen=True, slots=True)
class Attending:
    """What an attendant sees and may change; without one nothing happens."""

    attendant: Attendant | None
    standing: Standing
    roles: Roles
    monitor: Monitor
    directives: Directives
    queue: Queue

    def look(self, snapshot: Snapshot, counts: Counts, *, closing: bool) -> None:
        """One look."""
        if self.attendant is not None:
            facts, heard = self.standing.facts(snapshot), self.roles.last_heard()
            risk = partial(self._at_risk, ahead_of(facts))
            self.attendant.look(Look(counts, facts, heard, closing, risk))

    def _at_risk(self, ahead: int) -> AtRisk:
        return self.queue.at_risk(time.time(), ahead=ahead)

    def reload(self, context: Context) -> Context:
        """Take new settings; what is in work is not touched."""
        change = None if self.attendant is None else self.attendant.reload(context.settings)
        if change is not None:
            context = replace(context, settings=change.settings)
            self.monitor.take(change.settings)
            if change.stageout and self.roles.renew(STAGEOUT):
                self.directives.send(STAGEOUT, Stop("new settings"))
        if self.attendant is not None:
            self.attendant.reloaded()
        return context
