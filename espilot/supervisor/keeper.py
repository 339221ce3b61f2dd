"""Keeps the payload of a job: its starts one after the other, by `core/payload_life.py`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from espilot.adapters import process
from espilot.adapters.loop import Loop
from espilot.adapters.state_files import read_job, read_outcome
from espilot.core.payload_life import Effect, Event, Life, handle
from espilot.core.restart import PAYLOAD, RULES, Died, GiveUp, RestartCounter, Started
from espilot.errors import EspilotError, LocalError
from espilot.logs import Log
from espilot.model import Verdict
from espilot.supervisor.payload import PayloadProcess
from espilot.supervisor.payload_group import GroupMaker, PayloadGroup
from espilot.supervisor.statedir import note_channel
from espilot.wire.messages import Settled
from espilot.workers.context import Context

ENDED_WELL = process.describe_exit(0)
LATE_S = 2.0
CHANNEL_PREFIX = "EventService_EventRanges-"


class PayloadKeeper:
    """Starts, stops and restarts the payload of the current job.

    `changed` is called when the channel shall be in another state; `cannot_start` when the payload
    is given up, with the reason.
    """

    def __init__(
        self,
        context: Callable[[], Context],
        *,
        log: Log,
        loop: Loop,
        death_fd: int,
        epoch: int,
    ) -> None:
        self.life = Life.IDLE
        self.epoch = epoch
        self.channel = ""
        self.process: PayloadProcess | None = None
        self.crashed = self.killed = False
        self.kind = "event"
        self.changed: Callable[[], None] = lambda: None
        self.cannot_start: Callable[[str], None] = lambda text: None
        self.started: Callable[[], None] = lambda: None
        self.told_end: Callable[[int, str], None] = lambda epoch, how: None
        self.judged: Callable[[Verdict], None] = lambda verdict: None
        self._context = context
        self._groups = GroupMaker(context().settings.limits)
        self._log = log
        self._blamed = False
        self._loop = loop
        self._death_fd = death_fd
        self._starts = self._new_counter()
        self._not_started = ""
        self._actions = {
            Effect.OPEN_CHANNEL: self._open_channel,
            Effect.START: self._start,
            Effect.TERMINATE: self._terminate,
            Effect.SETTLE: lambda: self.changed(),
            Effect.PAUSE: self._pause,
        }

    @property
    def group(self) -> PayloadGroup | None:
        """The control group of the payload that runs, if it has one of its own."""
        return None if self.process is None else self.process.group

    def handle(self, event: Event) -> None:
        """Take an event and do what follows from it."""
        before = self.life
        self.life, effects = handle(self.life, event)
        if self.life is not before:
            self._log.info("state", "payload", was=before.value, now=self.life.value)
        for effect in effects:
            self._actions[effect]()
        if self.life is Life.OVER and before is not Life.OVER:
            self.changed()

    def new_job(self) -> None:
        """Another job: its payload's starts are counted anew."""
        self.handle(Event.JOB_ENDED)
        self._starts = self._new_counter()

    def resume_over(self) -> None:
        """The job that was found is past its payload."""
        if self.life is Life.IDLE:
            self.life = Life.OVER

    def bound(self, epoch: int) -> None:
        """The dispatcher listens on the channel of an epoch."""
        if epoch == self.epoch:
            self.handle(Event.BOUND)

    def _is_executed(self) -> bool:
        """Whether the job has an executor of its own, and that has done its work, well or not."""
        if self.kind == "event":
            return False
        context = self._context()
        job = read_job(context.job_file)
        return job is None or read_outcome(context.outcome_file, job) is not None

    def settled(self, settled: Settled, *, again: bool) -> None:
        """A channel is drained; `again`: there is work, and nothing forbids another start."""
        if settled.epoch == self.epoch:
            self.handle(Event.AGAIN if again and not self._is_executed() else Event.ENOUGH)

    def ended(self, code: int, sweep: Callable[[], int]) -> None:
        """The launcher is reaped; `sweep` ends what became our own child by its death."""
        payload = self.process
        assert payload is not None
        if not payload.result():
            swept = payload.sweep() + sweep()
            self._log.warning("kill", "launcher died, its processes ended", processes=swept)
        if payload.start_error:
            self.cannot_start(payload.start_error)
        how = payload.describe_end(code)
        self.crashed = self._blamed or (self.life is Life.RUNNING and how != ENDED_WELL)
        self._blamed, self.killed = False, how != ENDED_WELL
        self._log.info("reap", "payload ended", epoch=payload.epoch, how=how, crashed=self.crashed)
        self.told_end(payload.epoch, how)
        self._end_group(payload)
        payload.child.close()
        self.process = None
        self.handle(Event.EXITED)

    def _end_group(self, payload: PayloadProcess) -> None:
        """What the kernel did in its control group counts, also when its end came first."""
        if payload.group is None:
            return
        verdict, removed = payload.group.end()
        if not removed:
            self._log.warning("kill", "control group stays", path=payload.group.path)
        if verdict is not None:
            self.judged(verdict)

    def stop(self, within_s: float) -> None:
        """End it; what lives after that time gets KILL."""
        self.handle(Event.STOP)
        if self.process is not None and self.process.kill_at is not None:
            kill_at = min(self.process.kill_at, time.monotonic() + within_s)
            self.process.kill_at = kill_at
            self._loop.call_at(kill_at, lambda: self._kill_on_time(kill_at))

    def blame(self) -> None:
        """Its end to come is its own doing, as a crash would be: it hangs."""
        self._blamed = True

    def kill(self) -> None:
        """No grace: KILL the launcher; what it leaves is swept when it is reaped."""
        if self.process is not None:
            self.process.kill_at = time.monotonic()
            self.process.kill()

    def suspended(self, gap_s: float) -> None:
        """The machine slept, and the payload with it."""
        if self.process is not None and self.process.kill_at is not None:
            self.process.kill_at += gap_s

    def kill_overdue(self, now: float) -> None:
        """KILL a launcher that did not end the payload in its time."""
        payload = self.process
        if payload is not None and payload.kill_at is not None and now >= payload.kill_at:
            self._log.error("kill", "payload does not end in its time", pid=payload.child.pid)
            payload.kill()
            payload.kill_at = None

    def _kill_on_time(self, due: float) -> None:
        """A timer that is far too late means that we were suspended: the next look decides."""
        now = time.monotonic()
        if now - due < LATE_S:
            self.kill_overdue(now)

    def _open_channel(self) -> None:
        self.epoch += 1
        self.channel = f"{CHANNEL_PREFIX}{uuid.uuid4().hex}"
        try:
            note_channel(self._context().state, self.channel)
        except OSError as error:
            # It is only for cleaning up after our own death.
            self._log.warning("state", "channel not noted", error=error)
        self.changed()

    def _start(self) -> None:
        try:
            self.process = PayloadProcess(
                self._context(), epoch=self.epoch, channel=self.channel,
                death_fd=self._death_fd, kind=self.kind, groups=self._groups,
            )  # fmt: skip
        except LocalError as error:
            # This node may have room again at the next start; the restarts are counted.
            self._starts.handle(Started(), time.monotonic())
            self._not_started = f"; {error}"
            self._log.error("start", "payload not started", error=error)
            self.handle(Event.EXITED)
            return
        except EspilotError as error:
            self.cannot_start(str(error))
            self.handle(Event.EXITED)
            return
        self._not_started = ""
        self._starts.handle(Started(), time.monotonic())
        group = self.process.group
        self._log.info("start", "payload started", epoch=self.epoch, pid=self.process.child.pid,
                       group=group.path if group else "none")  # fmt: skip
        self.started()

    def _terminate(self) -> None:
        # The dispatcher first: whoever ends from now on was told to, and did not crash.
        self.changed()
        if self.process is not None:
            self.process.terminate(time.monotonic())

    def _pause(self) -> None:
        after = self._starts.handle(Died(), time.monotonic())
        if isinstance(after, GiveUp):
            self.cannot_start(after.text + self._not_started)
            self.handle(Event.ENOUGH)
            return
        assert after is not None
        epoch = self.epoch
        self._log.info("restart", "payload starts again", in_s=after.at_mono - time.monotonic())
        self._loop.call_at(after.at_mono, lambda: self._pause_ended(epoch))

    def _pause_ended(self, epoch: int) -> None:
        if epoch == self.epoch:
            self.handle(Event.PAUSE_ENDED)

    def _new_counter(self) -> RestartCounter:
        config = self._context().settings.payload
        rule = replace(RULES[PAYLOAD], starts=config.restarts, window_s=config.restart_window_s)
        return RestartCounter(rule)
