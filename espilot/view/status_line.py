"""How a pilot stands, in one line: for the service manager's status."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from espilot.model import Counts


def status_line(counts: Counts, facts: Mapping[str, Any], now: float) -> str:
    """The job, what is safe and what is not, the rate, and until when; `now` is Unix time.

    `facts` is what the supervisor answers to `StatusRequest`.
    """
    run = facts.get("run") or {}
    drain = run.get("drain") or {}
    tail = counts.done + counts.packed + counts.staged
    parts = [job_part(run), f"{counts.finished} reported", f"{counts.sent} running"]
    rate = (facts.get("rates") or {}).get("events_per_s")
    if rate:
        parts.append(f"{rate:.1f} ev/s")
    parts.append(f"tail {tail}")
    if run.get("storage") not in ("ok", "", None):
        parts.append(f"storage {run['storage']}")
    if drain.get("draining"):
        parts.insert(0, f"draining ({drain['draining']}, {drain.get('step')})")
    left_s = drain.get("deadline_in_s")
    if left_s is not None:
        parts.append(f"drain by {time.strftime('%H:%M', time.localtime(now + left_s))}")
    return " · ".join(parts)


def job_part(run: Mapping[str, Any]) -> str:
    """Which job, and what its payload does."""
    if not run.get("panda_id"):
        return "waiting for a job"
    return f"job {run['panda_id']} ({run.get('phase')}, payload {run.get('life')})"
