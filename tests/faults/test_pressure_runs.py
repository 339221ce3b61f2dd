"""A storage that is slower than the payload: what waits is bounded, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pilot_run import FAKE, Run, Runner, eventually, job_text, runner_in

EVENTS = 300
SIZE_BYTES = 50_000
BOUND_BYTES = 2_000_000
ARCHIVE_BYTES = 20 * (SIZE_BYTES + 1024) + 10_240
CLIENTS = 2


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def archives_bytes(run: Run) -> int:
    """Bytes of the archives in the state directory."""
    archives = run.workdir / "state" / "archives"
    return sum(path.stat().st_size for path in archives.glob("*.tar"))


def test_backlog_is_bounded(runner: Runner) -> None:
    """Archives wait up to their bound, outputs up to as much again; then nothing is handed out."""
    run = runner.start(
        job_text(
            f"{FAKE} --clients {CLIENTS} --delay-ms 5 --outsize {SIZE_BYTES}",
            events=EVENTS,
            stageout={
                "waiting_bytes": BOUND_BYTES,
                "give_up_after": 1_000_000,
                "retry_min_s": 0.05,
                "retry_max_s": 0.2,
            },
        )
    )
    aside = run.storage.with_name("storage-aside")
    run.wait_booked(20)
    run.storage.rename(aside)
    run.storage.write_text("not a directory")
    eventually(lambda: "storage health changed state=behind" in run.log, what="pressure")
    assert "twice stageout.waiting_bytes" in run.log
    sealed = run.log.count("archive sealed")
    failed = run.log.count("upload failed")
    eventually(lambda: run.log.count("upload failed") > failed + 6, what="further tries")
    assert run.log.count("archive sealed") <= sealed + 1, "packing goes on"
    assert archives_bytes(run) <= BOUND_BYTES + ARCHIVE_BYTES
    run.storage.unlink()
    aside.rename(run.storage)
    run.require_finished(EVENTS, size_bytes=SIZE_BYTES)
    assert "storage health changed state=ok" in run.log
