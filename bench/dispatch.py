"""Ranges per second through the real dispatcher, against a bare ROUTER with the same clients.

Both are measured from the first to the last output that arrives, in turn; what they share (start of
processes, the clients' own work) weighs the same on both.

Nothing is deleted before the end: ext4 does not use an inode again in the minute after its
deletion, so a new file passes over all that a round before has deleted, and costs five times as
much.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.children import BenchError, new_channel, run_payload, running, scratch
from bench.real_dispatcher import real_dispatcher
from bench.rows import Emit, compare, rounds

RANGES = {1: 3000, 8: 6000, 64: 6000}
TINY = {1: 40, 8: 80}
ROUNDS = 7
BUDGET_S = 10.5
"""No round of a case begins later: the three cases together have 45 s."""
OUTPUT_BYTES = 100


def run(emit: Emit, *, tiny: bool) -> None:
    """Measure each number of clients."""
    with scratch() as root:
        for clients, ranges in (TINY if tiny else RANGES).items():
            pairs = [
                (
                    measure_real(made(root / f"r{clients}-{k}"), clients, ranges),
                    measure_bare(made(root / f"b{clients}-{k}"), clients, ranges),
                )
                for k in rounds(1 if tiny else ROUNDS, BUDGET_S)
            ]
            emit(compare("dispatch", str(clients), "ranges/s", pairs, rounds=len(pairs)))


def made(directory: Path) -> Path:
    """Make a directory."""
    directory.mkdir()
    return directory


def measure_real(root: Path, clients: int, ranges: int) -> float:
    """Ranges per second through the real dispatcher."""
    channel = new_channel()
    with real_dispatcher(root, channel, ranges) as rest:
        arguments = ("--clients", clients, "--outsize", OUTPUT_BYTES)
        check(run_payload(channel, root / "payload-1", *arguments), ranges)
        return rate(rest.hear(), ranges)


def measure_bare(root: Path, clients: int, ranges: int) -> float:
    """Ranges per second through the bare ROUTER."""
    channel = new_channel()
    with running("bare_router", channel, ranges) as router:
        router.hear()
        arguments = ("--clients", clients, "--outsize", OUTPUT_BYTES)
        check(run_payload(channel, root / "payload-1", *arguments), ranges)
        return rate(router.hear(), ranges)


def check(summary: dict[str, Any], ranges: int) -> None:
    """The clients did all the work, once."""
    if summary["ranges"] != ranges or summary["failed"]:
        raise BenchError(f"{summary['ranges']} of {ranges} ranges, {summary['failed']} failed")


def rate(said: dict[str, Any], ranges: int) -> float:
    """Ranges per second between the first and the last output."""
    if said["ranges"] != ranges:
        raise BenchError(f"{said['ranges']} of {ranges} ranges arrived")
    return (ranges - 1) / max(1e-9, float(said["last"]) - float(said["first"]))
