"""Hang of a payload: no message and no CPU use for too long.

* Both must be missing: a payload that computes is alive, and so is one that talks.
* Next to no CPU use is none: a process that only polls uses a little for ever.
* The clock stands still while the node was suspended.
* It begins with the first observation, that is with the start of the payload.
* A verdict is repeated until a sign of life; what is done about it is not decided here.
"""

from __future__ import annotations

from espilot.core.limits import time_texts
from espilot.model import Verdict

LOOPING_JOB = 1150
IDLE_SHARE = 0.005
_WINDOW_S = 1.0


class HangClock:
    """The silence of one payload. One clock per start of the payload.

    `idle_share` is the use of one core, averaged over a second or more between observations,
    up to which a payload counts as idle. `hang_s` 0 means: never.
    """

    def __init__(self, hang_s: float, *, idle_share: float = IDLE_SHARE) -> None:
        self._hang_s = hang_s
        self._idle_share = idle_share
        self._now_mono: float | None = None
        self._suspended_s = self._message_mono = 0.0
        self._window_s = self._window_cpu_s = 0.0
        self.silent_s = 0.0

    def observe(
        self, now_mono: float, *, last_message_mono: float, cpu_s: float, suspended_s: float = 0.0
    ) -> Verdict | None:
        """Take one measurement; the verdict when the silence is longer than allowed.

        `cpu_s` is that of the whole tree since its start, `suspended_s` the sum of all suspensions
        so far. A CPU time that fell (a child's was lost with its parent) is no sign of life.
        """
        if self._now_mono is None:
            awake_s = 0.0
            self._window_cpu_s = cpu_s
            self._message_mono = last_message_mono
        else:
            slept_s = suspended_s - self._suspended_s
            awake_s = max(0.0, now_mono - self._now_mono - slept_s)
        self._now_mono, self._suspended_s = now_mono, suspended_s
        self.silent_s += awake_s
        if last_message_mono > self._message_mono:
            self._message_mono = last_message_mono
            self.silent_s = min(self.silent_s, max(0.0, now_mono - last_message_mono))
        if self._computed(awake_s, cpu_s):
            self.silent_s = 0.0
        return self._judge()

    def _computed(self, awake_s: float, cpu_s: float) -> bool:
        """Whether more than next to no CPU time was used since the window began."""
        self._window_s += awake_s
        self._window_cpu_s = min(self._window_cpu_s, cpu_s)
        if self._window_s < _WINDOW_S:
            return False
        used_s = cpu_s - self._window_cpu_s
        computed = used_s > self._idle_share * self._window_s
        self._window_s, self._window_cpu_s = 0.0, cpu_s
        return computed

    def _judge(self) -> Verdict | None:
        if not 0 < self._hang_s < self.silent_s:
            return None
        silent, limit = time_texts(self.silent_s, self._hang_s)
        return Verdict(
            rule="hang",
            value=self.silent_s,
            limit=self._hang_s,
            action="end-payload",
            code=LOOPING_JOB,
            text=f"the payload has sent no message and used no CPU for {silent}, "
            f"the limit is {limit}",
        )
