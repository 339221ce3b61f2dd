"""Real physics, with everything killed again and again: the same events come out."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pilot_run import ESPILOT, Run, Runner, eventually
from test_recover import kill_all

pytest.importorskip("pythia8mc")

from test_zmumu import JOB, events_of, runner, undisturbed

__all__ = ["runner", "undisturbed"]
KILLS = 5


def recovering(run: Run) -> Run:
    """The same run, taken up again."""
    argv = [*ESPILOT, "recover", str(run.workdir), "--json"]
    with run.stdout_path.open("wb") as out, run.stderr_path.open("ab") as err:
        run.process = subprocess.Popen(argv, stdout=out, stderr=err, start_new_session=True)
    return run


def wait_lines(run: Run, n: int) -> None:
    """Wait until the pilot's log has so many lines, or the pilot has ended."""
    eventually(lambda: run.log.count("\n") >= n or run.ended, what=f"{n} lines in the log")


@pytest.mark.parametrize("seed", [1, 2])
def test_lesson_08_deaths_of_all_change_no_event(
    runner: Runner, undisturbed: dict[int, tuple[Any, ...]], seed: int, tmp_path: Path
) -> None:
    """All processes are killed at five random moments and the job is recovered each time; every
    number of every event is as in a run that nobody disturbed."""
    chance = random.Random(f"zmumu {seed}")
    run = runner.start(JOB)
    for _ in range(KILLS):
        wait_lines(run, run.log.count("\n") + chance.randrange(5, 60))
        recorded = (run.state / "run.json").exists()
        kill_all(run)
        run = recovering(run) if recorded else runner.start(JOB)
    assert events_of(run, tmp_path) == undisturbed
