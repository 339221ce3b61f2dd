"""The supervisor: starts, watches, stops and restarts; never in the way of the data.

One loop over the control socket, signals and deadlines. It tells the roles what is wanted as whole
states (`Serve`, `Work`), so that a role that was replaced only needs to hear the newest one.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from espilot.adapters import process
from espilot.adapters.control import ControlRouter
from espilot.adapters.loop import Loop
from espilot.core.payload_life import Effect, Event, Life, channel_mode, handle
from espilot.core.restart import PAYLOAD, RULES, Died, GiveUp, RestartCounter, Started, stop_order
from espilot.errors import EspilotError, MessageError
from espilot.logs import Log
from espilot.model import Counts, Verdict
from espilot.queue.store import Queue
from espilot.supervisor.monitor import Monitor
from espilot.supervisor.payload import PayloadProcess, sweep_strangers
from espilot.supervisor.roles import STOP_S, Roles
from espilot.supervisor.signals import Signals
from espilot.wire import envelope
from espilot.wire.messages import (
    Alive,
    Bound,
    Hello,
    JobPhase,
    Listening,
    Serve,
    Settled,
    Stop,
    StorageHealth,
    TaskOver,
    Work,
)
from espilot.workers.context import Context

TICK_S = 1.0
GAP_S = 5.0
"""A tick that comes so much late means that the machine, or all of the pilot, was suspended."""
CANNOT_START, KILLED_BY_SERVER = 1305, 1237


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the run stands, for progress and summary."""

    counts: Counts
    panda_id: int
    phase: str
    life: str
    jobs: int
    storage: str


@dataclass(slots=True)
class Outcome:
    """How the run ended; `task` holds the fields of `model.TaskStatus`, if the server told."""

    state: str = "failed"
    task: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    jobs: int = 0
    counts: Counts | None = None


class Supervisor:
    """One run of the pilot."""

    def __init__(
        self, context: Context, log: Log, *, on_progress: Callable[[Snapshot], None]
    ) -> None:
        self._context = context
        self._log = log
        self._on_progress = on_progress
        self._loop = Loop()
        self._death = process.DeathPipe()
        self._control = ControlRouter(context.runtime)
        self._queue = Queue(context.queue)
        self._signals = Signals()
        self._monitor = Monitor(context, log)
        self._roles = Roles(lambda: self._context, log, self._death.read_fd)
        self._handlers: dict[type, Callable[[Any], None]] = {
            Hello: self._role_says_hello,
            Alive: self._role_is_alive,
            Listening: self._server_listens,
            JobPhase: self._job_moved,
            TaskOver: self._task_over,
            Bound: self._channel_bound,
            Settled: self._channel_settled,
            StorageHealth: self._storage_changed,
        }
        self._life = Life.IDLE
        self._epoch = self._queue.epoch()
        self._channel = ""
        self._payload: PayloadProcess | None = None
        self._starts = self._new_counter()
        self._job = JobPhase(0, 0, "")
        self._storage = "ok"
        self._last_message = 0.0
        self._draining = False
        self._ending: tuple[int, str] = (0, "")
        self._signals_seen = 0
        self._outcome: Outcome | None = None
        self._closing = False
        self._jobs = 0
        self._last_tick = time.monotonic()

    def run(self) -> Outcome:
        """Serve until the task is over, drained or failed."""
        process.become_subreaper()
        self._loop.on_readable(self._control.socket, self._receive)
        self._loop.on_readable(self._signals.fd, self._take_signals)
        self._loop.call_later(TICK_S, self._tick)
        local = not self._context.server_url
        for name in ("builtin-server", "stageout", "dispatcher"):
            if local or name != "builtin-server":
                self._roles.start(name)
        if not local:
            self._roles.start("event-server")
        try:
            self._loop.run()
        finally:
            self._close()
        assert self._outcome is not None
        return self._outcome

    # -- messages -------------------------------------------------------------------------------

    def _receive(self) -> None:
        for sender, data in self._control.receive():
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
        self._direct(hello.role)

    def _role_is_alive(self, alive: Alive) -> None:
        last = alive.facts.get("last_message_mono")
        if alive.role == "dispatcher" and isinstance(last, float):
            self._last_message = last

    def _server_listens(self, listening: Listening) -> None:
        self._log.info("server", "built-in server listens", url=listening.url)
        if self._context.server_url in ("", listening.url):
            self._context = replace(
                self._context, server_url=listening.url, task_id=listening.task_id
            )
            self._roles.start("event-server")
            return
        self._finish(Outcome(reason=f"the built-in server came back at {listening.url}"))

    def _job_moved(self, job: JobPhase) -> None:
        if job.panda_id != self._job.panda_id:
            self._live(Event.JOB_ENDED)
            self._starts = self._new_counter()
            self._jobs += 1 if job.panda_id else 0
            self._log.job = job.panda_id or None
        self._job = job
        if job.command == "tobekilled":
            self._end_job(KILLED_BY_SERVER, "the server ordered the job to be killed")
        elif job.command == "softkill":
            self._drain("the server ordered a soft kill")
        if job.panda_id and job.phase in ("running", "exhausted"):
            self._live(Event.WANTED)
        elif job.panda_id and self._life is Life.IDLE:
            # A job that was settling when its pilot died has no payload any more.
            self._life = Life.OVER
        self._direct_all()

    def _task_over(self, over: TaskOver) -> None:
        state = str(over.status.get("state", ""))
        if state == "running":
            state = "drained" if self._draining and not self._ending[0] else "failed"
        self._finish(Outcome(state=state, task=over.status, reason=self._ending[1]))

    def _storage_changed(self, health: StorageHealth) -> None:
        if health.state != self._storage:
            self._log.warning("storage", "storage health", state=health.state,
                              reason=health.reason)  # fmt: skip
        self._storage = health.state
        self._direct_all()

    # -- directives -----------------------------------------------------------------------------

    def _direct_all(self) -> None:
        self._direct("dispatcher")
        self._direct("event-server")

    def _direct(self, role: str) -> None:
        if role == "dispatcher" and self._channel:
            mode, reason = channel_mode(self._life, draining=self._draining, storage=self._storage)
            self._send(role, Serve(self._epoch, self._channel, mode, reason))
        elif role == "event-server":
            going_on = not self._draining and not self._ending[0]
            self._send(
                role,
                Work(
                    panda_id=self._job.panda_id,
                    fetch=going_on and self._storage == "ok",
                    jobs=going_on,
                    payload_over=self._life is Life.OVER,
                    code=self._ending[0],
                    diag=self._ending[1],
                ),
            )

    def _send(self, role: str, message: Any) -> None:
        self._control.send(role, envelope.encode(message))

    # -- the payload ----------------------------------------------------------------------------

    def _live(self, event: Event) -> None:
        before = self._life
        self._life, effects = handle(self._life, event)
        if self._life is not before:
            self._log.info("state", "payload", was=before.value, now=self._life.value)
        actions = {
            Effect.OPEN_CHANNEL: self._open_channel,
            Effect.START: self._start_payload,
            Effect.TERMINATE: self._terminate_payload,
            Effect.SETTLE: self._direct_all,
            Effect.PAUSE: self._pause_payload,
        }
        for effect in effects:
            actions[effect]()
        if self._life is Life.OVER and before is not Life.OVER:
            self._direct_all()

    def _open_channel(self) -> None:
        self._epoch += 1
        self._channel = f"EventService_EventRanges-{uuid.uuid4().hex}"
        self._direct("dispatcher")

    def _channel_bound(self, bound: Bound) -> None:
        if bound.epoch == self._epoch:
            self._live(Event.BOUND)

    def _start_payload(self) -> None:
        now = time.monotonic()
        try:
            self._payload = PayloadProcess(
                self._context,
                epoch=self._epoch,
                channel=self._channel,
                death_fd=self._death.read_fd,
            )
        except EspilotError as error:
            self._end_job(CANNOT_START, str(error))
            self._live(Event.EXITED)
            return
        self._starts.handle(Started(), now)
        self._last_message = now
        self._monitor.payload_started()
        self._log.info("start", "payload started", epoch=self._epoch, pid=self._payload.child.pid)

    def _terminate_payload(self) -> None:
        if self._payload is not None:
            self._payload.terminate(time.monotonic())

    def _payload_ended(self, payload: PayloadProcess, code: int) -> None:
        how = payload.describe_end(code)
        if not payload.result():
            swept = payload.sweep() + sweep_strangers(set(self._roles.pids().values()))
            self._log.warning("kill", "launcher died, its processes ended", processes=swept)
        if payload.start_error:
            self._end_job(CANNOT_START, payload.start_error)
        self._log.info("reap", "payload ended", epoch=payload.epoch, how=how)
        payload.child.close()
        self._payload = None
        self._queue.check_readers()
        self._live(Event.EXITED)

    def _channel_settled(self, settled: Settled) -> None:
        if settled.epoch != self._epoch or self._life is not Life.SETTLING:
            return
        more = self._job.phase == "running" or settled.ready > 0
        blocked = self._draining or self._ending[0] or self._storage == "given-up"
        if not more or blocked:
            self._live(Event.ENOUGH)
            return
        self._live(Event.AGAIN)

    def _pause_payload(self) -> None:
        after = self._starts.handle(Died(), time.monotonic())
        if isinstance(after, GiveUp):
            self._end_job(CANNOT_START, after.text)
            self._live(Event.ENOUGH)
            return
        assert after is not None
        epoch = self._epoch
        self._log.info("restart", "payload starts again", in_s=after.at_mono - time.monotonic())
        self._loop.call_at(after.at_mono, lambda: self._pause_ended(epoch))

    def _pause_ended(self, epoch: int) -> None:
        if epoch == self._epoch:
            self._live(Event.PAUSE_ENDED)

    def _new_counter(self) -> RestartCounter:
        config = self._context.settings.payload
        rule = replace(RULES[PAYLOAD], starts=config.restarts, window_s=config.restart_window_s)
        return RestartCounter(rule)

    # -- ending ---------------------------------------------------------------------------------

    def _end_job(self, code: int, text: str) -> None:
        """The job ends for a reason: its payload is stopped, what was made is kept and reported."""
        if self._ending[0]:
            return
        self._ending = (code, text)
        self._log.error("verdict", text, code=code)
        self._live(Event.STOP)
        self._direct_all()

    def _drain(self, reason: str) -> None:
        """Hand out no more; give the payload its grace, then stop it."""
        if self._draining:
            return
        self._draining = True
        self._log.warning("signal", "draining", reason=reason)
        self._direct_all()
        grace_s = self._context.settings.payload.term_grace_s
        self._loop.call_later(grace_s, lambda: self._live(Event.STOP))
        if self._life is Life.PAUSING:
            self._live(Event.ENOUGH)

    def _take_signals(self) -> None:
        for number in self._signals.take():
            if number == signal.SIGCHLD:
                continue
            self._signals_seen += 1
            self._log.warning("signal", "signal received", signal=process.signal_name(number))
            if self._signals_seen >= 3:
                self._finish(Outcome(state="drained", reason="ended at once by a third signal"))
                return
            self._drain(process.signal_name(number))
        self._reap()

    def _reap(self) -> None:
        for pid, code in process.reap():
            if self._payload is not None and pid == self._payload.child.pid:
                self._payload_ended(self._payload, code)
                continue
            ended = self._roles.ended(pid, code, time.monotonic())
            if ended is not None:
                self._role_ended(*ended)

    def _role_ended(self, name: str, after: float | GiveUp | None) -> None:
        self._queue.check_readers()
        if self._closing:
            self._close_next()
        elif isinstance(after, GiveUp):
            self._log.error("give-up", after.text)
            self._finish(Outcome(reason=after.text))
        elif after is not None:
            if name == "dispatcher":
                # Requests that the dead dispatcher had read will never be answered.
                self._live(Event.STOP)
            self._loop.call_at(after, lambda: self._roles.start(name))

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._tick)
        now = time.monotonic()
        gap_s = now - self._last_tick - TICK_S
        self._last_tick = now
        if gap_s > GAP_S:
            self._log.warning("suspended", "the machine was suspended", gap_s=gap_s)
            self._roles.shift(gap_s)
            self._monitor.suspended(gap_s)
            # What was said meanwhile is read before anybody is judged.
            return
        self._roles.kill_silent(now)
        counts = self._queue.counts()
        if not self._closing:
            self._judge(counts, now)
            self._on_progress(self._snapshot(counts))

    def _judge(self, counts: Counts, now: float) -> None:
        payload = self._payload
        if payload is not None and payload.kill_at is not None and now >= payload.kill_at:
            self._log.error("kill", "launcher does not end", pid=payload.child.pid)
            payload.kill()
            payload.kill_at = None
        verdict = self._monitor.look(payload, last_message_mono=self._last_message, now=now)
        if verdict is None and payload is not None:
            verdict = self._monitor.look_at_end(counts, self._job.phase, now)
        if verdict is not None:
            self._carry_out(verdict)

    def _carry_out(self, verdict: Verdict) -> None:
        if verdict.action == "end-job":
            self._end_job(verdict.code, verdict.text)
        elif self._life is Life.RUNNING:
            self._log.error("verdict", verdict.text, code=verdict.code, rule=verdict.rule)
            self._live(Event.STOP)

    def _snapshot(self, counts: Counts) -> Snapshot:
        return Snapshot(counts, self._job.panda_id, self._job.phase, self._life.value,
                        self._jobs, self._storage)  # fmt: skip

    def _finish(self, outcome: Outcome) -> None:
        """Stop all roles, then leave the loop."""
        if self._closing:
            return
        outcome.jobs = self._jobs
        self._outcome = outcome
        self._closing = True
        if self._payload is not None:
            self._payload.kill()
        self._close_next()

    def _close_next(self) -> None:
        """Stop the next role in stop order; when none is left, leave."""
        for name in stop_order():
            if self._roles.unwant(name):
                self._send(name, Stop())
                self._roles.terminate(name)
                self._loop.call_later(STOP_S, partial(self._roles.kill, name))
                return
        if self._payload is None:
            self._loop.stop()

    def _close(self) -> None:
        if self._outcome is not None:
            self._outcome.counts = self._queue.counts()
        sweep_strangers(set())
        process.reap()
        self._queue.close()
        self._control.close()
        self._signals.close()
        self._death.close()
        self._log.info("stop", "pilot ended", pid=os.getpid())
