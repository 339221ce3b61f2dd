"""The supervisor: starts, watches, stops and restarts; never in the way of the data.

One loop over the control socket, signals and deadlines. It tells the roles what is wanted as whole
states (`Serve`, `Work`), so that a role that was replaced only needs to hear the newest one.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from espilot.adapters import process
from espilot.adapters.control import ControlRouter
from espilot.adapters.loop import Loop
from espilot.core.deadline import Cause, Impatience
from espilot.core.drain import Pace, Stock
from espilot.core.job import KILLED_BY_SERVER
from espilot.core.payload_life import Event, Life
from espilot.core.restart import GiveUp, start_order
from espilot.errors import MessageError
from espilot.logs import Log
from espilot.model import Counts, Verdict
from espilot.queue.store import Queue
from espilot.supervisor.attending import Attendant, Attending
from espilot.supervisor.deadlines import DeadlineWatch
from espilot.supervisor.directives import Directives, Wanted
from espilot.supervisor.drain import Drain
from espilot.supervisor.ending import HURRY_S, Closing, complete
from espilot.supervisor.escalation import Escalation
from espilot.supervisor.figures import Figures
from espilot.supervisor.keeper import PayloadKeeper
from espilot.supervisor.monitor import Monitor
from espilot.supervisor.outcome import Outcome, Snapshot
from espilot.supervisor.payload import inherited_processes, sweep_strangers
from espilot.supervisor.people import People
from espilot.supervisor.roles import STOP_S, Roles
from espilot.supervisor.signals import Signals
from espilot.supervisor.standing import Standing
from espilot.wire import envelope
from espilot.wire.messages import (
    Alive,
    Bound,
    DrainRequest,
    Hello,
    JobPhase,
    Listening,
    Overdue,
    Resumed,
    Settled,
    StorageHealth,
    TaskOver,
)
from espilot.workers.context import Context

TICK_S = 1.0
GAP_S = 5.0
"""A tick that comes so much late means that the machine, or all of the pilot, was suspended."""
CANNOT_START = 1305
BUILTIN_SERVER, EVENT_SERVER, DISPATCHER = "builtin-server", "event-server", "dispatcher"
STAGEOUT = "stageout"


class Supervisor:
    """One run of the pilot."""

    def __init__(self, context: Context, log: Log, *, on_progress: Callable[[Snapshot], None],
                 attendant: Attendant | None = None) -> None:  # fmt: skip
        self._context = context
        self._log = log
        self._on_progress = on_progress
        self._loop = Loop()
        self._death = process.DeathPipe()
        self._control = ControlRouter(context.runtime)
        self._queue = Queue(context.queue)
        self._signals = Signals()
        self._standing = Standing(context, log, loop=self._loop)
        self._payload = self._new_keeper()  # first: where it can, it changes our control group
        self._monitor = Monitor(context, log)
        self._roles = Roles(lambda: self._context, log, self._death.read_fd)
        self._directives = Directives(self._control)
        self._people = People(self._control, log)
        seen = self._standing, self._roles, self._monitor, self._directives, self._queue
        self._attending = Attending(attendant, *seen)
        self._figures = Figures(context, self._queue)
        watch, limits = DeadlineWatch(context, log, self._monitor.cpu_s), context.settings.limits
        self._drain = Drain(self, watch, log, loop=self._loop, settle_s=limits.settle_s)
        self._people.on(DrainRequest, self._drain.asked)
        self._standing.show(self._people, self._snapshot, self._monitor, self._roles)
        self._closing = Closing(
            self._roles, self._payload, loop=self._loop, send=self._directives.send
        )
        self._handlers: dict[type, Callable[[Any], None]] = {
            Hello: self._role_says_hello,
            Alive: self._role_is_alive,
            Listening: self._server_listens,
            JobPhase: self._job_moved,
            TaskOver: self._task_over,
            Bound: lambda bound: self._payload.bound(bound.epoch),
            Settled: self._channel_settled,
            StorageHealth: self._storage_changed,
            Overdue: Escalation(context, self._payload, self._monitor, log, self._loop).overdue,
            Resumed: self._standing.resumed,
        }
        self._job = JobPhase(0, 0, "")
        self._storage = "ok"
        self._last_message, self._waiting = 0.0, 0
        self._inherited = inherited_processes()
        self._ending: tuple[int, str] = (0, "")
        self._impatience = Impatience()
        self._last_tick = time.monotonic()

    def run(self) -> Outcome:
        """Serve until the task is over, drained or failed."""
        process.become_subreaper()
        self._loop.on_readable(self._control.socket, self._receive)
        self._loop.on_readable(self._signals.fd, self._take_signals)
        self._loop.call_later(TICK_S, self._tick)
        # The event-server worker starts when there is an address to talk to.
        late = BUILTIN_SERVER if self._context.server_url else EVENT_SERVER
        for name in start_order():
            if name not in (late, "payload"):
                self._roles.start(name)
        try:
            self._loop.run()
        finally:
            self._close()
        assert self._closing.outcome is not None
        return self._closing.outcome

    # -- messages -------------------------------------------------------------------------------

    def _receive(self) -> None:
        for sender, data in self._control.receive():
            if self._people.heard(sender, data):
                continue
            self._roles.heard(sender, time.monotonic())
            try:
                message = envelope.decode(data)
            except MessageError as error:
                self._log.warning("control", "unusable message", sender=sender, error=error)
                continue
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(message)

    def _role_says_hello(self, hello: Hello) -> None:
        self._directives.forget(hello.role)
        if hello.role == STAGEOUT and self._storage != "ok":
            # It counts failures anew: of a recovery it would tell only after a trouble of its own.
            self._storage = "ok"
        self._direct_all()

    def _role_is_alive(self, alive: Alive) -> None:
        for each in (self._figures, self._standing, self._drain.watch):
            each.heard(alive)
        if alive.role != DISPATCHER:
            return
        last, waiting = alive.facts.get("last_message_mono"), alive.facts.get("waiting")
        if isinstance(last, float) and isinstance(waiting, int):
            self._last_message, self._waiting = last, waiting

    def _server_listens(self, listening: Listening) -> None:
        self._log.info("server", "built-in server listens", url=listening.url)
        if self._context.server_url in ("", listening.url):
            self._context = replace(
                self._context, server_url=listening.url, task_id=listening.task_id
            )
            self._roles.start(EVENT_SERVER)
            return
        self._finish(Outcome(reason=f"the built-in server came back at {listening.url}"))

    def _job_moved(self, job: JobPhase) -> None:
        if job.panda_id != self._job.panda_id:
            self._payload.new_job()
            self._directives.jobs_taken += 1 if job.panda_id else 0
            self._log.job = job.panda_id or None
            if self._ending[0] == KILLED_BY_SERVER or self._context.at_server:
                # It concerned that job alone; the next one gets what it held.
                self._ending = (0, "")
        self._job, self._payload.kind = job, job.kind
        self._on_progress(self._snapshot())  # a quick job may be over before the next tick
        if job.command == "tobekilled":
            self._end_job(KILLED_BY_SERVER, "the server ordered the job to be killed")
        elif job.command == "softkill":
            self._drain.order("the server ordered a soft kill", code=KILLED_BY_SERVER)
        work = job.phase in ("running", "exhausted") and not job.executed
        if job.panda_id and work and not self._drain.begun:
            self._payload.handle(Event.WANTED)
        elif job.panda_id:
            self._payload.resume_over()
        self._direct_all()

    def _task_over(self, over: TaskOver) -> None:
        state = str(over.status.get("state", ""))
        if state == "running":
            state = "drained" if self._drain.begun and not self._ending[0] else "failed"
        reason = self._ending[1] or (self._drain.reason if state == "drained" else "")
        self._finish(Outcome(state=state, task=over.status, reason=reason))

    def _storage_changed(self, health: StorageHealth) -> None:
        self._log.warning("storage", "storage health", state=health.state, reason=health.reason)
        self._storage = health.state
        self._standing.storage(health)
        if health.state == "trouble" and self._context.settings.stageout.aborts_current:
            self._payload.handle(Event.STOP)
        self._direct_all()

    def _channel_settled(self, settled: Settled) -> None:
        blocked = self._drain.begun or self._ending[0] or self._storage == "given-up"
        work = self._job.phase == "running" or settled.ready > 0
        self._payload.settled(settled, again=work and not blocked)

    # -- directives -----------------------------------------------------------------------------

    def _direct_all(self) -> None:
        storage = self._monitor.gate.narrow(self._storage)
        ends, foreign = self._drain.horizon(self._context), self._context.at_server
        wanted = Wanted(self._job.panda_id, self._drain.begun, storage, self._ending, ends, foreign)
        self._directives.tell_all(self._payload, wanted)

    def _new_keeper(self) -> PayloadKeeper:
        keeper = PayloadKeeper(lambda: self._context, log=self._log, loop=self._loop,
                               death_fd=self._death.read_fd, epoch=self._queue.epoch())  # fmt: skip
        keeper.changed = self._direct_all
        keeper.cannot_start = partial(self._end_job, CANNOT_START)
        keeper.started = self._payload_started
        keeper.told_end = self._standing.payload_ended
        keeper.judged = self._carry_out
        return keeper

    def _payload_started(self) -> None:
        self._last_message = time.monotonic()
        self._monitor.payload_started(self._job.kind, self._payload.group)
        self._standing.payload_started(self._payload.epoch)

    # -- ending ---------------------------------------------------------------------------------

    def _end_job(self, code: int, text: str) -> None:
        """The job ends for a reason: its payload is stopped, what was made is kept and reported."""
        if self._ending[0]:
            return
        self._ending = (code, text)
        self._log.error("job", "the job is ended", code=code, reason=text)
        self._payload.handle(Event.STOP)
        self._direct_all()

    def drain_begun(self, cause: Cause) -> None:
        """Hand out and fetch no more, ship what is done (`Drain` calls it)."""
        self._directives.drain = cause
        if self._payload.life is Life.PAUSING:
            self._payload.handle(Event.ENOUGH)
        self._direct_all()
        self._attending.look(self._snapshot(), self._queue.counts(), closing=False)

    def stop_payload(self, within_s: float) -> None:
        """End the payload, with KILL after that time."""
        self._payload.stop(within_s)

    def out_of_time(self, reason: str) -> None:
        """End at once without final update: the reports can still be made by a later run."""
        self._log.error("drain", reason)
        self._finish(Outcome(state="drained", reason=reason), patience_s=HURRY_S)

    def measure(self) -> tuple[Stock, Pace]:
        """What a drain is planned with."""
        counts = self._queue.counts()
        alive = self._payload.process is not None or self._payload.life is Life.BINDING
        is_event, storage = self._job.kind == "event", self._storage
        stock = self._figures.stock(counts, payload_alive=alive, storage=storage, is_event=is_event)
        return stock, self._figures.pace(counts)

    def _take_signals(self) -> None:
        for number in self._signals.take():
            if number == signal.SIGCHLD:
                continue
            if number == signal.SIGHUP and self._attending.attendant:
                self._context = self._attending.reload(self._context)
                continue
            name = process.signal_name(number)
            self._log.warning("signal", "signal received", signal=name)
            if self._impatience.heard(number, time.monotonic()) >= 3:
                self._payload.kill()
                self.out_of_time("ended at once by a third signal")
            else:
                self._drain.signalled(number, name, self._context.settings.drain)
        self._reap()

    def _reap(self) -> None:
        for pid, code in process.reap():
            payload = self._payload.process
            if payload is not None and pid == payload.child.pid:
                self._queue.check_readers()
                workers = set(self._roles.pids().values())
                self._payload.ended(code, partial(sweep_strangers, workers, self._inherited))
                continue
            ended = self._roles.ended(pid, code, time.monotonic())
            if ended is not None:
                self._role_ended(*ended)
        if self._closing.begun:
            self._closing.go_on()

    def _role_ended(self, name: str, after: float | GiveUp | None) -> None:
        self._queue.check_readers()
        if isinstance(after, GiveUp):
            self._log.error("give-up", after.text)
            self._finish(Outcome(reason=after.text))
        elif after is not None and not self._closing.begun:
            if name == DISPATCHER and self._payload.life is not Life.PAUSING:
                # Requests that the dead dispatcher had read will never be answered.
                self._payload.handle(Event.STOP)
            self._loop.call_at(after, lambda: self._roles.start(name))

    # -- watching -------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._tick)
        now = time.monotonic()
        gap_s = now - self._last_tick - TICK_S
        self._last_tick = now
        # Short gaps too, when roles are not given much longer: nobody could be heard.
        if gap_s > min(GAP_S, self._context.settings.limits.silent_s / 3):
            self._log.warning("suspended", "the machine was suspended", gap_s=gap_s)
            self._roles.shift(gap_s)
            self._monitor.suspended(gap_s)
            self._drain.suspended(gap_s)
            self._payload.suspended(gap_s)
            return  # what was said meanwhile is read before anybody is judged
        self._roles.kill_silent(now)
        self._payload.kill_overdue(now)
        counts = self._queue.counts()
        if not self._closing.begun:
            self._figures.observe(counts, now)
            self._standing.observe(counts, self._monitor.verdicts)
            self._judge(counts, now)
            self._drain.look(now)
            self._judge_end(counts, now)
        snapshot = self._snapshot(counts)
        self._on_progress(snapshot)
        self._attending.look(snapshot, counts, closing=self._closing.begun)

    def _judge(self, counts: Counts, now: float) -> None:
        payload = self._payload.process
        if self._waiting and not counts.sent:
            # The payload waits for us, not we for it.
            self._last_message = now
        verdict = self._monitor.look(payload, counts, last_message_mono=self._last_message, now=now)
        self._directives.tell_used(self._monitor.resources())
        self._direct_all()  # the disk may have become full, or empty again
        if verdict is None and payload is not None:
            verdict = self._monitor.look_at_end(counts, self._job.phase, now)
        if verdict is not None:
            self._carry_out(verdict)

    def _judge_end(self, counts: Counts, now: float) -> None:
        """Leave a job that cannot be ended now, with all that it has, to a later run."""
        patience = ("given-up", "trouble") if self._drain.begun else ("given-up",)
        reason = self._monitor.hopeless_end(
            counts, self._job.phase, no_storage=self._storage in patience, now=now
        )
        if reason:
            self._log.error("give-up", reason)
            self._finish(Outcome(state="drained" if self._drain.begun else "failed", reason=reason))

    def _carry_out(self, verdict: Verdict) -> None:
        if verdict.action == "end-job" and not self._ending[0]:
            self._monitor.record(verdict)
            self._end_job(verdict.code, verdict.text)
        elif verdict.action == "end-payload" and self._payload.life is Life.RUNNING:
            self._monitor.record(verdict)
            self._payload.handle(Event.STOP)
        elif verdict.action == "note":
            self._monitor.record(verdict)

    def _snapshot(self, counts: Counts | None = None) -> Snapshot:
        job, life = self._job, self._payload.life.value
        taken, drain = self._directives.jobs_taken, self._drain.facts()
        return Snapshot(counts or self._queue.counts(), job.panda_id, job.phase, life, taken,
                        self._storage, drain)  # fmt: skip

    # -- closing --------------------------------------------------------------------------------

    def _finish(self, outcome: Outcome, *, patience_s: float = STOP_S) -> None:
        """Stop the payload and all roles, one after the other, then leave the loop."""
        outcome.jobs = self._directives.jobs_taken
        outcome.explain(self._ending[0], self._impatience.numbers, self._drain.source)
        self._closing.begin(outcome, patience_s=patience_s)

    def _close(self) -> None:
        self._monitor.close()
        sweep_strangers(set(), self._inherited)
        process.reap()
        if self._closing.outcome is not None:
            complete(self._closing.outcome, self._context, self._queue, self._log)
        for each in (self._queue, self._control, self._signals, self._standing, self._death):
            each.close()
        self._log.info("stop", "pilot ended")
