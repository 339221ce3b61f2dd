"""What the clients did, and the sum over all of them."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

NS_PER_MS = 1e6
Packed = bytes
_HISTOGRAM_MS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)


@dataclass(slots=True)
class Counts:
    """What one client did. Latencies are nanoseconds from request to reply."""

    ranges: int = 0
    requests: int = 0
    replies: int = 0
    no_more: int = 0
    failed: int = 0
    bytes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    heard: Counter[str] = field(default_factory=Counter)
    started_s: float = field(default_factory=time.monotonic)
    ended_s: float = 0.0
    latencies_ns: array[int] = field(default_factory=lambda: array("Q"))

    def packed(self) -> Packed:
        """Return it as bytes, to be sent to the parent."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        maps = {"faults": dict(self.faults), "heard": dict(self.heard)}
        packed: Packed = msgpack.packb(numbers | maps | {"latencies": self.latencies_ns.tobytes()})
        return packed


_NUMBERS = ("ranges", "requests", "replies", "no_more", "failed", "bytes", "started_s", "ended_s")
_SUMMED = _NUMBERS[:6]


def unpacked(data: bytes) -> Counts:
    """Return the counts that a client sent."""
    found = msgpack.unpackb(data)
    latencies_ns: array[int] = array("Q")
    latencies_ns.frombytes(found.pop("latencies"))
    faults, heard = Counter(found.pop("faults")), Counter(found.pop("heard"))
    return Counts(faults=faults, heard=heard, latencies_ns=latencies_ns, **found)


def summary(all_counts: Sequence[Counts]) -> dict[str, Any]:
    """Return the sum over all clients that came to an orderly end, for the JSON line."""
    total: dict[str, Any] = {"clients": len(all_counts)}
    total |= {name: sum(getattr(c, name) for c in all_counts) for name in _SUMMED}
    total["faults"] = dict(sum((c.faults for c in all_counts), Counter()))
    total["heard"] = dict(sum((c.heard for c in all_counts), Counter()))
    first_s = min((c.started_s for c in all_counts), default=0.0)
    last_s = max((c.ended_s for c in all_counts), default=0.0)
    total["wall_s"] = round(last_s - first_s, 6)
    total["request_to_reply_ms"] = _distribution(all_counts)
    return total


def _distribution(all_counts: Sequence[Counts]) -> dict[str, Any]:
    times = sorted(ns / NS_PER_MS for c in all_counts for ns in c.latencies_ns)
    if not times:
        return {"count": 0}
    return {
        "count": len(times),
        "median": _quantile(times, 0.5),
        "p90": _quantile(times, 0.9),
        "p99": _quantile(times, 0.99),
        "max": round(times[-1], 4),
        "histogram": _histogram(times),
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)


def _histogram(ordered: Sequence[float]) -> dict[str, int]:
    """Count times by the smallest bound they do not exceed."""
    counted: dict[str, int] = {}
    for value in ordered:
        bound = next((b for b in _HISTOGRAM_MS if value <= b), None)
        key = "more" if bound is None else f"{bound:g}"
        counted[key] = counted.get(key, 0) + 1
    return counted
