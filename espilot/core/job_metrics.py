"""The figures that go with a job's updates, in the names and units of the server.

Memory is told in kB; bytes read and written as bytes and as bytes per second; times in whole
seconds. What was not measured is not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KB = 1024
_MEMORY = ("max_rss", "avg_rss", "max_pss", "avg_pss")
_BYTES = (("rbytes", "read_bytes"), ("wbytes", "written_bytes"))
_LARGEST = 2**53


def resource_fields(
    used: Mapping[str, float], before: Mapping[str, float], wall_s: float
) -> dict[str, Any]:
    """Fields of a job update from what the payload has used so far.

    `used` and `before` (at the job's begin) hold `core.usage.Totals` by name; sums are told as
    their difference.
    """
    fields: dict[str, Any] = {}
    for name in _MEMORY:
        size = used.get(f"{name}_bytes", 0)
        if size > 0:
            fields[name] = int(size) // _KB
    for name, source in _BYTES:
        total = int(max(0.0, used.get(source, 0) - before.get(source, 0)))
        if source in used and total < _LARGEST:
            fields[f"tot_{name}"] = total
            fields[f"rate_{name}"] = int(total / wall_s) if wall_s > 0 else 0
    return fields


def cpu_seconds(used: Mapping[str, float], before: Mapping[str, float]) -> int | None:
    """CPU time of the job's payload; None when it was never measured."""
    if "cpu_s" not in used:
        return None
    return int(max(0.0, used["cpu_s"] - before.get("cpu_s", 0.0)))


def metrics_text(used: Mapping[str, float], counts: Mapping[str, int]) -> str:
    """Blank-separated `k=v` pairs for people: counts of ranges, and largest sizes."""
    pairs = {name: str(value) for name, value in counts.items()}
    for name in ("max_processes", "max_workdir_bytes"):
        if used.get(name, 0) > 0:
            pairs[name] = str(int(used[name]))
    return " ".join(f"{name}={value}" for name, value in pairs.items())


def timing_text(*, job_s: float, stagein_s: float, payload_s: float, stageout_s: float) -> str:
    """`getjob|stagein|payload|stageout|init|setup` in seconds; set-up is part of the start."""
    return "|".join(str(int(max(0.0, s))) for s in (job_s, stagein_s, payload_s, stageout_s, 0, 0))


def heartbeat_limit(period_s: float, *, is_event_job: bool, debug: bool, debug_s: float) -> float:
    """Seconds to the next heartbeat: normal jobs say less, debug mode says more."""
    if debug:
        return min(period_s, debug_s)
    return period_s if is_event_job else 3 * period_s
