"""The storage fails: no more ranges are taken, everything made is kept, and shipped later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_oracle
from pilot_run import FAKE, Run, Runner, eventually, job_text, runner_in
from small_disk import enlarge, small_disk

EVENTS = 400
QUICK: dict[str, Any] = {
    "attempts": 2,
    "retry_min_s": 0.05,
    "retry_max_s": 0.2,
    "give_up_after": 2,
}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def job_of(storage_wait_s: float, *, events: int = EVENTS) -> str:
    """A job of some seconds whose stage-outs fail quickly."""
    return job_text(
        f"{FAKE} --clients 2 --delay-ms 20",
        events=events,
        stageout={**QUICK, "storage_wait_s": storage_wait_s},
        limits={"work_ahead_s": 0.5},
    )


def break_storage(run: Run) -> Path:
    """Put a file where the storage directory is; returns where its content went."""
    aside = run.storage.with_name("storage-aside")
    run.storage.rename(aside)
    run.storage.write_text("not a directory")
    return aside


def mend_storage(run: Run, aside: Path) -> None:
    """Undo `break_storage`."""
    run.storage.unlink()
    aside.rename(run.storage)


def waits_in_trouble(run: Run) -> bool:
    """Whether the trouble is known and nothing is in work any more."""
    return "storage health changed state=trouble" in run.log


def test_lesson_49_no_ranges_are_fetched_for_a_storage_that_is_away(runner: Runner) -> None:
    """While the storage is away nothing is lost and clients wait; then the run finishes."""
    run = runner.start(job_of(120.0))
    run.wait_booked(40)
    aside = break_storage(run)
    eventually(lambda: waits_in_trouble(run), what="trouble")
    in_trouble = run.log.count("ranges fetched")
    eventually(lambda: run.log.count("upload failed") > 8, what="retries")
    assert run.log.count("ranges fetched") <= in_trouble + 1, "ranges fetched in storage trouble"
    mend_storage(run, aside)
    run.require_finished(EVENTS)
    assert run.log.count("payload started") == 1


@pytest.mark.parametrize("policy", ["finish-current", "abort-current"])
def test_ranges_in_work_when_trouble_begins(runner: Runner, policy: str) -> None:
    """In trouble the payload ends what it has, or is ended where the site prefers that; then its
    ranges are free for its next start, and nothing that was made is lost or done twice."""
    stageout = {**QUICK, "storage_wait_s": 120.0, "on_trouble": policy}
    run = runner.start(job_text(f"{FAKE} --clients 2 --delay-ms 400", events=60, stageout=stageout))
    run.wait_booked(4)
    aside = break_storage(run)
    eventually(lambda: waits_in_trouble(run), what="trouble")
    aborted = policy == "abort-current"
    if aborted:
        eventually(lambda: "channel drained epoch=1" in run.log, what="the payload is ended")
    mend_storage(run, aside)
    run.require_finished(60)
    assert ("payload was=running now=stopping" in run.log) == aborted
    assert ("payload started epoch=2" in run.log) == aborted


def test_trouble_survives_the_stageout_worker(runner: Runner) -> None:
    """A stage-out worker that dies in the trouble is replaced, and the recovery is noticed."""
    run = runner.start(job_of(120.0))
    run.wait_booked(40)
    aside = break_storage(run)
    eventually(lambda: waits_in_trouble(run), what="trouble")
    pid = run.kill("stageout")
    run.wait_replaced("stageout", pid)
    mend_storage(run, aside)
    run.require_finished(EVENTS)


def test_storage_that_stays_away(runner: Runner) -> None:
    """After the wait the run fails, archives are kept, and a later run ships and finishes."""
    run = runner.start(job_of(0.5))
    run.wait_booked(40)
    aside = break_storage(run)
    assert run.end() == 1
    assert run.summary["state"] == "failed"
    assert "the storage does not take" in run.log
    kept = run_oracle.queued(run.state)
    assert kept["packed"] == kept["ready"] + kept["sent"] + kept["done"] + kept["packed"] > 0
    assert run.summary["ranges"]["finished"] == run.booked
    mend_storage(run, aside)
    again = runner.start(job_of(0.5))
    again.require_finished(EVENTS)
    assert "going on with the unfinished run" in again.stderr


def test_lesson_03_drain_in_trouble_keeps_archives(runner: Runner) -> None:
    """TERM while the storage is away: the run ends soon and drained, a later one ships."""
    run = runner.start(job_of(120.0))
    run.wait_booked(40)
    aside = break_storage(run)
    eventually(lambda: waits_in_trouble(run), what="trouble")
    run.process.terminate()
    assert run.end(30.0) == 3
    assert run.summary["state"] == "drained"
    assert run_oracle.queued(run.state)["packed"] > 0
    mend_storage(run, aside)
    runner.start(job_of(120.0)).require_finished(EVENTS)


def test_lesson_07_archive_is_never_repacked(runner: Runner) -> None:
    """An archive whose upload failed again and again is shipped with the same bytes and name."""
    run = runner.start(job_of(120.0))
    run.wait_booked(40)
    aside = break_storage(run)
    eventually(lambda: run.log.count("upload failed") > 4, what="retries")
    sealed = {p.name: p.read_bytes() for p in (run.state / "archives").glob("*.tar")}
    mend_storage(run, aside)
    run.require_finished(EVENTS)
    shipped = {name: (run.storage / name).read_bytes() for name in sealed}
    assert shipped == sealed


def test_full_storage(tmp_path: Path) -> None:
    """A storage without space is trouble that ends when there is space again."""
    target = tmp_path / "small"
    target.mkdir()
    with small_disk(target, "64k"), runner_in(tmp_path) as runner:
        run = runner.start(job_of(120.0), "--storage", str(target))
        run.storage = target
        eventually(lambda: waits_in_trouble(run), what="trouble")
        assert "space" in run.log
        enlarge(target)
        run.require_finished(EVENTS)


def test_lesson_05_disk_full_while_packing(tmp_path: Path) -> None:
    """An archive that finds no room on this node is packed when there is room; nothing is lost."""
    with runner_in(tmp_path) as runner:
        job = job_of(120.0, events=80).replace("max_age_s = 0.5", "max_age_s = 1.0")
        run = runner.start(job.replace("max_ranges = 20", "max_ranges = 1000"))
        eventually(lambda: "payload started" in run.log, what="payload")
        with small_disk(run.state / "archives", "16k"):
            eventually(lambda: "archive not sealed" in run.log, what="failed seal")
            assert run.booked == 0
            enlarge(run.state / "archives")
            run.require_finished(80)


def test_lesson_15_full_disk_at_a_drain(tmp_path: Path) -> None:
    """A drain that cannot pack ends after the time for it; the outputs wait for the next run."""
    with runner_in(tmp_path) as runner:
        job = job_of(120.0, events=200).replace("max_age_s = 0.5", "max_age_s = 60.0")
        job = job.replace("max_ranges = 20", "max_ranges = 1000")
        job = job.replace("[limits]", "[limits]\nsettle_s = 2.0")
        run = runner.start(job)
        eventually(lambda: "payload started" in run.log, what="payload")
        with small_disk(run.state / "archives", "16k"):
            eventually(lambda: len(list((run.workdir / "payload-1").glob("output*"))) > 40)
            run.process.terminate()
            assert run.end(30.0) == 3
            assert run_oracle.queued(run.state)["done"] > 40
        runner.start(job).require_finished(200)
