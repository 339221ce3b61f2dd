"""Random SIGKILLs of all roles on one queue: nothing lost, nothing twice, nothing hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("queue_roles.py")
KILLS = 350
"""Per seed; more than 1,000 in all."""


def run(seed: int, kills: int, *sabotage: str) -> subprocess.CompletedProcess[str]:
    """One run of the roles under fire."""
    command = [sys.executable, str(PROGRAM), str(seed), str(kills), *sabotage]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_kills(seed: int) -> None:
    """Every range that was put is done and ends in exactly one report, whoever is killed when."""
    done = run(seed, KILLS)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    found = json.loads(done.stdout)
    sys.stdout.write(done.stdout)
    assert found["kills"] >= KILLS
    assert found["ranges"] > 1000, "too little happened to mean anything"


@pytest.mark.parametrize(
    ("sabotage", "complaint"),
    [("late-effect", "lost: "), ("forgets-its-ranges", "nothing moves any more")],
)
def test_the_test_can_fail(sabotage: str, complaint: str) -> None:
    """A role that commits before its effect, or leaves its ranges sent, is found out."""
    done = run(4, KILLS // 3, sabotage)
    assert done.returncode != 0
    assert complaint in done.stderr
