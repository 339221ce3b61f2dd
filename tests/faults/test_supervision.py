"""A payload or a node over its limits: a rule says so, the pilot lives, ranges have their fate."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pilot_run import FAKE, Run, Runner, eventually, job_text, runner_in
from run_oracle import children_of, processes_of

MB = 10**6


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


@contextmanager
def small_disk(target: Path, size: str) -> Iterator[None]:
    """A small file system at this directory; the test is skipped where it cannot be made."""
    target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(target)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: free space; mounting a small file system takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


def require_ended_by(run: Run, code: int, words: str, total: int) -> None:
    """The job ended with this code and reason, what was made is reported, the rest is free."""
    assert run.end() == 1, run.log[-3000:]
    assert re.search(words, run.log), run.log[-3000:]
    assert re.search(rf"action=verdict .* code={code}\b", run.log)
    account = run.account()
    finished, ready = account.with_fate("finished"), account.with_fate("ready")
    assert finished
    assert len(finished) + len(ready) == total
    assert run.summary["state"] == "failed"


def test_lesson_18_too_much_memory_ends_the_job_not_the_pilot(runner: Runner) -> None:
    """A payload over its memory is ended with 1235; the pilot ships what was made."""
    run = runner.start(
        job_text(
            f"{FAKE} --clients 2 --delay-ms 20 --eat-memory 250M",
            events=2000,
            limits={"memory_bytes": 150 * MB},
        )
    )
    words = r"the payload takes \d+\.\d MB of memory \(PSS\), the limit is 150\.0 MB"
    require_ended_by(run, 1235, words, 2000)


def test_memory_within_its_limit_is_no_verdict(runner: Runner) -> None:
    """The same payload below the limit is left alone."""
    command = f"{FAKE} --clients 2 --delay-ms 20 --eat-memory 50M"
    job = job_text(command, events=200, limits={"memory_bytes": 400 * MB})
    assert "action=verdict" not in runner.finish(job, 200).log


def test_flooded_stdout_is_cut(runner: Runner) -> None:
    """A stdout over its limit keeps head and tail, and the job goes on to its end."""
    run = runner.start(
        job_text(
            f"{FAKE} --clients 2 --delay-ms 20 --flood-stdout 60M",
            events=300,
            payload={"stdout_limit_bytes": 8 * MB},
        )
    )
    run.require_finished(300)
    assert re.search(
        r"payload\.stdout of the payload has \d+\.\d MB, the limit is 8\.0 MB", run.log
    )
    assert re.search(r"payload log cut file=payload\.stdout dropped=\d+", run.log)
    directory = run.workdir / "payload-1"
    for name in ("payload.stdout.head", "payload.stdout.tail"):
        assert (directory / name).stat().st_size == MB
    assert (directory / "payload.stdout").read_bytes().startswith(b"[espilot: ")


def test_too_many_processes_end_the_payload(runner: Runner) -> None:
    """A payload with too many processes is ended each time, and given up in the end."""
    run = runner.start(
        job_text(
            f"{FAKE} --clients 2 --delay-ms 20 --spawn 40",
            events=2000,
            payload={"restarts": 1},
            limits={"processes": 30},
        )
    )
    # Maybe it is looked at while it still spawns.
    require_ended_by(run, 1227, r"the payload has (3[1-9]|4\d) processes, the limit is 30", 2000)


def test_lesson_29_growing_output_ends_the_payload(runner: Runner) -> None:
    """A file that grows beyond the limit of an output is found before anybody reports it."""
    script = runner.directory / "grow.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(sys.argv[1:])\n"
        "file = open('growing', 'ab')\n"
        "while child.poll() is None:\n"
        "    file.truncate(file.seek(0, 2) + 10**9)\n"
        "    time.sleep(0.2)\n"
    )
    run = runner.start(
        job_text(
            f"{sys.executable} {script} {FAKE} --clients 2 --delay-ms 20",
            events=2000,
            payload={"restarts": 1, "output_limit_bytes": 10**9},
        )
    )
    words = r"growing of the payload has \d+\.\d GB and grows, the limit is 1\.0 GB"
    require_ended_by(run, 1124, words, 2000)


HANG_RULE = {"range_hang_floor_s": 2.0, "term_grace_s": 1.0}


def test_lesson_44_hanging_client_is_ended_alone(runner: Runner) -> None:
    """A client that hangs is ended without the others, and its range is finished by them."""
    script = runner.directory / "two.sh"
    script.write_text(
        "#!/bin/sh\n"
        f"{FAKE} --name bad --delay-ms 20 --hang-after 8 &\n"
        f"{FAKE} --name good --delay-ms 20 &\n"
        "wait\n"
    )
    script.chmod(0o755)
    run = runner.start(job_text(str(script), events=300, payload=HANG_RULE))
    run.require_finished(300)
    assert re.search(
        r"action=verdict range \S+ is in work for \d+(\.\d+)? s, the limit is 2(\.0+)? s"
        r" rule=range-hang .*do=end-client code=1227",
        run.log,
    )
    assert "payload whose client hangs" in run.log, "the picture is taken before"
    assert run.log.count("client hangs, TERM") == 1
    assert run.log.count("payload started") == 1


def test_hanging_client_that_ignores_term_is_killed(runner: Runner) -> None:
    """KILL follows TERM after its grace."""
    script = runner.directory / "two.sh"
    script.write_text(
        "#!/bin/sh\n"
        f"{FAKE} --name bad --delay-ms 20 --hang-after 8 --ignore-term &\n"
        f"{FAKE} --name good --delay-ms 20 &\n"
        "wait\n"
    )
    script.chmod(0o755)
    run = runner.start(job_text(str(script), events=300, payload=HANG_RULE))
    run.require_finished(300)
    assert "client hangs on, KILL" in run.log
    assert run.log.count("payload started") == 1


def test_hanging_main_process_ends_the_payload(runner: Runner) -> None:
    """A payload that is its only client cannot lose it alone: it is started again."""
    run = runner.start(
        job_text(f"{FAKE} --delay-ms 20 --hang-after 40", events=60, payload=HANG_RULE)
    )
    run.require_finished(60)
    assert "is not a process that could end alone" in run.log
    assert run.log.count("payload started") == 2


def test_stopped_client_is_ended(runner: Runner) -> None:
    """A client that somebody stopped (SIGSTOP) hangs as well."""
    run = runner.start(job_text(f"{FAKE} --clients 2 --delay-ms 20", events=300, payload=HANG_RULE))
    run.wait_booked(20)
    run.kill("client", signal.SIGSTOP)
    run.require_finished(300)
    assert "client hangs, TERM" in run.log


def test_lesson_36_nobody_polls_by_time(runner: Runner) -> None:
    """While the payload computes, each of the pilot's processes sleeps: a poll of 10 ms would wake
    it 100 times a second."""
    command = f"{FAKE} --clients 2 --delay-ms 60000"
    run = runner.start(job_text(command, events=4, drain={"grace_s": 4.0}))
    eventually(lambda: run.log.count("client connected") == 2, what="clients at work")
    time.sleep(1.0)
    pids = [run.process.pid, *children_of(run.process.pid)]
    seconds = 4.0
    before, began = [wakeups(pid) for pid in pids], time.monotonic()
    time.sleep(seconds)
    lasted_s = time.monotonic() - began
    rates = [(wakeups(pid) - n) / lasted_s for pid, n in zip(pids, before, strict=True)]
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 3, run.log[-3000:]
    assert len(rates) >= 5
    assert max(rates) < 30.0, rates


def wakeups(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far."""
    words = [
        line.split()[1]
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    ]
    return sum(int(word) for word in words)


def test_slow_ranges_do_not_hang(runner: Runner) -> None:
    """Ranges that take longer than the floor, all alike, are no hang."""
    run = runner.start(job_text(f"{FAKE} --clients 2 --delay-ms 3000", events=8, payload=HANG_RULE))
    run.require_finished(8)
    assert "action=verdict" not in run.log


def test_no_progress_ends_the_payload(runner: Runner) -> None:
    """Ranges in hand of which none ends are taken back; another start finishes them."""
    job = job_text(
        f"{FAKE} --clients 2 --delay-ms 5 --hang-after 20",
        events=60,
        limits={"no_progress_s": 2.0},
    )
    run = runner.start(job)
    run.require_finished(60)
    assert re.search(r"in hand and none ended for \d+(\.\d+)? s, the limit is 2(\.0+)? s", run.log)


def test_lesson_46_full_disk_stops_the_hand_out(tmp_path: Path) -> None:
    """With little free space nothing is handed out; when there is room again, it goes on."""
    workdir = tmp_path / "w"
    with small_disk(workdir, "400m"), runner_in(tmp_path) as runner:
        run = runner.start(
            job_text(
                f"{FAKE} --clients 2 --delay-ms 20 --eat-disk 100M",
                events=400,
                limits={"free_bytes": 300 * MB},
            )
        )
        eventually(lambda: "no ranges are handed out" in run.log, what="closed gate")
        eventually(lambda: run_is_still(run), what="no more outputs")
        before = run.booked
        assert 0 < before < 400
        (workdir / "payload-1" / "eaten").unlink()
        run.require_finished(400)
        assert "ranges are handed out again" in run.log
        assert "action=verdict" not in run.log


def run_is_still(run: Run) -> bool:
    """Whether all that was made is booked: nothing lies in the payload's directory."""
    return run.booked > 0 and not list((run.workdir / "payload-1").glob("output*"))


def test_lesson_46_fuller_disk_ends_the_job(tmp_path: Path) -> None:
    """At half of that space the job ends with 1098, and what was made is shipped."""
    workdir = tmp_path / "w"
    storage = tmp_path / "storage"
    with small_disk(workdir, "400m"), runner_in(tmp_path) as runner:
        run = runner.start(
            job_text(
                f"{FAKE} --clients 2 --delay-ms 20 --eat-disk 200M",
                events=2000,
                limits={"free_bytes": 300 * MB},
            ),
            "--storage",
            str(storage),
        )
        run.storage = storage
        words = r"the local disk has \d+\.\d MB left, the limit is 150\.0 MB"
        require_ended_by(run, 1098, words, 2000)


def test_start_on_a_full_disk_is_refused(tmp_path: Path) -> None:
    """Too little free space at the start is one clear line, and nothing is started."""
    with runner_in(tmp_path) as runner:
        run = runner.start(job_text(FAKE, limits={"free_start_bytes": 10**17}))
        assert run.end() not in (0, 70)
        assert "are needed; make room, choose another --workdir" in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1


def everything_of(run: Run) -> list[int]:
    """All processes of a run, the supervisor first."""
    others = [pid for pid in processes_of(run.workdir) if pid != run.process.pid]
    launcher = run.pid_of("launcher")
    payload = run.pid_of("payload")
    client = run.pid_of("client")
    known = [pid for pid in (launcher, payload, client) if pid and pid not in others]
    return [run.process.pid, *others, *known]


def test_suspension_of_all_ends_nothing(runner: Runner) -> None:
    """All processes stopped for longer than every limit, then continued: no timer fires."""
    run = runner.start(
        job_text(
            f"{FAKE} --clients 2 --delay-ms 20",
            events=300,
            payload={"hang_s": 4.0},
            limits={"silent_s": 3.0, "no_progress_s": 4.0},
        )
    )
    run.wait_booked(20)
    everything = everything_of(run)
    for pid in everything:
        os.kill(pid, signal.SIGSTOP)
    # The pause is the fault itself: longer than each of the limits above.
    signal.sigtimedwait([], 7.0)
    for pid in everything:
        os.kill(pid, signal.SIGCONT)
    run.require_finished(300)
    assert "the machine was suspended" in run.log
    assert "action=verdict" not in run.log
    assert "role is silent" not in run.log
    assert run.log.count("payload started") == 1


def test_lesson_24_foreign_processes_are_not_touched(runner: Runner) -> None:
    """A daemon of the same user, its parent gone, survives the end of a payload by force."""
    code = (
        "import os, signal\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    print(os.getpid(), flush=True)\n"
        "    os.close(1)\n"
        "    while True: signal.pause()\n"
    )
    started = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    daemon = int(started.stdout)
    try:
        job = job_text(
            f"{FAKE} --clients 2 --delay-ms 5 --hang-after 20 --orphans 2 --ignore-term",
            events=60,
            payload={"hang_s": 2.0, "term_grace_s": 1.0},
        )
        runner.start(job).require_finished(60)
        os.kill(daemon, 0)
    finally:
        os.kill(daemon, signal.SIGKILL)
