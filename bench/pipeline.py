"""Ranges per second through the whole pilot and the built-in server; the memory of each role."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from bench.children import RUN_S, BenchError, last_json, scratch
from bench.pilot import pilot, write_job
from bench.proc import PAYLOAD, own_bytes, pilot_processes
from bench.rows import Emit, make_row

SIZES = (2000, 20_000)
TINY = (40, 80)
CLIENTS = 4
OPTIONS = "--outsize 1024"
SAMPLE_S = 0.2

Peaks = dict[str, int]


def run(emit: Emit, *, tiny: bool) -> None:
    """The small run gives the memory that the large one is held against."""
    small, large = TINY if tiny else SIZES
    results = {ranges: measure(ranges) for ranges in (small, large)}
    for ranges, (rate, _) in results.items():
        emit(make_row("pipeline", str(ranges), rate, "ranges/s"))
    before, after = results[small][1], results[large][1]
    for role in sorted(after):
        emit(memory_row(role, small, before.get(role, 0)))
        emit(memory_row(role, large, after[role], limit=before.get(role, 0)))


def memory_row(role: str, ranges: int, size: int, limit: int | None = None) -> dict[str, object]:
    """A row about the peak of one role."""
    bound = None if limit is None else limit / 1e6
    return make_row("pipeline", f"memory {role} {ranges}", size / 1e6, "MB", limit=bound)


def measure(ranges: int) -> tuple[float, Peaks]:
    """Ranges per second of a whole run, start and end included, and each role's peak memory."""
    with scratch() as root:
        job = root / "job.toml"
        write_job(job, events=ranges, clients=CLIENTS, options=OPTIONS)
        with pilot(job, root / "work") as process:
            peaks = watch(process)
            output = process.stdout.read() if process.stdout else ""
        check(output, ranges, root)
        return ranges / float(last_json(output)["wall_s"]), peaks


def watch(process: subprocess.Popen[str]) -> Peaks:
    """Sample until the pilot ends."""
    peaks: Peaks = {}
    deadline = time.monotonic() + RUN_S
    while time.monotonic() < deadline:
        for pid, role in pilot_processes(process.pid).items():
            if role != PAYLOAD:
                peaks[role] = max(peaks.get(role, 0), own_bytes(pid))
        try:
            process.wait(SAMPLE_S)
            return peaks
        except subprocess.TimeoutExpired:
            continue
    raise BenchError(f"the pilot has not ended after {RUN_S:g} s")


def check(output: str, ranges: int, root: Path) -> None:
    """The pilot finished all ranges."""
    summary = last_json(output) if output else {}
    if summary.get("state") != "finished" or summary["ranges"]["finished"] != ranges:
        raise BenchError(f"the pilot in {root} did not finish: {output.strip()[-300:]!r}")
