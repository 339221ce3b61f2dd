"""A payload may do anything wrong: each fault of the fake payload, and the fate of the ranges."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pilot_run import FAKE, Run, Runner, eventually, job_text, runner_in

EVENTS = 60
BOTH = pytest.mark.parametrize("dialect", ["text", "native"])


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def start(
    runner: Runner, switches: str, dialect: str = "text", *, events: int = EVENTS, **sections: Any
) -> Run:
    """A run of the fake payload with these switches."""
    command = f"{FAKE} --dialect {dialect} --clients 2 {switches}"
    return runner.start(job_text(command, events=events, **sections))


def require_some_failed(run: Run, total: int, words: str) -> int:
    """Every range is finished with the right content, or out of attempts with the reason in words.

    Returns how many failed.
    """
    code = run.end()
    account = run.account()
    finished, failed = account.with_fate("finished"), account.with_fate("failed")
    assert len(finished) + len(failed) == total, run.log[-3000:]
    assert code == (1 if failed else 0)
    ranges = run.summary["ranges"]
    assert (ranges["finished"], ranges["failed"]) == (len(finished), len(failed))
    for each in failed:
        assert words in (each.error_diag or ""), each
    return len(failed)


@pytest.mark.parametrize(
    ("switch", "words", "dialect"),
    [
        ("--fail-every 7", "Failed to process event range", "text"),
        ("--fail-every 7", "Failed to process event range", "native"),
        ("--parse-error-every 7", "Wrong format", "text"),
        ("--parse-error-every 7", "Wrong format", "native"),
        ("--missing-file 7", "missing", "text"),
        ("--empty-file 7", "empty", "native"),
    ],
)
def test_failed_ranges_get_their_attempts(
    runner: Runner, switch: str, words: str, dialect: str
) -> None:
    """A range that fails is tried again, and failed with its reason only when no try is left."""
    run = start(runner, switch, dialect)
    require_some_failed(run, EVENTS, words)
    assert run.summary["jobs"] > 1


def test_range_without_attempts_left_fails(runner: Runner) -> None:
    """With one attempt each, every seventh range of a client fails with the payload's words."""
    run = start(runner, "--fail-every 7", task={"max_attempts": 1})
    assert require_some_failed(run, EVENTS, "Failed to process event range") >= EVENTS // 7 - 2
    assert run.summary["state"] == "failed"


def test_lesson_19_paths_outside_are_not_touched(runner: Runner) -> None:
    """A path outside the work directory fails its range, by `..`, by link or plain."""
    outside = Path("/etc/passwd")
    before = outside.stat()
    run = start(runner, "--path-outside 5", task={"max_attempts": 1})
    assert require_some_failed(run, EVENTS, "output") > 0
    after = outside.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_size,
    )


@BOTH
@pytest.mark.parametrize(
    "switch", ["--report-twice 3", "--report-unknown 3", "--garbage 3", "--oversize 20"]
)
def test_lesson_02_odd_messages_harm_nobody(runner: Runner, switch: str, dialect: str) -> None:
    """Repeated, unknown, unreadable and huge messages are counted; every range is finished."""
    run = start(runner, switch, dialect)
    run.require_finished(EVENTS)


CHANGER = """
import os, sys, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.connect("ipc:///tmp/zmq_" + os.environ["PILOT_EVENTRANGECHANNEL"])
before, last, done = "", "", 0
while True:
    socket.send(b"Ready for events")
    reply = socket.recv().decode()
    # A request may be answered before the report behind which it came is looked at: the answer
    # proves that the report before that one was.
    if before and done % 3 == 0:
        {change}
    if reply == "No more events":
        break
    before, last = last, os.path.abspath("output." + reply.split('"')[3])
    with open(last, "w") as file:
        file.write(reply)
    socket.send((last + ",ID:" + reply.split('"')[3] + ",CPU:1,WALL:1").encode())
    done += 1
socket.close(linger=5000)
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('open(before, "a").write("changed")', "changed after it was reported"),
        ("os.unlink(before)", "missing"),
        ('os.unlink(before); os.symlink("/etc/passwd", before)', "link"),
        ("os.unlink(before); os.mkfifo(before)", "changed after it was reported"),
    ],
)
def test_lesson_06_output_changed_after_its_report(runner: Runner, change: str, words: str) -> None:
    """An output that is no longer what was reported fails its range, which is never half there."""
    script = runner.directory / "changer.py"
    script.write_text(CHANGER.replace("{change}", change))
    job = job_text(
        f"{sys.executable} {script}",
        # The last one is left alone: it is packed at once, maybe before it could be changed.
        events=31,
        task={"max_attempts": 1},
        packing={"max_ranges": 1000, "max_age_s": 3.0},
    )
    run = runner.start(job)
    assert require_some_failed(run, 31, words) == 10


def test_several_outputs_per_range(runner: Runner) -> None:
    """All outputs of a range are in the same archive under their own names."""
    command = f"{FAKE} --clients 2 --nfiles 3 --outsize 3000"
    job = job_text(command, events=EVENTS, task={"outputs": ["hits", "digits", "log.txt"]})
    runner.finish(job, EVENTS, lfns=("hits", "digits", "log.txt"), size_bytes=3000)


@BOTH
def test_lesson_26_flood_of_requests(runner: Runner, dialect: str) -> None:
    """Ten thousand requests at once: a client never holds more than the limit, all are answered."""
    run = start(runner, "--flood-ready --delay-ms 1", dialect, payload={"max_held": 8})
    run.require_finished(EVENTS)


@BOTH
def test_exit_early_is_restarted(runner: Runner, dialect: str) -> None:
    """A payload that exits 0 without being told is started again while work is left."""
    run = start(runner, "--exit-early 10 --delay-ms 5", dialect, events=50)
    run.require_finished(50)
    assert run.log.count("payload started") >= 2


@BOTH
def test_lesson_01_reports_before_the_exit_are_taken(runner: Runner, dialect: str) -> None:
    """Outputs that are reported just before the exit are all taken from the closed channel."""
    run = start(runner, "--exit-early 15 --outstanding 4", dialect, events=40)
    run.require_finished(40)
    assert run.summary["ranges"]["released"] == 0


@pytest.mark.parametrize("how", ["segv", "kill", "exit255"])
def test_lesson_23_crashes_give_ranges_back(runner: Runner, how: str) -> None:
    """A client that crashes gives its range back; the payload's end is told in true words."""
    run = start(runner, f"--crash-after 12 --crash-how {how} --delay-ms 5", events=40)
    run.require_finished(40)
    told = re.findall(r"payload ended epoch=1 how=('[^']+'|\S+)", run.log)
    assert told and "exit code 0" not in told[0], told


def test_crash_at_every_start_is_given_up(runner: Runner) -> None:
    """A payload that crashes at once is given up after its restarts; the log says the number."""
    run = start(runner, "--crash-after 0", payload={"restarts": 2})
    assert run.end() == 1
    assert run.summary["state"] == "failed"
    assert "payload died after 2 starts" in run.log
    assert len(run.account().with_fate("ready")) == EVENTS


def test_lesson_22_orphans_and_zombies(runner: Runner) -> None:
    """Processes that left the payload's session and ignore TERM are ended with it."""
    run = start(runner, "--orphans 3 --spawn 3")
    run.require_finished(EVENTS)


def test_ignored_term_is_followed_by_kill(runner: Runner) -> None:
    """A drain ends a payload that ignores TERM within its grace; what was made is reported."""
    run = start(
        runner, "--ignore-term --delay-ms 20 --exit-delay-ms 600000 --orphans 2", events=400
    )
    run.wait_booked(40)
    run.process.terminate()
    assert run.end(30.0) == 3
    assert len(run.account().with_fate("finished")) >= 40


def test_hang_is_found_and_ended(runner: Runner) -> None:
    """A payload without message and CPU use is ended; the verdict names number and limit."""
    run = start(runner, "--hang-after 12 --delay-ms 5", events=40, payload={"hang_s": 2.0})
    run.require_finished(40)
    assert re.search(r"used no CPU for \d+(\.\d+)? s, the limit is 2(\.0+)? s", run.log)


def test_payload_that_never_asks_is_a_hang(runner: Runner) -> None:
    """A payload that opens the channel and never asks is found by the hang limit and given up."""
    run = start(runner, "--no-request", payload={"hang_s": 1.0, "restarts": 1})
    assert run.end() == 1
    assert re.search(r"used no CPU for \d+(\.\d+)? s, the limit is 1(\.0+)? s", run.log)
    assert len(run.account().with_fate("ready")) == EVENTS


def test_payload_that_lingers_is_ended(runner: Runner) -> None:
    """A payload that does not exit after its last range is ended; nothing is lost by it."""
    run = start(runner, "--exit-delay-ms 600000", payload={"exit_grace_s": 1.0})
    run.require_finished(EVENTS)
    assert "the limit is 1 s" in run.log


def test_slow_exit_is_waited_for(runner: Runner) -> None:
    """A payload that takes a while to exit within its grace is not ended by force."""
    run = start(runner, "--exit-delay-ms 1500")
    run.require_finished(EVENTS)
    assert "verdict" not in run.log


def test_lesson_29_flooded_stdout_ends_the_job(runner: Runner) -> None:
    """Too much stdout ends the job with number and limit; what was made is kept."""
    run = start(
        runner,
        "--flood-stdout 40M --delay-ms 20",
        events=2000,
        payload={"stdout_limit_bytes": 5_000_000, "stdout_over": "end-job"},
    )
    assert run.end() == 1
    assert re.search(
        r"payload\.stdout of the payload has \d+(\.\d+)? MB, the limit is 5(\.0)? MB", run.log
    )
    require_rest_is_free(run, 2000)


def test_full_workdir_ends_the_job(runner: Runner) -> None:
    """A work directory over its limit ends the job with number and limit; what was made is kept."""
    run = start(
        runner,
        "--eat-disk 100M --delay-ms 20",
        events=2000,
        limits={"workdir_bytes": 100_000_000},
    )
    assert run.end() == 1
    assert re.search(r"work directory holds \d+(\.\d+)? MB, the limit is 120(\.0)? MB", run.log)
    require_rest_is_free(run, 2000)


def test_output_over_its_limit_fails_its_range(runner: Runner) -> None:
    """An output over the limit fails its range with number and limit."""
    run = start(
        runner, "--outsize 3000", task={"max_attempts": 1}, payload={"output_limit_bytes": 2000}
    )
    assert require_some_failed(run, EVENTS, "2000") == EVENTS


def test_eaten_memory_does_no_harm(runner: Runner) -> None:
    """A payload that takes memory within what there is ends as any other."""
    start(runner, "--eat-memory 50M").require_finished(EVENTS)


def test_lesson_18_pilot_survives_the_end_of_its_payload(runner: Runner) -> None:
    """Ending the payload's whole tree by force touches nothing of the pilot, which reports."""
    run = start(runner, "--ignore-term --spawn 2 --orphans 2 --delay-ms 20", events=120)
    run.wait_booked(20)
    run.kill("launcher")
    run.require_finished(120)


def test_lesson_32_named_clients_are_served_each(runner: Runner) -> None:
    """Named clients of both dialects on one socket each get their own ranges."""
    script = runner.directory / "both.sh"
    script.write_text(
        "#!/bin/sh\n"
        f"{FAKE} --dialect text --clients 2 --name first --delay-ms 5 --json > text.json &\n"
        f"{FAKE} --dialect native --clients 2 --name second --delay-ms 5 --json > native.json &\n"
        "wait\n"
    )
    script.chmod(0o755)
    runner.finish(job_text(str(script), events=200), 200)
    told = [json.loads((runner.workdir / "payload-1" / f"{d}.json").read_text().splitlines()[-1])
            for d in ("text", "native")]  # fmt: skip
    assert sum(each["ranges"] for each in told) == 200
    assert all(each["ranges"] > 20 for each in told)


def test_lesson_27_slow_end_waits_for_everything(runner: Runner) -> None:
    """The run does not end before the last archive, made at the very end, is reported."""
    run = start(runner, "--outsize 2M", events=30, packing={"max_ranges": 1000, "max_age_s": 60.0})
    run.require_finished(30, size_bytes=2 * 2**20)


def test_lesson_40_disk_use_does_not_grow_with_the_job(runner: Runner) -> None:
    """Outputs and archives are deleted when they are safe: nothing of the job stays on the node."""
    run = start(runner, "--outsize 20k", events=300)
    run.require_finished(300, size_bytes=20 * 2**10)
    left = [p for p in (run.workdir / "payload-1").iterdir() if p.name.startswith("output")]
    assert left == []


def require_rest_is_free(run: Run, total: int) -> None:
    """What was not finished is ready again, and the summary counts it as released."""
    account = run.account()
    finished, ready = len(account.with_fate("finished")), len(account.with_fate("ready"))
    assert finished > 0
    assert finished + ready == total
    assert run.summary["ranges"]["released"] == ready
    assert run.summary["state"] == "failed"
    eventually(lambda: run.ended)
