"""From a request to its reply, at 20 ms of work per range: the real dispatcher and a bare one."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from bench.children import new_channel, run_payload, running, scratch
from bench.dispatch import check
from bench.real_dispatcher import real_dispatcher
from bench.rows import Emit, compare

DELAY_MS = 20
RANGES = 100
ROUNDS = 3
QUANTILES = ("median", "p99")


def run(emit: Emit, *, tiny: bool) -> None:
    """Measure both in turn; a row per quantile, which is the median of the rounds."""
    ranges, rounds = (10, 1) if tiny else (RANGES, ROUNDS)
    times = [(measure_real(ranges), measure_bare(ranges)) for _ in range(rounds)]
    for name in QUANTILES:
        pairs = [(real[name], bare[name]) for real, bare in times]
        difference_ms = statistics.median(real - bare for real, bare in pairs)
        row = compare("latency", name, "ms", pairs, difference_ms=round(difference_ms, 3))
        emit(row)


def measure_real(ranges: int) -> dict[str, Any]:
    """Times of the real dispatcher, as the client saw them."""
    channel = new_channel()
    with scratch() as root, real_dispatcher(root, channel, ranges):
        return request_to_reply_ms(channel, root, ranges)


def measure_bare(ranges: int) -> dict[str, Any]:
    """Times of the bare ROUTER, as the client saw them."""
    channel = new_channel()
    with scratch() as root, running("bare_router", channel, ranges) as router:
        router.hear()
        return request_to_reply_ms(channel, root, ranges)


def request_to_reply_ms(channel: str, root: Path, ranges: int) -> dict[str, Any]:
    """Run one client that works for a while on each range."""
    summary = run_payload(channel, root / "payload-1", "--delay-ms", DELAY_MS)
    check(summary, ranges)
    times: dict[str, Any] = summary["request_to_reply_ms"]
    return times
