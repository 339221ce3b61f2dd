"""What the pilot takes while the payload computes and there is nothing to do."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Mapping

from bench.children import BenchError, scratch
from bench.pilot import pilot, write_job
from bench.proc import PAYLOAD, cpu_s, pilot_processes, pss_bytes
from bench.rows import Emit, make_row

CLIENTS = 2
OPTIONS = "--delay-ms 100000000"
RANGES = 100
OBSERVED_S = 20.0
SETTLE_S = 2.0
SETTLED_CPU_S = 0.05
START_S = 60.0
CPU_LIMIT_PERCENT = 0.5
PSS_LIMIT_MB = 130.0
NOT_OURS = (PAYLOAD, "builtin-server")
ROLES = 5


def run(emit: Emit, *, tiny: bool) -> None:
    """Start a pilot, wait until it rests, observe."""
    with scratch() as root:
        job = root / "job.toml"
        write_job(job, events=RANGES, clients=CLIENTS, options=OPTIONS)
        with pilot(job, root / "work") as process:
            pids = await_rest(process)
            used_s, passed_s = observe(process, pids, 1.0 if tiny else OBSERVED_S)
            pss = {role: pss_bytes(pid) / 1e6 for pid, role in pids.items()}
    percents = {role: 100 * spent / passed_s for role, spent in used_s.items()}
    emit_sum(emit, "cpu", "% of a core", percents, CPU_LIMIT_PERCENT)
    emit_sum(emit, "pss", "MB", pss, PSS_LIMIT_MB)


def emit_sum(emit: Emit, case: str, unit: str, by_role: Mapping[str, float], limit: float) -> None:
    """A row for all together, which also names the share of each role."""
    parts = {role: round(value, 3) for role, value in by_role.items()}
    emit(make_row("rest", case, sum(by_role.values()), unit, limit=limit, roles=parts))


def await_rest(process: subprocess.Popen[str]) -> dict[int, str]:
    """Wait until all roles are up, both clients compute and the pilot is quiet; its processes."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        everyone = pilot_processes(process.pid)
        roles = Counter(everyone.values())
        ours = {pid: role for pid, role in everyone.items() if role not in NOT_OURS}
        # The clients and the fake payload's own process.
        started = len(set(ours.values())) == ROLES and roles[PAYLOAD] == CLIENTS + 1
        used_s, _ = observe(process, ours, SETTLE_S)
        if started and sum(used_s.values()) < SETTLED_CPU_S:
            return ours
    raise BenchError(f"the pilot does not come to rest within {START_S:g} s")


def observe(
    process: subprocess.Popen[str], pids: Mapping[int, str], observed_s: float
) -> tuple[dict[str, float], float]:
    """CPU seconds of each role, and how long it was observed."""
    started = time.monotonic()
    before = {pid: cpu_s(pid) for pid in pids}
    try:
        process.wait(observed_s)
    except subprocess.TimeoutExpired:
        used_s: Counter[str] = Counter()
        for pid, role in pids.items():
            used_s[role] += cpu_s(pid) - before[pid]  # type: ignore[assignment]
        return dict(used_s), time.monotonic() - started
    raise BenchError("the pilot ended while it was observed")
