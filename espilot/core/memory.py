"""Memory of the payload: pure functions from one measurement to a verdict or nothing.

* What counts is the proportional set size (PSS) of the whole tree: shared pages count once. It is
  dear to measure; the resident sizes are cheap, and their sum is never below it.
* In a control group with a limit the kernel ends processes at that limit. The verdict comes before
  it, from what the kernel could not give back (file cache does not count).
* A limit of 0 means: no limit. Too much memory ends the job: started anew, it would take it again.
"""

from __future__ import annotations

from espilot.core.limits import size_text, size_texts
from espilot.model import Verdict

OUT_OF_MEMORY = 1212
TOO_MUCH_MEMORY = 1235
GROUP_SHARE = 0.95
"""Part of the control group's limit at which we act, before the kernel does."""
WALL_SHARE = 1.05
"""The kernel's limit of the payload's own group over ours: our verdict comes before it."""
TASKS_PER_PROCESS = 32
"""The kernel counts threads as well; it is to stop a payload that forks without end."""
TASKS_KEPT = 256
"""Of what the node allows us, so many tasks are kept from the payload."""
COST_SHARE = 0.02
"""Part of the time that measuring the PSS may take at most."""


def scaled_limit(limit_bytes: int, cores: int, all_cores: int) -> int:
    """The limit of a job that has so many of all cores, of which the limit is; 0 for none."""
    return int(limit_bytes * min(max(1, cores), max(1, all_cores)) / max(1, all_cores))


def swap(used_bytes: int | None, limit_bytes: int) -> Verdict | None:
    """What of the payload's tree was swapped out; None: not measured."""
    if used_bytes is None or not 0 < limit_bytes < used_bytes:
        return None
    used, limit = size_texts(used_bytes, limit_bytes)
    return Verdict(
        rule="swap",
        value=used_bytes,
        limit=limit_bytes,
        action="end-job",
        code=TOO_MUCH_MEMORY,
        text=f"the payload has {used} in swap, the limit is {limit}",
    )


def tree(pss_bytes: int | None, rss_bytes: int, limit_bytes: int) -> Verdict | None:
    """The payload's tree; without a PSS (it could not be read) its resident sizes must do."""
    used_bytes, what = (rss_bytes, "RSS") if pss_bytes is None else (pss_bytes, "PSS")
    if not 0 < limit_bytes < used_bytes:
        return None
    used, limit = size_texts(used_bytes, limit_bytes)
    return Verdict(
        rule="memory",
        value=used_bytes,
        limit=limit_bytes,
        action="end-job",
        code=TOO_MUCH_MEMORY,
        text=f"the payload takes {used} of memory ({what}), the limit is {limit}",
    )


def group(used_bytes: int, limit_bytes: int, share: float = GROUP_SHARE) -> Verdict | None:
    """The control group; `used_bytes` without what the kernel can give back."""
    act_bytes = int(limit_bytes * share)
    if not 0 < act_bytes < used_bytes:
        return None
    used, limit = size_texts(used_bytes, limit_bytes)
    return Verdict(
        rule="group-memory",
        value=used_bytes,
        limit=act_bytes,
        action="end-job",
        code=TOO_MUCH_MEMORY,
        text=f"the control group takes {used} of memory, at its limit of {limit} the kernel "
        "ends processes",
    )


def oom_kills(former: int, number: int) -> Verdict | None:
    """The kernel has ended processes of the group: only noted, their end is seen by itself."""
    if number <= former:
        return None
    return Verdict(
        rule="out-of-memory",
        value=number - former,
        limit=0,
        action="note",
        code=OUT_OF_MEMORY,
        text=f"the kernel has ended {number - former} processes for lack of memory",
    )


def wall(limit_bytes: int) -> int:
    """Where the kernel stops the payload's own group, above the limit; 0 for none."""
    return int(limit_bytes * WALL_SHARE)


def task_wall(processes: int, room: int) -> int:
    """How many tasks the payload's own group may have with that limit of processes; 0 for none.

    `room` is what all of us may have: some of it stays the pilot's, so that it can go on.
    """
    left = room - min(TASKS_KEPT, room // 2)
    return min((each for each in (processes * TASKS_PER_PROCESS, left) if each), default=0)


def payload_kills(kills: int, peak_bytes: int | None, limit_bytes: int) -> Verdict | None:
    """The kernel has ended processes of the payload: at its own limit, or (0) for the node's need.

    At its limit the job ends as with our own verdict, which was not fast enough.
    """
    if kills <= 0:
        return None
    many = "1 process" if kills == 1 else f"{kills} processes"
    text = f"the kernel has ended {many} of the payload"
    had = f"; at most it had {size_text(peak_bytes)}" if peak_bytes else ""
    if not limit_bytes:
        text += f" for lack of memory of the node{had}"
        return Verdict("out-of-memory", kills, 0, "note", OUT_OF_MEMORY, text)
    text += f" for lack of memory: its control group may have {size_text(limit_bytes)}{had}"
    return Verdict("out-of-memory", kills, 0, "end-job", OUT_OF_MEMORY, text)


class PssPlan:
    """When the PSS is measured: every `every_s`, and sooner when the resident sizes are too large.

    A measurement that took long is not repeated before it is a small part of the time.
    """

    def __init__(self, every_s: float, limit_bytes: int) -> None:
        self._every_s = every_s
        self._limit_bytes = limit_bytes
        self._measured_mono: float | None = None
        self._pause_s = 0.0

    def is_due(self, now_mono: float, rss_bytes: int) -> bool:
        """Whether to measure now."""
        if self._measured_mono is None:
            return True
        waited_s = now_mono - self._measured_mono
        suspect = 0 < self._limit_bytes < rss_bytes
        return waited_s >= (self._pause_s if suspect else max(self._every_s, self._pause_s))

    def measured(self, now_mono: float, took_s: float) -> None:
        """It was measured just now."""
        self._measured_mono = now_mono
        self._pause_s = took_s / COST_SHARE
