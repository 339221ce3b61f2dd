"""What the payload of one job has used, over all its starts: largest and mean values, and sums.

* Sums of one start only grow: a child that was never waited for takes its figures with it, and
  then the largest sum that was seen stands.
* A mean is over time: each value counts for as long as it was the newest one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """One measurement of a tree. Sums are since its start; None: not measured this time."""

    processes: int
    rss_bytes: int
    cpu_s: float
    pss_bytes: int | None = None
    read_bytes: int = 0
    written_bytes: int = 0
    swap_bytes: int | None = None


class Gauge:
    """Largest and mean of a value that changes."""

    def __init__(self) -> None:
        self.largest = 0
        self._area = self._time_s = 0.0
        self._last: tuple[float, int] | None = None

    def take(self, now_mono: float, value: int) -> None:
        """A new value."""
        if self._last is not None:
            lasted_s = max(0.0, now_mono - self._last[0])
            self._area += lasted_s * self._last[1]
            self._time_s += lasted_s
        self._last = (now_mono, value)
        self.largest = max(self.largest, value)

    def pause(self) -> None:
        """The value is not known from now on: the payload has ended, or we were suspended."""
        self._last = None

    @property
    def now(self) -> int:
        """The newest value; 0 while none is known."""
        return 0 if self._last is None else self._last[1]

    @property
    def time_s(self) -> float:
        """For how long a value was known."""
        return self._time_s

    @property
    def mean(self) -> int:
        """The mean over the time in which it was known."""
        return int(self._area / self._time_s) if self._time_s else self.largest


@dataclass(frozen=True, slots=True)
class Totals:
    """The figures of a job so far."""

    max_rss_bytes: int = 0
    avg_rss_bytes: int = 0
    max_pss_bytes: int = 0
    avg_pss_bytes: int = 0
    max_processes: int = 0
    max_workdir_bytes: int = 0
    cpu_s: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0

    def as_dict(self) -> dict[str, float]:
        """For messages and JSON."""
        return asdict(self)


class UsageTally:
    """Collects the measurements of one job."""

    def __init__(self) -> None:
        self._rss, self._pss = Gauge(), Gauge()
        self._max_processes = self._max_workdir_bytes = 0
        self.workdir_bytes: int | None = None
        self._before: list[float] = [0.0, 0.0, 0.0]
        self._now: list[float] = [0.0, 0.0, 0.0]

    def payload_started(self) -> None:
        """Another start: its sums begin at nothing."""
        self._before = [a + b for a, b in zip(self._before, self._now, strict=True)]
        self._now = [0.0, 0.0, 0.0]
        self.pause()

    def pause(self) -> None:
        """No value is known for a while."""
        self._rss.pause()
        self._pss.pause()

    def take(self, now_mono: float, usage: Usage) -> None:
        """One measurement."""
        self._rss.take(now_mono, usage.rss_bytes)
        if usage.pss_bytes is not None:
            self._pss.take(now_mono, usage.pss_bytes)
        self._max_processes = max(self._max_processes, usage.processes)
        sums = (usage.cpu_s, usage.read_bytes, usage.written_bytes)
        self._now = [max(a, b) for a, b in zip(self._now, sums, strict=True)]

    def take_workdir(self, size_bytes: int) -> None:
        """The size of the work directory."""
        self.workdir_bytes = size_bytes
        self._max_workdir_bytes = max(self._max_workdir_bytes, size_bytes)

    @property
    def now(self) -> tuple[int, int]:
        """Resident and proportional size as measured last; 0 while the payload does not run."""
        return self._rss.now, self._pss.now

    def efficiency(self, cores: int) -> float | None:
        """CPU time of the payload over that of its cores while it ran; None before it did."""
        core_s = self._rss.time_s * cores
        return self.totals.cpu_s / core_s if core_s else None

    @property
    def totals(self) -> Totals:
        """The figures so far."""
        cpu_s, read, written = (a + b for a, b in zip(self._before, self._now, strict=True))
        return Totals(
            max_rss_bytes=self._rss.largest,
            avg_rss_bytes=self._rss.mean,
            max_pss_bytes=self._pss.largest,
            avg_pss_bytes=self._pss.mean,
            max_processes=self._max_processes,
            max_workdir_bytes=self._max_workdir_bytes,
            cpu_s=cpu_s,
            read_bytes=int(read),
            written_bytes=int(written),
        )
