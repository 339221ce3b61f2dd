"""`espilot run --local` as its users start it: payloads of all kinds, summary, going on, drain."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import run_oracle
from pilot_run import FAKE, ROOT, Runner, end_processes_of, eventually, job_text, runner_in

EVENTS = 100
SUMMARY_KEYS = [
    "schema", "state", "ranges", "events", "jobs", "archives", "bytes", "wall_s", "storage",
    "workdir",
]  # fmt: skip


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


@pytest.mark.parametrize("dialect", ["text", "native"])
def test_lesson_17_whole_run_with_a_fake_payload(runner: Runner, dialect: str) -> None:
    """A payload of either dialect makes every range once, with the right name and content."""
    command = f"{FAKE} --dialect {dialect} --clients 2 --outstanding 2 --jitter-ms 5"
    runner.finish(job_text(command, events=EVENTS), EVENTS)


def test_both_dialects_on_one_socket(runner: Runner) -> None:
    """Payload processes of both dialects share the ranges of one channel."""
    script = runner.directory / "both.sh"
    script.write_text(
        "#!/bin/sh\n"
        f"{FAKE} --dialect text --clients 2 --delay-ms 5 &\n"
        f"{FAKE} --dialect native --clients 2 --outstanding 3 --delay-ms 5 &\n"
        "wait\n"
    )
    script.chmod(0o755)
    runner.finish(job_text(str(script), events=EVENTS), EVENTS)


def test_command_per_range(runner: Runner) -> None:
    """Any program becomes a payload by a command template; each range has its own output."""
    job = job_text("", events=30, task={"events_per_range": 3, "outputs": ["roots.txt"]})
    template = (
        f"{{python}} {ROOT}/etc/jobs/exec_example.py "
        "--first {startEvent} --last {lastEvent} --out {output}"
    )
    run = runner.start(job.replace('command = ""', f"exec = {json.dumps(template)}"))
    assert run.end() == 0, run.stderr
    account = run.account()
    assert len(account.with_fate("finished")) == 10
    events: list[int] = []
    for each in account.ranges:
        [(name, data)] = account.content_of(each.id).items()
        assert name == f"roots.txt.{each.id}"
        events += [int(line.split()[0]) for line in data.decode().splitlines()]
    assert sorted(events) == list(range(1, 31))


def test_payload_in_ten_lines(runner: Runner) -> None:
    """The SDK is all that a payload of some lines needs."""
    script = runner.directory / "ten.py"
    script.write_text(
        "from pathlib import Path\n"
        "from espilot.payload import EventRanges\n"
        "for event_range in EventRanges():\n"
        "    path = event_range.output_path()\n"
        "    Path(path).write_text(','.join(map(str, event_range.events)))\n"
        "    event_range.done(path)\n"
    )
    job = job_text(f"{{python}} {script}", events=50, task={"events_per_range": 7})
    run = runner.start(job)
    assert run.end() == 0, run.stderr
    account = run.account()
    contents = [b"".join(account.content_of(each.id).values()) for each in account.ranges]
    assert sorted(int(n) for text in contents for n in text.split(b",")) == list(range(1, 51))
    assert run.summary["events"] == 50
    assert run.summary["ranges"]["total"] == 8


def test_summary_is_the_last_line_of_stdout(runner: Runner) -> None:
    """With --json stdout is one line, an object of exactly the promised shape; stderr the rest."""
    run = runner.start(job_text(f"{FAKE} --clients 2", events=EVENTS))
    assert run.end() == 0
    [line] = run.stdout.splitlines()
    summary = json.loads(line)
    assert list(summary) == SUMMARY_KEYS
    assert summary["schema"] == "espilot.summary/1"
    assert summary["state"] == "finished"
    assert summary["ranges"] == {
        "total": EVENTS, "finished": EVENTS, "failed": 0, "fatal": 0, "released": 0
    }  # fmt: skip
    assert (summary["events"], summary["jobs"]) == (EVENTS, 1)
    tars = list(run.storage.glob("*.tar"))
    assert summary["archives"] == len(tars)
    assert summary["bytes"] == sum(path.stat().st_size for path in tars)
    assert isinstance(summary["wall_s"], float) and 0 < summary["wall_s"] < 60
    assert (summary["storage"], summary["workdir"]) == (str(run.storage), str(run.workdir))


def test_other_places(runner: Runner, tmp_path: Path) -> None:
    """State and storage go where the options say; nothing of them is in the work directory."""
    state, storage = tmp_path / "elsewhere" / "state", tmp_path / "out"
    run = runner.start(
        job_text(f"{FAKE} --clients 2", events=40),
        "--state-dir", str(state), "--storage", storage.as_uri(),
    )  # fmt: skip
    run.state, run.storage, run.database = state, storage, state / "server.sqlite"
    run.require_finished(40)
    assert sorted(path.name for path in run.workdir.iterdir()) == ["logs", "payload-1"]


def test_second_run_after_success_starts_anew(runner: Runner) -> None:
    """A task that is finished is made anew by the next run in the same place."""
    job = job_text(f"{FAKE} --clients 2", events=40)
    runner.finish(job, 40)
    again = runner.finish(job, 40)
    assert "going on" not in again.stderr
    assert again.summary["jobs"] == 1


def test_lesson_08_interrupted_run_is_gone_on_with(runner: Runner) -> None:
    """Every process is killed at once; the next run ends with all events and none twice."""
    job = job_text(f"{FAKE} --clients 2 --delay-ms 20", events=150)
    run = runner.start(job)
    run.wait_booked(30)
    run.process.send_signal(signal.SIGSTOP)
    end_processes_of(run.workdir)
    run.process.wait()
    before = run.booked
    again = runner.start(job)
    again.runtimes |= run.runtimes
    again.require_finished(150)
    assert 30 <= before < 150
    started = again.log.rpartition("pilot started")[2] if "pilot started" in again.log else ""
    assert "going on with the unfinished run" in again.stderr, started


@pytest.mark.parametrize("dialect", ["text", "native"])
def test_lesson_14_term_drains(runner: Runner, dialect: str) -> None:
    """TERM: exit code 3, state drained, everything made is reported; the next run finishes."""
    job = job_text(f"{FAKE} --clients 2 --delay-ms 20 --dialect {dialect}", events=200)
    run = runner.start(job)
    run.wait_booked(30)
    run.process.terminate()
    assert run.end(20.0) == 3
    account = run.account()
    finished, ready = len(account.with_fate("finished")), len(account.with_fate("ready"))
    assert finished >= 30 and finished + ready == 200
    assert run_oracle.queued(run.state)["released"] <= ready
    summary = run.summary
    assert summary["state"] == "drained"
    assert summary["ranges"] == {
        "total": 200, "finished": finished, "failed": 0, "fatal": 0, "released": ready
    }  # fmt: skip
    left = [p for p in (run.workdir / "payload-1").iterdir() if p.name.startswith("output")]
    assert left == []
    again = runner.start(job)
    again.require_finished(200)
    assert "going on with the unfinished run" in again.stderr


def test_lesson_25_two_signals_a_moment_apart(runner: Runner) -> None:
    """A second TERM while draining changes nothing: the drain ends in good order."""
    run = runner.start(job_text(f"{FAKE} --clients 2 --delay-ms 50", events=400))
    run.wait_booked(20)
    run.process.terminate()
    eventually(lambda: "draining" in run.log, what="drain")
    run.process.send_signal(signal.SIGINT)
    assert run.end(20.0) == 3
    run.account()


def test_third_signal_ends_at_once(runner: Runner) -> None:
    """A third signal ends everything at once, a stubborn payload too; the next run goes on."""
    job = job_text(
        f"{FAKE} --clients 2 --delay-ms 20 --ignore-term --exit-delay-ms 600000",
        events=400,
        payload={"term_grace_s": 600.0},
    )
    run = runner.start(job)
    run.wait_booked(20)
    for n in range(3):
        # The same one twice at once, as from a batch system and a wrapper, is one.
        run.process.terminate()
        run.process.send_signal(signal.SIGQUIT)
        eventually(lambda n=n: run.log.count("signal received") >= 2 * n + 2 or run.ended)
        began = time.monotonic()
        eventually(lambda began=began: time.monotonic() - began > 1.1 or run.ended)
        assert n == 2 or not run.ended
    assert run.end(10.0) == 3
    run.account()


def test_term_before_the_first_range(runner: Runner) -> None:
    """A TERM right at the start ends the run as drained, with all ranges free."""
    run = runner.start(job_text(f"{FAKE} --clients 2 --start-ms 60000", events=40))
    eventually(lambda: "payload started" in run.log, what="payload")
    run.process.terminate()
    assert run.end(20.0) == 3
    assert len(run.account().with_fate("ready")) == 40


def test_inputs_reach_the_payload(runner: Runner) -> None:
    """Ranges of an input file carry its name and the path where it is."""
    (runner.directory / "events.dat").write_text("data")
    script = runner.directory / "reader.py"
    script.write_text(
        "from pathlib import Path\n"
        "from espilot.payload import EventRanges\n"
        "for each in EventRanges():\n"
        "    text = Path(each.pfn).read_text()\n"
        "    Path(each.output_path()).write_text(f'{each.lfn} {text} {each.start_event}')\n"
        "    each.done(each.output_path())\n"
    )
    job = job_text(f"{sys.executable} {script}", events=10, task={"inputs": ["events.dat"]})
    run = runner.start(job)
    assert run.end() == 0, run.log[-3000:]
    account = run.account()
    texts = {b"".join(account.content_of(each.id).values()).decode() for each in account.ranges}
    assert texts == {f"events.dat data {n}" for n in range(1, 11)}
