"""One look at a running pilot, for the service manager and for metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from espilot.model import AtRisk, Counts


@dataclass(frozen=True, slots=True)
class Look:
    """The run as the supervisor sees it once a second.

    `facts` is what it answers to `StatusRequest`, `heard` each role's last sign of life
    (monotonic), `closing` whether its roles are being ended. `at_risk` reads the queue.
    """

    counts: Counts
    facts: Mapping[str, Any]
    heard: Mapping[str, float]
    closing: bool
    at_risk: Callable[[], AtRisk]
