"""How the pilot stands, for people: what only the living supervisor knows, and its part of the
story. Nothing of it decides anything."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from espilot.adapters.loop import Loop
from espilot.adapters.stacks import StackFile
from espilot.adapters.story import NAME, Story
from espilot.core.clocks import Clocks
from espilot.logs import Log
from espilot.model import Counts, Verdict
from espilot.supervisor.keeper import ENDED_WELL
from espilot.supervisor.monitor import Monitor
from espilot.supervisor.outcome import Snapshot
from espilot.supervisor.people import People
from espilot.supervisor.recovery import tell_resumed
from espilot.supervisor.roles import Roles
from espilot.supervisor.statedir import write_atomically
from espilot.wire.messages import Alive, Resumed, StatusAnswer, StatusRequest, StorageHealth
from espilot.workers.context import Context

FLUSH_S = 0.2
LOOK_S = 1.0
"""How often the supervisor looks at everything."""
KEEP_EVERY_S, KEEP_LATEST_S = 2.0, 20.0
KEPT = "standing.json"
"""In the state directory: what was known last, for who looks when nobody answers any more."""
WINDOW_S = 120.0
"""Rates are of so long a time."""
MOST_LOOKS = 150


class Rates:
    """Ranges made and events booked per second, from looks at the counts about once a second."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int, int]] = deque(maxlen=MOST_LOOKS)

    def observe(self, counts: Counts, now: float) -> None:
        """One look."""
        c = counts
        made = c.done + c.packed + c.staged + c.finished
        self._looks.append((now, made, c.events))
        while now - self._looks[0][0] > WINDOW_S:
            self._looks.popleft()

    def facts(self) -> Mapping[str, float]:
        """Rates, and of how long a time."""
        if len(self._looks) < 2 or self._looks[-1][0] <= self._looks[0][0]:
            return {}
        (start, made, events), (now, made_now, events_now) = self._looks[0], self._looks[-1]
        window_s = now - start
        return {
            "window_s": window_s,
            # A range whose output was lost after all counts down.
            "ranges_per_s": max(0, made_now - made) / window_s,
            "events_per_s": max(0, events_now - events) / window_s,
        }


class Standing:
    """Collects, and answers `StatusRequest`; also makes the supervisor show its stacks."""

    def __init__(self, context: Context, log: Log, *, loop: Loop) -> None:
        self._sources: dict[str, Callable[[], Any]] = {}
        self._stacks = StackFile(context.runtime)
        self._rates = Rates()
        self._log = log
        self._loop = loop
        self._story = Story(context.state / NAME, "supervisor", due=self._flush_soon)
        self._started_at = self._told_until = time.time()
        self._health = StorageHealth("ok")
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._ends: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._restarts: Counter[str] = Counter()
        self._last_end: tuple[int, str] = (0, "")
        self._kernel_kills = 0
        self._clocks = Clocks(LOOK_S)
        self._kept = context.state / KEPT
        self._keep_due = self._keep_next = 0.0
        self._kept_moves = -1
        self._look: Callable[[], Snapshot] | None = None

    def show(
        self, people: People, look: Callable[[], Snapshot], monitor: Monitor, roles: Roles
    ) -> None:
        """Answer people with what these know at that moment."""
        self._sources = {
            "verdicts": lambda: verdict_facts(monitor.verdicts),
            "resources": monitor.resources,
            "present": monitor.present,
            "pids": roles.pids,
        }
        self._look = look
        people.on(StatusRequest, lambda _: self._answer(look()))

    def observe(self, counts: Counts, verdicts: Iterable[tuple[float, Verdict]]) -> None:
        """One look a second."""
        now = time.monotonic()
        self._rates.observe(counts, now)
        self._clocks.observe(now, time.time())
        if now >= self._keep_due or (counts.moves != self._kept_moves and now >= self._keep_next):
            self._keep_next, self._keep_due = now + KEEP_EVERY_S, now + KEEP_LATEST_S
            self._kept_moves = counts.moves
            self._keep()
        for at, verdict in verdicts:
            if at > self._told_until:
                self._told_until = at
                self._verdicts[verdict.rule] += 1
                if verdict.rule == "out-of-memory":
                    self._kernel_kills += int(verdict.value)
                self._story.tell(
                    "verdict", (), rule=verdict.rule, text=verdict.text, code=verdict.code
                )

    def heard(self, alive: Alive) -> None:
        """A role told its figures."""
        self._facts[alive.role] = alive.facts

    def storage(self, health: StorageHealth) -> None:
        """The storage is in another state."""
        self._health = health

    def payload_started(self, epoch: int) -> None:
        """Tell the story of a start of the payload."""
        job, how = self._last_end
        if how and job == self._panda_id():
            self._restarts[how] += 1
        self._story.tell("payload-started", (), epoch=epoch)

    def payload_ended(self, epoch: int, how: str) -> None:
        """Tell the story of its end."""
        word = "well" if how == ENDED_WELL else "badly"
        self._ends[word] += 1
        self._last_end = self._panda_id(), word
        self._story.tell("payload-ended", (), epoch=epoch, how=how)

    def resumed(self, resumed: Resumed) -> None:
        """The server was asked about the job that was found."""
        tell_resumed(self._log, resumed)

    def _panda_id(self) -> int:
        return self._look().panda_id if self._look is not None else 0

    def close(self) -> None:
        """Write what is left of the story."""
        self._flush()
        self._stacks.close()

    def _answer(self, snapshot: Snapshot) -> StatusAnswer:
        return StatusAnswer(self.facts(snapshot))

    def facts(self, snapshot: Snapshot) -> dict[str, Any]:
        """All that is known now."""
        facts: dict[str, Any] = {
            "pid": os.getpid(),
            "started_at": self._started_at,
            "run": asdict(snapshot) | {"counts": None, "storage_reason": self._health.reason},
            "rates": dict(self._rates.facts()),
            "payload_ends": dict(self._ends),
            "verdict_counts": dict(self._verdicts),
            "payload_restarts": dict(self._restarts),
            "kernel_kills": self._kernel_kills,
            "clock_jump_s": self._clocks.jumped_s,
            "loop_lag_s": self._clocks.lag_s,
            "roles": {role: dict(each) for role, each in self._facts.items()},
        }
        return facts | {name: ask() for name, ask in self._sources.items()}

    def _keep(self) -> None:
        if self._look is None:
            return
        try:
            write_atomically(self._kept, json.dumps({"t": time.time(), **self.facts(self._look())}))
        except OSError as error:
            # It is for people: a full disk is told by who needs the room.
            self._keep_next += 10 * KEEP_EVERY_S
            self._keep_due += 10 * KEEP_EVERY_S
            self._log.warning("state", "standing not kept", error=error.strerror)

    def _flush_soon(self) -> None:
        self._loop.call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        lost_before = self._story.lost
        if not self._story.flush() and not lost_before:
            self._log.warning("story", "story not written, the pilot goes on without",
                              error=self._story.error)  # fmt: skip


def verdict_facts(verdicts: deque[tuple[float, Verdict]]) -> list[dict[str, Any]]:
    """The last verdicts, oldest first, with their Unix times."""
    return [{"t": at} | asdict(verdict) for at, verdict in verdicts]
