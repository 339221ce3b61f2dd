"""The limits of the slot that a batch system gave us, as its job features tell them.

* Each limit that is there counts; where the settings have one too, the smaller one.
* 0, nothing, or what is no number means: no limit. What is no number is told.
* CPU time ends the job as wall time does: by a drain that begins early enough. All cores may be
  busy until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from espilot.core.deadline import number_of

CPU_KEY = "cpu_limit_secs"


@dataclass(frozen=True, slots=True)
class Slot:
    """Limits of the whole job; 0 for none."""

    rss_bytes: int = 0
    swap_bytes: int = 0
    scratch_bytes: int = 0
    cpu_s: float = 0.0
    warnings: tuple[str, ...] = ()


def read_slot(job: Mapping[str, str]) -> Slot:
    """The limits in the keys of JOBFEATURES (HSF-TN-2016-02)."""
    warnings: list[str] = []

    def read(key: str) -> float:
        return number_of(key, job, warnings) or 0.0

    return Slot(
        rss_bytes=int(read("max_rss_bytes")),
        swap_bytes=int(read("max_swap_bytes")),
        scratch_bytes=int(read("scratch_limit_bytes")),
        cpu_s=read(CPU_KEY),
        warnings=tuple(warnings),
    )


def smaller(first: int, second: int) -> int:
    """The smaller one of two limits, of which 0 is none."""
    return min(first, second) if first and second else first or second


def cpu_left_s(slot: Slot, used_s: float, cores: int) -> float | None:
    """How long the CPU time lasts when all cores are busy; None without a limit."""
    if not slot.cpu_s:
        return None
    return max(0.0, slot.cpu_s - used_s) / max(1, cores)
