"""What is done about a client that hangs: a picture for people, TERM, KILL, the payload.

* Only a process that descends from the payload's launcher is ever touched, with what is below it.
* The payload's main process cannot end alone, nor can a client whose process is not known: then the
  payload ends, and starts again if it may.
* Its range comes back when the client is seen to be gone; the other clients go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from espilot.adapters.loop import Loop
from espilot.adapters.proctree import Process, descendants, is_same, signal_all
from espilot.core.hang import Held
from espilot.core.payload_life import Event, Life
from espilot.logs import Log
from espilot.supervisor.dump import append_to, picture_of
from espilot.supervisor.keeper import PayloadKeeper
from espilot.supervisor.monitor import Monitor
from espilot.wire.messages import Overdue
from espilot.workers.context import Context

TERM, KILL, CONTINUE = 15, 9, 18
STUBBORN_S = 10.0
"""So long after KILL a process may take to be gone."""


class Escalation:
    """Ends clients that hang, each once."""

    def __init__(
        self, context: Context, payload: PayloadKeeper, monitor: Monitor, log: Log, loop: Loop
    ) -> None:
        self._payload = payload
        self._monitor = monitor
        self._log = log
        self._log_file = context.log_file
        self._loop = loop
        self._grace_s = context.settings.payload.term_grace_s
        self._dealt_with: set[tuple[int, int]] = set()

    def overdue(self, overdue: Overdue) -> None:
        """A client holds a range too long."""
        payload = self._payload.process
        known = (overdue.epoch, overdue.pid) in self._dealt_with
        running = self._payload.life is Life.RUNNING
        if payload is None or overdue.epoch != payload.epoch or not running or known:
            return
        # Numbers of processes are used again, but hardly within one start of a payload.
        self._dealt_with = {each for each in self._dealt_with if each[0] == overdue.epoch}
        self._dealt_with.add((overdue.epoch, overdue.pid))
        self._monitor.record(
            Held(str(overdue.pid), overdue.range_id, overdue.held_s, overdue.limit_s).verdict()
        )
        launcher = payload.child.pid
        self._take_picture(launcher)
        family = family_of(overdue.pid, launcher)
        if not family:
            self._end_payload(f"client {overdue.pid} is not a process that could end alone")
            return
        self._log.warning("kill", "client hangs, TERM", pid=overdue.pid, processes=len(family))
        signal_all(family, TERM)
        # A stopped process takes the TERM only when it goes on.
        signal_all(family, CONTINUE)
        self._loop.call_later(self._grace_s, partial(self._kill, family, launcher))

    def _take_picture(self, launcher: int) -> None:
        try:
            append_to(self._log_file, "payload whose client hangs", picture_of(launcher))
        except OSError as error:
            self._log.warning("kill", "no picture of the payload", error=error)

    def _kill(self, family: Sequence[Process], launcher: int) -> None:
        left = [process for process in family if is_same(process)]
        if not left:
            return
        below = [child for process in left for child in descendants(process.pid)]
        killed = signal_all([*left, *(child for child in below if child.alive)], KILL)
        self._log.warning("kill", "client hangs on, KILL", pid=family[0].pid, processes=killed)
        self._loop.call_later(STUBBORN_S, partial(self._give_up, left))

    def _give_up(self, family: Sequence[Process]) -> None:
        left = [process.pid for process in family if is_same(process)]
        if left:
            self._end_payload(f"processes {left} do not end")

    def _end_payload(self, reason: str) -> None:
        self._log.warning("kill", "the payload is ended", reason=reason)
        self._payload.blame()
        self._payload.handle(Event.STOP)


def family_of(pid: int, launcher: int) -> tuple[Process, ...]:
    """A client's process and all below it, itself first; empty when it cannot end alone.

    That is when it is no descendant of the launcher, or the payload's main process, which is the
    launcher's child and was so from the beginning (the others have come to it as orphans).
    """
    of_payload = {process.pid: process for process in descendants(launcher)}
    client = of_payload.get(pid)
    main = min(
        (process for process in of_payload.values() if process.ppid == launcher),
        key=lambda process: (process.start_ticks, process.pid),
        default=None,
    )
    if client is None or not client.alive or main is None or pid == main.pid:
        return ()
    below = [process for process in descendants(pid) if process.alive]
    return (client, *below)
