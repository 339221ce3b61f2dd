"""The drain of a run: begun by an order or by a deadline that comes near, carried out by plan.

Stage-out, reports and the final update go their own way, as at every end of a job. Decided here is
when the payload is stopped, and when nothing can be waited for any longer. The plan is made anew
at each look.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from espilot.adapters.loop import Loop, Timer
from espilot.config import DrainConfig
from espilot.core import drain
from espilot.core.deadline import PREEMPTED, Cause, Horizon, code_of, longest_call_s, read_left
from espilot.core.drain import IDLE_S, Pace, Plan, Stock
from espilot.core.exit_code import code_of_signal
from espilot.logs import Log
from espilot.supervisor.deadlines import REQUEST, SIGNAL, DeadlineWatch
from espilot.wire.messages import DrainAnswer, DrainRequest
from espilot.workers.context import Context

LEAST_S = 0.02
"""Less than this is now."""
LATE_S = 2.0


class Run(Protocol):
    """What a drain does with the run."""

    def drain_begun(self, cause: Cause) -> None:
        """Hand out and fetch no more, ship what is done; again when there is less time."""
        ...

    def stop_payload(self, within_s: float) -> None:
        """End the payload, with KILL after that time."""
        ...

    def out_of_time(self, reason: str) -> None:
        """End everything now; the job gets no final update."""
        ...

    def measure(self) -> tuple[Stock, Pace]:
        """What the plan is made of."""
        ...


class Drain:
    """At most one for a run; it never goes back."""

    def __init__(
        self, run: Run, watch: DeadlineWatch, log: Log, *, loop: Loop, settle_s: float
    ) -> None:
        self.reason = ""
        self._code = 0
        self.watch = watch
        self._run = run
        self._log = log
        self._loop = loop
        self._settle_s = settle_s
        self._begun_at = 0.0
        self._idle_since: float | None = None
        self._stopped = False
        self._first: Plan | None = None
        self._timer: Timer | None = None
        self._budget_s = 0.0

    @property
    def begun(self) -> bool:
        """Whether the run drains."""
        return self._first is not None

    def order(
        self,
        reason: str,
        left_s: float | None = None,
        *,
        source: str = REQUEST,
        code: int = PREEMPTED,
    ) -> None:
        """Drain now, in so many seconds if that is known. Again: it can only become shorter.

        `code` is the pilot error code of the job, if none of its ranges was finished.
        """
        if left_s is not None:
            self.watch.order(source, left_s, reason)
        if self.begun:
            self._log.info("drain", "drain ordered again", reason=reason)
            self._tell()
            self._go_on()
        else:
            self._begin(reason, code)

    @property
    def source(self) -> str:
        """What the deadline of the drain comes from; "" without one, and while nothing drains."""
        earliest = self.watch.earliest()
        return earliest.source if self.begun and earliest is not None else ""

    def horizon(self, context: Context) -> Horizon:
        """Whether further jobs are taken from a foreign server, and how much time they have.

        The end is that of the full minute before it, so that it is not told anew all the time.
        """
        earliest, least_s = self.watch.earliest(), context.settings.jobs.least_left_s
        over = self.reason if self.begun else ""
        if earliest is None:
            return Horizon(over)
        is_late = earliest.at_mono - time.monotonic() < least_s
        late = f"less than {least_s:g} s are left until {earliest.text}" if is_late else ""
        return Horizon(over, late, earliest.at_mono // 60.0 * 60.0)

    def signalled(self, number: int, name: str, config: DrainConfig) -> None:
        """A signal came."""
        left_s, code = grace_s(number, config), code_of_signal(number)
        self.order(name, left_s, source=SIGNAL, code=code)

    def look(self, now: float) -> None:
        """See what the time has brought, about once a second."""
        reason = self.watch.look(now)
        if reason:
            self.order(reason)
        earliest, plan = self.watch.earliest(), self.plan()
        self._budget_s = plan.stop_s + plan.tail_s
        if not self.begun and earliest is not None:
            stock, pace = self._run.measure()
            if earliest.at_mono - now <= drain.lead_s(stock, pace):
                self._begin(f"{earliest.text} comes near", code_of(earliest.source))
        elif self.begun:
            self._go_on()

    def suspended(self, gap_s: float) -> None:
        """The machine slept."""
        self.watch.suspended(gap_s)
        self._begun_at += gap_s
        if self._idle_since is not None:
            self._idle_since += gap_s

    def plan(self, left_s: float | None = None) -> Plan:
        """The plan of a drain that would begin now, or goes on; `left_s` if that is less."""
        known_s = self._left_s(time.monotonic())
        times = [each for each in (known_s, left_s) if each is not None]
        stock, pace = self._run.measure()
        return drain.make_plan(stock, pace, left_s=min(times, default=None))

    def asked(self, request: DrainRequest) -> DrainAnswer:
        """A person wants a drain, or to see its plan; `UsageError` for an unusable deadline."""
        left_s = read_left(request.deadline, time.time())
        plan = self.plan(left_s)
        if not request.plan_only:
            self.order("espilot drain", left_s)
        return DrainAnswer(os.getpid(), {**asdict(plan), "total_s": plan.total_s, **self.facts()})

    def facts(self) -> Mapping[str, Any]:
        """For status: the deadline, its source, and the present step."""
        earliest, now = self.watch.earliest(), time.monotonic()
        return {
            "draining": self.reason,
            "step": self._step(),
            "budget_s": self._budget_s,
            "deadline_in_s": None if earliest is None else max(0.0, earliest.at_mono - now),
            "deadline_source": None if earliest is None else earliest.source,
        }

    def _begin(self, reason: str, code: int) -> None:
        self.reason, self._code = reason, code
        plan = self._first = self.plan()
        self._begun_at = time.monotonic()
        self._log.warning("drain", "draining", reason=reason, left_s=plan.left_s, run_s=plan.run_s,
                          stop_s=plan.stop_s, tail_s=plan.tail_s, safe=plan.safe, back=plan.back,
                          kept=plan.kept, lost=plan.lost)  # fmt: skip
        self._tell()
        self._go_on()

    def _tell(self) -> None:
        now = time.monotonic()
        final_in_s = self.plan().final_in_s
        final_by = 0.0 if final_in_s is None else now + final_in_s
        call_s = longest_call_s(self._left_s(now))
        self._run.drain_begun(Cause(self._code, self.reason, call_s, final_by))

    def _go_on(self) -> None:
        now = time.monotonic()
        left_s = self._left_s(now)
        stock, pace = self._run.measure()
        plan = drain.make_plan(stock, pace, left_s=left_s)
        wait_s = self._wait_s(plan, stock, now)
        if stock.payload_alive and not self._stopped and wait_s <= LEAST_S:
            self._stopped = True
            self._log.info(
                "drain", "payload is stopped", within_s=plan.stop_s, running=stock.running
            )
            self._run.stop_payload(plan.stop_s)
        times = [wait_s] if stock.payload_alive and not self._stopped else []
        end_s = self._end_s(plan, now)
        if end_s <= LEAST_S:
            self._run.out_of_time(f"no time was left ({self.reason})")
            return
        if self._timer is not None:
            self._timer.cancel()
        due = now + max(LEAST_S, min([*times, end_s]))
        self._timer = self._loop.call_at(due, lambda: self._on_time(due))

    def _on_time(self, due: float) -> None:
        """The timer: far too late means that we were suspended, which the next look is told of."""
        if time.monotonic() - due < LATE_S:
            self._go_on()

    def _wait_s(self, plan: Plan, stock: Stock, now: float) -> float:
        """How long the payload is still waited for."""
        if stock.running:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        waits = []
        if self._idle_since is not None:
            waits.append(self._idle_since + IDLE_S - now)
        if plan.left_s is not None:
            waits.append(plan.run_s)
        elif stock.running and self._first is not None:
            waits.append(self._begun_at + self._first.run_s - now)
        return min(waits, default=0.0)

    def _end_s(self, plan: Plan, now: float) -> float:
        """How long all the rest is waited for; without a deadline beyond any reason."""
        assert self._first is not None
        if plan.left_s is not None:
            # As it was planned at first: cut to the time left again and again it would vanish.
            return plan.left_s - max(plan.exit_s, self._first.exit_s)
        return self._begun_at + self._first.total_s + self._settle_s - now

    def _left_s(self, now: float) -> float | None:
        earliest = self.watch.earliest()
        return None if earliest is None else max(0.0, earliest.at_mono - now)

    def _step(self) -> str:
        if not self.begun:
            return ""
        stock, _ = self._run.measure()
        if stock.payload_alive:
            return "stop payload" if self._stopped else "run"
        for name, ranges in (("pack", stock.done), ("upload", stock.packed)):
            if ranges:
                return name
        return "report" if stock.staged else "final update"


def grace_s(number: int, config: DrainConfig) -> float:
    """How long after a signal we may live."""
    if number in (signal.SIGUSR1, signal.SIGUSR2):
        return config.notice_s
    return config.interrupt_s if number == signal.SIGINT else config.grace_s
