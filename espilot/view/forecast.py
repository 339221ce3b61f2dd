"""When a run will be finished, or how far it comes before it must be gone; by its present pace."""

from __future__ import annotations

import math
from dataclasses import dataclass

from espilot.view.wording import clock_text, duration_text

TAIL_S = 5.0
"""So long before a deadline nothing new becomes safe."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """`text` is a sentence; `good` is None when nothing can be said."""

    text: str
    good: bool | None
    at_end: int | None = None
    eta_s: float | None = None


def forecast(
    *, total: int, finished: int, lost: int, rate: float, now: float, deadline_in_s: float | None
) -> Forecast:
    """Of `total` ranges `finished` are safe, `lost` will never be; `rate` is ranges per second."""
    left = max(0, total - finished - lost)
    if not total:
        return Forecast("The size of the task is not known, so nothing can be forecast.", None)
    if not left:
        return Forecast(f"All of {total:,} ranges have ended.", lost == 0, finished, 0.0)
    if not math.isfinite(rate) or rate <= 0:
        return Forecast(f"{left:,} of {total:,} ranges are left; no pace is known yet.", None)
    eta_s = left / rate
    until = clock_text(now + min(eta_s, 1e9))[:16]
    if deadline_in_s is None:
        text = (
            f"Will finish {total - lost:,} of {total:,} in about {duration_text(eta_s)} ({until})."
        )
        return Forecast(text, True, total - lost, eta_s)
    more = min(left, int(rate * max(0.0, deadline_in_s - TAIL_S)))
    gone = clock_text(now + deadline_in_s)[11:16]
    text = f"Will finish {finished + more:,} of {total:,} before the deadline ({gone})."
    if more >= left:
        text += f" That takes about {duration_text(eta_s)} more."
    return Forecast(text, more >= left, finished + more, eta_s)
