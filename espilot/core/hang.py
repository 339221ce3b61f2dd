"""Hang of a payload: no message and no CPU use for too long. Hang of one range: held for too long.

The payload as a whole (`HangClock`):

* Both must be missing: a payload that computes is alive, and so is one that talks.
* Next to no CPU use is none: a process that only polls uses a little for ever.
* The clock stands still while the node was suspended.
* It begins with the first observation, that is with the start of the payload.
* A verdict is repeated until a sign of life; what is done about it is not decided here.

One range (`RangeWatch`), however busy its client is:

* The limit follows from how long ranges take here: `factor` times their median, not below the
  floor, not above the cap. As long as only few have ended, it is the cap.
* A client may hold ranges ahead: only the clock of its oldest one runs, from when it became that.
  A duration is counted from the hand-out, so it is rather too long, and with it the limit.
* Ranges that leave with their client are no durations.
* A pause between two looks that is far too long means that we were suspended, and counts nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espilot.core.limits import time_texts
from espilot.model import Verdict

LOOPING_JOB = 1150
HANGING_CLIENT = 1227
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


@dataclass(frozen=True, slots=True)
class Held:
    """A range that its client has held too long; `held_s` since it became the client's oldest."""

    client: str
    range_id: str
    held_s: float
    limit_s: float

    def verdict(self) -> Verdict:
        """The same in words."""
        held, limit = time_texts(self.held_s, self.limit_s)
        return Verdict(
            rule="range-hang",
            value=self.held_s,
            limit=self.limit_s,
            action="end-client",
            code=HANGING_CLIENT,
            text=f"range {self.range_id} is in work for {held}, the limit is {limit}",
        )


class Durations:
    """The last `kept` durations, and their median at any time. Memory is bounded."""

    def __init__(self, kept: int = 501) -> None:
        self._kept = kept
        self._by_age: deque[float] = deque()
        self._by_size: list[float] = []

    def add(self, duration_s: float) -> None:
        """One more; the oldest one is forgotten when there are too many."""
        if len(self._by_age) == self._kept:
            oldest = self._by_age.popleft()
            del self._by_size[bisect_left(self._by_size, oldest)]
        self._by_age.append(duration_s)
        insort(self._by_size, duration_s)

    def __len__(self) -> int:
        return len(self._by_age)

    def quantile(self, share: float) -> float:
        """The duration that this share of them does not exceed; 0 when there are none."""
        if not self._by_size:
            return 0.0
        return self._by_size[min(len(self._by_size) - 1, int(share * len(self._by_size)))]

    @property
    def median_s(self) -> float:
        """The middle one."""
        return self.quantile(0.5)


class RangeWatch:
    """Who holds which range since when, from looks at what is in hand; see the rules above.

    `cap_s` 0 means: no limit. It works by looks, not by moves, so the way of a range pays nothing.
    """

    ENOUGH = 5
    """Durations from which on their median is believed."""
    LOOK_S = 0.5
    """Looks that come faster are left out."""
    GAP_S = 5.0
    """A longer pause between two looks is a suspension."""
    FAST = 50
    """Ranges per look that came and went unseen, counted at most."""

    def __init__(self, *, factor: float, floor_s: float, cap_s: float) -> None:
        self._factor, self._floor_s, self._cap_s = factor, floor_s, cap_s
        self.durations = Durations()
        self._looked_mono: float | None = None
        self._awake_s = 0.0
        self._ended = 0
        self._since: dict[str, tuple[float, str]] = {}
        self._oldest: dict[str, tuple[str, float]] = {}

    @property
    def limit_s(self) -> float:
        """What a range may take now; 0 means: no limit."""
        if len(self.durations) < self.ENOUGH:
            return self._cap_s
        return min(self._cap_s, max(self._factor * self.durations.median_s, self._floor_s))

    def is_due(self, now_mono: float) -> bool:
        """Whether a look would be taken."""
        return self._looked_mono is None or now_mono - self._looked_mono >= self.LOOK_S

    def look(self, now_mono: float, hands: Mapping[str, Sequence[str]], ended: int) -> list[Held]:
        """What is held too long; told again at each look.

        `hands` has every connected client with the ranges it holds, the oldest first; `ended` is
        the number of outcomes so far.
        """
        if not self.is_due(now_mono):
            return []
        pause_s = 0.0 if self._looked_mono is None else now_mono - self._looked_mono
        self._looked_mono = now_mono
        pause_s = pause_s if pause_s <= self.GAP_S else 0.0
        self._awake_s += pause_s
        self._note_ended(hands, ended, pause_s)
        self._note_held(hands)
        return self._judge()

    def _note_ended(self, hands: Mapping[str, Sequence[str]], ended: int, pause_s: float) -> None:
        held = {range_id for ids in hands.values() for range_id in ids}
        gone = [range_id for range_id in self._since if range_id not in held]
        seen = 0
        for range_id in gone:
            since_s, client = self._since.pop(range_id)
            if client in hands:
                seen += 1
                self.durations.add(self._awake_s - since_s)
        fast, self._ended = ended - self._ended - seen, ended
        # Those that came and went between two looks: by Little's law, mean time = in hand / rate.
        mean_s = min(pause_s, pause_s * max(1, len(held)) / max(1, fast))
        for _ in range(min(fast, self.FAST)):
            self.durations.add(mean_s)

    def _note_held(self, hands: Mapping[str, Sequence[str]]) -> None:
        for client, ids in hands.items():
            for range_id in ids:
                self._since.setdefault(range_id, (self._awake_s, client))
        former, self._oldest = self._oldest, {}
        for client, ids in hands.items():
            if ids:
                known = former.get(client)
                same = known is not None and known[0] == ids[0]
                self._oldest[client] = known if known and same else (ids[0], self._awake_s)

    def _judge(self) -> list[Held]:
        limit_s = self.limit_s
        if limit_s <= 0:
            return []
        return [
            Held(client, range_id, self._awake_s - since_s, limit_s)
            for client, (range_id, since_s) in self._oldest.items()
            if self._awake_s - since_s > limit_s
        ]
