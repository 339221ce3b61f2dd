"""Looping of a normal payload: no file below its work directory has been changed for too long.

* Only regular files count, and none of the pilot's own, which are known by their exact paths.
* The first value is the start of the payload, so one that never writes is found as well.
* A look that finds nothing newer keeps the former value. A time in the future counts as now.
* Time in which the node was suspended does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espilot.core.hang import LOOPING_JOB
from espilot.core.limits import time_texts
from espilot.model import Verdict

LIMIT_S = 7200.0
_LONG_S = 7200.0


def looping_limit(max_cpu_s: float = 0.0, limit_s: float = LIMIT_S) -> float:
    """The limit of a job that declares its CPU time (`maxCpuCount`; 0: it does not).

    A job that declares two hours or more is given as much as it declares, and any other one at
    least the usual limit. `limit_s` 0 means: no limit.
    """
    if limit_s <= 0:
        return 0.0
    return max_cpu_s if max_cpu_s >= _LONG_S else max(limit_s, max_cpu_s)


def declared_limit(definition: Mapping[str, Any], limit_s: float) -> float:
    """The limit of the job of this definition: none where its `loopingCheck` is false."""
    if definition.get("loopingCheck") in (False, "False", "false"):
        return 0.0
    text = str(definition.get("maxCpuCount", ""))
    declared_s = float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0
    return looping_limit(declared_s, limit_s)


class LoopingClock:
    """The last change of a file of one payload. Times are Unix seconds, as those of files."""

    def __init__(self, started_at: float, limit_s: float) -> None:
        self._limit_s = limit_s
        self._touched_at = started_at

    def suspended(self, gap_s: float) -> None:
        """The node was suspended for so long."""
        self._touched_at += gap_s

    def observe(self, now: float, newest_change_at: float | None) -> Verdict | None:
        """Take the result of a complete look at the work directory (None: there is no file)."""
        if newest_change_at is not None:
            self._touched_at = max(self._touched_at, newest_change_at)
        self._touched_at = min(self._touched_at, now)
        silent_s = now - self._touched_at
        if not 0 < self._limit_s < silent_s:
            return None
        silent, limit = time_texts(silent_s, self._limit_s)
        return Verdict(
            rule="looping",
            value=silent_s,
            limit=self._limit_s,
            action="end-job",
            code=LOOPING_JOB,
            text=f"no file of the payload has changed for {silent}, the limit is {limit}",
        )
