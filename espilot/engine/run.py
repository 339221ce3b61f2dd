"""One run of the engine: dispatcher and keeper of the payload in one loop, hooks beside it.

The parts are those of the pilot: its queue, channel, dispatcher, launcher, restarts. Where the
pilot has an event-server worker there is the first hook, and in place of stage-out the second.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from espilot.adapters.loop import Loop, Timer, Wakeup
from espilot.adapters.process import DeathPipe
from espilot.adapters.story import NAME as STORY_NAME
from espilot.adapters.story import Story
from espilot.core.job import Phase
from espilot.core.payload_life import Event, Life
from espilot.engine.hooks import Hooks, outcome_of
from espilot.errors import EspilotError, PayloadError, UsageError
from espilot.logs import open_log
from espilot.model import DoneRange, EventRange, FailedRange, Job, RangeState
from espilot.queue.recovery import repair, set_aside
from espilot.queue.store import Queue
from espilot.supervisor.directives import Wanted, serve_of
from espilot.supervisor.keeper import PayloadKeeper
from espilot.supervisor.recovery import is_whole, note_boot, why_not_trusted
from espilot.wire.messages import Bound, Overdue, Settled
from espilot.workers.calls import Calls
from espilot.workers.context import Context
from espilot.workers.dispatcher import Dispatcher

BEAT_S = 1.0
FLUSH_S = 0.2
ASK_AGAIN_S = 1.0
BATCH = 16
"""Outcomes that one call of the thread tells; after each batch what was told is forgotten."""
ONE_JOB = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: ranges whose outcome was handled, by kind, and those without one.

    `returned` are the ids of ranges that the hook gave and nobody has processed; the engine has
    forgotten them. `starts` counts the starts of the payload, `stopped` tells of `stop()`.
    """

    finished: int
    failed: int
    returned: tuple[str, ...]
    starts: int
    stopped: bool


class EngineRun:
    """From the start of the payload to the last outcome. Use it once, in one thread."""

    def __init__(self, context: Context, hooks: Hooks, output_lfns: tuple[str, ...]) -> None:
        self.context, self.settings = context, context.settings
        self.log = open_log("engine", context.log_file)
        if context.queue.exists() and why_not_trusted(context):
            # Written before the machine's crash, or in a way that is not ours.
            set_aside(context.queue)
        note_boot(context, context.queue)
        self.queue = Queue(context.queue)
        self.loop = Loop()
        self.story = Story(context.state / STORY_NAME, "engine", due=self._flush_soon)
        self.facts: dict[str, Any] = {}
        self._hooks, self._lfns = hooks, output_lfns
        self._death = DeathPipe()
        self._dispatcher = Dispatcher(self)
        self._keeper = self._new_keeper()
        self._asker, self._teller = Calls(self.loop, 1), Calls(self.loop, 1)
        self._wakeup = Wakeup()
        self.loop.on_readable(self._wakeup.fd, self._stop)
        self._asking = self._telling = False
        self._open = 0
        self._told_meanwhile: set[str] = set()
        self._has_leftovers = False
        self._rows: deque[DoneRange | FailedRange] = deque()
        self._error: BaseException | None = None
        self._stop_s: float | None = None
        self._draining = False
        self._lingering: Timer | None = None
        self._finished = self._failed = self._starts = 0

    def run(self) -> Result:
        """Run to the end; raises what a hook raised, or why the payload cannot be run."""
        self._take_up()
        self.loop.every(BEAT_S, self._beat)
        self._keeper.handle(Event.WANTED)
        while not self._is_over():
            self._tell()
            self._ask()
            self.loop.turn()
        if self._error is not None:
            raise self._error
        with self.queue.moves() as moves:
            returned = moves.give_back(RangeState.READY)
            moves.clear_job()
        return Result(self._finished, self._failed, tuple(returned), self._starts, self._draining)

    def stop(self, grace_s: float) -> None:
        """Hand out no more; what is in work has so long to end. From any thread."""
        self._stop_s = grace_s
        self._wakeup.ring()

    def close(self) -> None:
        """End what still runs and give everything back."""
        payload = self._keeper.process
        if payload is not None:
            payload.kill()
            self._wait_for(payload.child.pid)
            payload.sweep()
            payload.child.close()
        self._dispatcher.close()
        self._asker.close()
        self._teller.close()
        self.story.flush()
        self.queue.close()
        self._wakeup.close()
        self._death.close()

    # -- what the dispatcher needs of its process -------------------------------------------------

    def send(self, message: Any) -> None:
        """Hear of the dispatcher, after what it is at."""
        if isinstance(message, Bound):
            epoch = message.epoch
            self.loop.call_later(0.0, lambda: self._keeper.bound(epoch))
        elif isinstance(message, Settled):
            settled = message
            self.loop.call_later(0.0, lambda: self._settled(settled))
        elif isinstance(message, Overdue):
            self.log.warning("verdict", "a range takes long", range=message.range_id,
                             held_s=message.held_s)  # fmt: skip

    def ring(self, role: str) -> None:
        """Nobody else is here; each turn of the loop looks for itself."""

    # -- the payload ----------------------------------------------------------------------------

    def _new_keeper(self) -> PayloadKeeper:
        keeper = PayloadKeeper(
            lambda: self.context,
            log=self.log,
            loop=self.loop,
            death_fd=self._death.read_fd,
            epoch=self.queue.epoch(),
        )
        keeper.changed = self._direct
        keeper.started = self._payload_started
        keeper.cannot_start = lambda text: self._fail(PayloadError(text))
        return keeper

    def _direct(self) -> None:
        """Bring the dispatcher into the state that the payload's life asks for."""
        if self._keeper.channel:
            wanted = Wanted(ONE_JOB, self._draining, "ok", (0, ""))
            self._dispatcher.serve(serve_of(self._keeper, wanted))

    def _payload_started(self) -> None:
        assert self._keeper.process is not None
        child = self._keeper.process.child
        self._starts += 1
        self.loop.on_readable(child.pidfd, lambda: self._payload_ended(child.pid, child.pidfd))

    def _payload_ended(self, pid: int, pidfd: int) -> None:
        self.loop.forget(pidfd)
        code = self._wait_for(pid)
        self.queue.check_readers()
        self._keeper.ended(code, lambda: 0)

    def _settled(self, settled: Settled) -> None:
        work = self.queue.counts().ready or self.queue.phase() == Phase.RUNNING
        again = bool(work) and not self._draining and self._error is None
        self._keeper.settled(settled, again=again)

    @staticmethod
    def _wait_for(pid: int) -> int:
        """Reap our child alone: others are of the program around us."""
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return 0  # it ignores SIGCHLD, and the kernel reaps; the launcher's result tells

    # -- the hooks ------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Have ranges fetched when fewer are ready than may soon be asked for."""
        if self._asking or self._has_leftovers or self._draining or self._error is not None:
            return
        if self.queue.phase() != Phase.RUNNING:
            return
        counts, station = self.queue.counts(), self._dispatcher.station
        waiting = 0 if station is None else station.dispatch.waiting
        low = max(self.settings.payload.cores, waiting)
        behind = counts.live >= self.settings.limits.live_ranges
        if counts.ready < low and not behind:
            self._asking = True
            self._told_meanwhile.clear()
            n = 2 * low - counts.ready
            self._call(self._asker, lambda: self._hooks.get_event_ranges(n), self._asked)

    def _asked(self, ranges: Iterable[EventRange] | None) -> None:
        if ranges is None:
            self.loop.call_later(ASK_AGAIN_S, self._ask_again)
            return
        self._asking = False
        given = list(ranges)
        if not all(isinstance(each, EventRange) for each in given):
            raise UsageError("get_event_ranges must give a sequence of EventRange, or None")
        with self.queue.moves() as moves:
            if given:
                # Handled after the hook had made up its mind: it would be begun again.
                new = [each for each in given if each.id not in self._told_meanwhile]
                moves.put_ranges(new, now=time.time())
            else:
                moves.set_phase(Phase.EXHAUSTED)
        self._dispatcher.look()

    def _ask_again(self) -> None:
        self._asking = False

    def _tell(self) -> None:
        """Have outcomes handled, the oldest first."""
        if self._telling or self._error:
            return
        if not self._rows:
            self._rows.extend(self.queue.done()[0])
            self._rows.extend(self.queue.failures())
        self._has_leftovers = self._has_leftovers and bool(self._rows)
        if self._rows:
            self._telling = True
            batch = [self._rows.popleft() for _ in range(min(BATCH, len(self._rows)))]
            self._call(self._teller, lambda: self._handle(batch), self._told)

    def _handle(self, batch: list[DoneRange | FailedRange]) -> list[DoneRange | FailedRange]:
        """Tell the hook, in its thread; returns what it has taken."""
        taken: list[DoneRange | FailedRange] = []
        for row in batch:
            try:
                self._hooks.handle_output(outcome_of(row))
            except BaseException as error:  # noqa: BLE001 - raised again by run()
                self._error = self._error or error
                break
            taken.append(row)
        return taken

    def _told(self, taken: list[DoneRange | FailedRange]) -> None:
        self._telling = False
        done = [row.id for row in taken if isinstance(row, DoneRange)]
        failed = [row.id for row in taken if isinstance(row, FailedRange)]
        self._told_meanwhile.update(done, failed)
        with self.queue.moves() as moves:
            self._finished += moves.forget_done(done)
            self._failed += moves.forget_failures(failed)
        if self._error is not None:
            self._fail(self._error)

    def _call(self, calls: Calls, hook: Callable[[], T], then: Callable[[T], None]) -> None:
        """Call a hook in its thread; whatever it raises ends the run."""

        def call() -> tuple[list[T], BaseException | None]:
            try:
                return [hook()], None
            except BaseException as error:  # noqa: BLE001 - raised again by run()
                return [], error

        def ended(answer: tuple[list[T], BaseException | None]) -> None:
            self._open -= 1
            result, error = answer
            try:
                if result:
                    then(result[0])
            except (EspilotError, TypeError) as raised:
                error = raised  # what it gave is unusable
            if error is not None:
                self._fail(error)

        self._open += 1
        calls.start(call, then=ended, failed=self._fail)

    # -- the end --------------------------------------------------------------------------------

    def _take_up(self) -> None:
        """Go on with what a former run on this directory has left."""
        found = repair(self.queue, is_whole, final_phase=Phase.ENDING, now=time.time())
        if found.returned or found.lost:
            self.log.info("recover", "ranges of a former run are ready again",
                          returned=len(found.returned), lost=len(found.lost))  # fmt: skip
        counts = self.queue.counts()
        self._has_leftovers = bool(counts.done + counts.failed + counts.fatal)
        job = Job(ONE_JOB, 0, ONE_JOB, 1, self.settings.payload.cores, self._lfns, "")
        with self.queue.moves() as moves:
            moves.set_job(job, Phase.RUNNING, {})

    def _beat(self) -> None:
        self._keeper.kill_overdue(time.monotonic())
        self._dispatcher.look()
        self._linger()

    def _linger(self) -> None:
        """A payload that has nothing and gets nothing any more has so long to end."""
        counts = self.queue.counts()
        over = counts.ready + counts.sent == 0 and self.queue.phase() == Phase.EXHAUSTED
        if over and self._lingering is None and self._keeper.life is Life.RUNNING:
            grace_s = self.settings.payload.exit_grace_s
            self._lingering = self.loop.call_later(grace_s, self._end_payload)
        elif not over and self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _stop(self) -> None:
        self._wakeup.clear()
        if not self._draining and self._stop_s is not None:
            self._draining = True
            self._direct()
            self.loop.call_later(self._stop_s, self._end_payload)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self.log.error("stop", "run ends early", error=repr(self._error))
        self._end_payload()

    def _end_payload(self) -> None:
        """Before its start, in its work, or between two starts."""
        self._keeper.stop(self.settings.payload.term_grace_s)

    def _is_over(self) -> bool:
        if self._keeper.life is not Life.OVER or self._open:
            return False
        if self._error is not None:
            return True
        counts = self.queue.counts()
        return not (counts.done or counts.failed or counts.fatal)

    def _flush_soon(self) -> None:
        self.loop.call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        # What cannot be written is counted and dropped: it is for people.
        self.story.flush()
