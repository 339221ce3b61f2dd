"""Every bench in a tiny size: whether it works, never how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = ("dispatcher", "event-server", "launcher", "stageout", "supervisor")
CASES = {
    "dispatch": {"1", "8"},
    "latency": {"median", "p99"},
    "queue": {"one by one", "groups of 50"},
    "pipeline": {"40", "80"}
    | {f"memory {role} {n}" for role in (*ROLES, "builtin-server") for n in (40, 80)},
    "rest": {"cpu", "pss"},
    "server": {
        f"{name} {what}" for name in ("legacy", "v1") for what in ("requests", "ranges", "slowest")
    },
    "stageout": {"2000 x 50 KiB", "200 x 5 MiB", "times the old way"},
    "packing": {"2000 x 50 KiB", "50 x 5 MiB", "inspect"},
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the bench command."""
    argv = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", CASES)
def test_bench_prints_a_json_object_for_each_of_its_cases(name: str) -> None:
    """A bench says each of its cases on a line of its own, with value and unit."""
    done = bench("--tiny", name)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["bench"] for row in rows} == {name}
    assert {row["case"] for row in rows} == CASES[name] and len(rows) == len(CASES[name])
    for row in rows:
        assert row["value"] > 0 and row["unit"]
        assert ("limit" in row) == ("ratio" in row)


def test_limits_come_with_what_is_compared() -> None:
    """The latency bench gives value, limit, ratio and the difference in milliseconds."""
    row = json.loads(bench("--tiny", "latency").stdout.splitlines()[0])
    assert row["ratio"] == pytest.approx(row["value"] / row["limit"], rel=0.01)
    assert row["difference_ms"] == pytest.approx(row["value"] - row["limit"], abs=0.01)


def test_an_unknown_bench_is_a_usage_error_that_names_it() -> None:
    """A wrong name ends with one line that names it and those that there are."""
    done = bench("nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr and "dispatch" in done.stderr
    assert "Traceback" not in done.stderr
