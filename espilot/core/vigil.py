"""What a service manager is told of a pilot, and when.

Rules:
* Ready: every essential role was heard, and the server was tried (its answer does not matter).
* The watchdog is fed only when every essential role was heard since it was fed last: one dead loop
  starves it. While the pilot closes its roles end one after the other; then our own loop counts.
* More time is asked for at every look while the start or the end takes longer: each time for the
  same span, of which at most half has passed at the next one; for the end up to a limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ESSENTIAL = ("dispatcher", "event-server", "stageout")
EXTEND_S = 60.0
EXTEND_EVERY_S = 15.0
"""Far less than half of it."""


class Vigil:
    """Times are monotonic; `watchdog_s` None: nobody watches us. `heard` has each role's last sign
    of life."""

    def __init__(
        self, *, watchdog_s: float | None, stop_max_s: float, roles: Sequence[str] = ESSENTIAL
    ) -> None:
        self.ready = False
        self.stop_max_s = stop_max_s
        self._watchdog_s = watchdog_s
        self._roles = roles
        self._fed: float | None = None
        self._extended: float | None = None
        self._stop_began: float | None = None

    def becomes_ready(self, heard: Mapping[str, float], *, server_tried: bool) -> bool:
        """Whether the pilot is ready now and was not before."""
        if self.ready or not server_tried or any(role not in heard for role in self._roles):
            return False
        self.ready = True
        return True

    def feeds(self, heard: Mapping[str, float], now: float, *, closing: bool) -> bool:
        """Whether the watchdog is to be fed now."""
        if self._watchdog_s is None:
            return False
        if self._fed is not None and now - self._fed < self._watchdog_s / 3:
            return False
        since = float("-inf") if self._fed is None else self._fed
        if not closing and not all(heard.get(role, float("-inf")) > since for role in self._roles):
            return False
        self._fed = now
        return True

    def extends_s(self, now: float, *, stopping: bool) -> float:
        """For how much more time to ask now; 0 for none."""
        if stopping and self._stop_began is None:
            self._stop_began, self._extended = now, None
        if self.ready and not stopping:
            return 0.0
        if self._extended is not None and now - self._extended < EXTEND_EVERY_S:
            return 0.0
        left_s = EXTEND_S
        if self._stop_began is not None:
            left_s = min(EXTEND_S, self._stop_began + self.stop_max_s - now)
        if left_s <= 0:
            return 0.0
        self._extended = now
        return left_s
