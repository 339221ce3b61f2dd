"""Each process is killed at each point in the life of a range; nothing is lost, nothing is left."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kill_points import MATRIX, NOT_REACHED, Point
from pilot_run import FAKE, Run, Runner, job_text, runner_in

from espilot.queue.moves import Moves

EVENTS = 40
AT_ONCE = 2
READING = {"phase", "crashes", "ready"}


def halves(name: str) -> list[tuple[str, int]]:
    """Long rows of the matrix in two tests."""
    return [(name, part) for part in range(2 if len(MATRIX[name]) > 12 else 1)]


@pytest.mark.parametrize(("role", "part"), [each for name in MATRIX for each in halves(name)])
def test_lesson_08_killed_at_each_point(tmp_path: Path, role: str, part: int) -> None:
    """Whatever a process was about to do when it was killed: all ranges end safe, reported, once.

    The pilot finishes by itself; after a supervisor's death the next run does.
    """
    points = MATRIX[role][part :: len(halves(role))]
    numbers = range(len(points))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(lambda n: what_fails(tmp_path / str(n), points[n]), numbers))
    assert not any(told), "\n\n".join(filter(None, told))


def what_fails(directory: Path, point: Point) -> str:
    """Run a job that is killed at this point; what went wrong, or ""."""
    directory.mkdir()
    try:
        with runner_in(directory) as runner:
            run_and_kill(runner, point)
    except AssertionError as error:
        return f"{point}: {error}"
    return ""


def run_and_kill(runner: Runner, point: Point) -> None:
    """The kill happens, once, and the ranges are all finished."""
    marker = runner.directory / "killed"
    job = job_text(
        f"{FAKE} --clients 2 --delay-ms 3 {point.switches}",
        events=EVENTS,
        packing={"max_ranges": 8},
        task={"max_attempts": 20},
    )
    run = runner.start(job, env=point.environment(marker))
    if point.role == "supervisor":
        run.end()
        run = go_on(runner, run, job)
    run.require_finished(EVENTS)
    assert marker.exists(), f"there was no such moment\n{run.log[-2000:]}"


def go_on(runner: Runner, killed: Run, job: str) -> Run:
    """The run after the one that was killed."""
    assert killed.process.returncode == -9, f"not killed: {killed.stderr[-2000:]}"
    killed.note_runtime()
    again = runner.start(job)
    again.runtimes |= killed.runtimes
    return again


def test_each_move_of_the_queue_has_a_kill_point() -> None:
    """A new kind of transaction does not escape the matrix."""
    verbs = {name for name, _ in inspect.getmembers(Moves, inspect.isfunction) if name[0] != "_"}
    reached = {
        point.target.rpartition(".")[2]
        for points in MATRIX.values()
        for point in points
        if point.when == "committed"
    }
    assert verbs - READING == reached | set(NOT_REACHED)
