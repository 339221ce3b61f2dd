"""The asking side of a drain: find the pilot of a state directory, ask it, wait for its end."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from espilot.core.deadline import read_left
from espilot.core.drain import make_plan
from espilot.errors import LocalError
from espilot.queue.reading import QueueReader
from espilot.supervisor.figures import Figures
from espilot.supervisor.observation import living_pilot
from espilot.supervisor.people import ask
from espilot.supervisor.resume import read_run, recorded_context
from espilot.supervisor.statedir import read_record
from espilot.wire.messages import DrainAnswer, DrainRequest


def request_drain(
    state: Path, *, deadline: str, plan_only: bool, timeout_s: float
) -> Mapping[str, Any] | None:
    """Ask the pilot that uses `state` to drain; its pid and plan, None when it does not answer.

    Where none runs there is still a plan, of what one has left. `LocalError` when there is nobody
    to drain, `UsageError` when it refuses.
    """
    pid = living_pilot(state)
    if pid is None and plan_only:
        return plan_of_left(state, read_left(deadline, time.time()))
    if pid is None:
        raise LocalError(f"no pilot runs on {state}; if one did: espilot recover {state}")
    runtime = Path(str(read_record(state).get("runtime", "")))
    answer = ask(runtime, DrainRequest(deadline, plan_only), DrainAnswer, timeout_s=timeout_s)
    return None if answer is None else {"pid": answer.pid, **answer.facts}


def plan_of_left(state: Path, left_s: float | None) -> Mapping[str, Any]:
    """What `espilot recover` would do with what is left, without processing anything again.

    `LocalError` or `UsageError` when that cannot be told.
    """
    context = recorded_context(state, state)
    with closing(QueueReader(context.queue)) as queue:
        counts, figures = queue.counts(), Figures(context, queue)
        stock = figures.stock(counts, payload_alive=False, storage="ok")
        # Who had a range in hand is dead.
        stock = replace(stock, running=0, ready=stock.ready + counts.sent)
        plan = make_plan(stock, figures.pace(counts), left_s=left_s)
    deadline = {"deadline_in_s": left_s, "deadline_source": None, "draining": "", "step": ""}
    return {"pid": None, **asdict(plan), "total_s": plan.total_s, **deadline}


def wait_for_end(pid: int, timeout_s: float | None) -> bool:
    """Wait for the end of a process; False when it did not come in time."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    try:
        return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))
    finally:
        os.close(pidfd)


def how_it_ended(state: Path) -> str:
    """The state in the summary that the pilot wrote: `drained`, ...; `killed` without one."""
    summary = read_run(state).get("summary")
    return str(summary.get("state")) if isinstance(summary, dict) else "killed"
