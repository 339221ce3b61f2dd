"""The asking side of a drain: find the pilot of a state directory, ask it, wait for its end."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espilot.errors import LocalError
from espilot.supervisor.observation import living_pilot
from espilot.supervisor.people import ask
from espilot.supervisor.resume import read_run
from espilot.supervisor.statedir import read_record
from espilot.wire.messages import DrainAnswer, DrainRequest


def request_drain(
    state: Path, *, deadline: str, plan_only: bool, timeout_s: float
) -> Mapping[str, Any] | None:
    """Ask the pilot that uses `state` to drain; its pid and plan, None when it does not answer.

    `LocalError` when no pilot runs there, `UsageError` when it refuses.
    """
    pid = living_pilot(state)
    if pid is None:
        raise LocalError(f"no pilot runs on {state}; if one did: espilot recover {state}")
    runtime = Path(str(read_record(state).get("runtime", "")))
    answer = ask(runtime, DrainRequest(deadline, plan_only), DrainAnswer, timeout_s=timeout_s)
    return None if answer is None else {"pid": answer.pid, **answer.facts}


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
