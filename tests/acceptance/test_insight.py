"""`espilot status`, `explain` and `dump` as people use them: live, after the end, after a kill of
everything, and where there is nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pilot_run import ESPILOT, FAKE, Run, Runner, end_processes_of, eventually, job_text, runner_in

from espilot.adapters.story import NAME, read_lines

EVENTS = 300
JOB = job_text(f"{FAKE} --clients 2 --delay-ms 40", events=EVENTS)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with runner_in(tmp_path) as made:
        yield made


def espilot(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of `espilot` to its end."""
    argv = [*ESPILOT, *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def status(directory: Path) -> dict[str, Any]:
    """The status as an object."""
    done = espilot("status", directory, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def told(run: Run, what: str) -> list[str]:
    """The ids of which the story tells this, in order."""
    lines = read_lines(run.state / NAME, (what,))
    return [each for line in lines if line["what"] == what for each in line["ranges"]]


def explained(directory: Path, range_id: str) -> dict[str, Any]:
    """The explanation of a range as an object."""
    done = espilot("explain", range_id, directory, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_status_of_a_living_pilot(runner: Runner) -> None:
    """Live: state, job, ranges, risk, rates, storage and resources, from work or state directory,
    for people and as JSON; the pilot goes on as if nobody had looked."""
    total = 5000
    run = runner.start(job_text(f"{FAKE} --clients 2 --delay-ms 40", events=total))
    run.wait_booked(20)
    s = status(run.workdir)
    assert s["schema"] == "espilot.status/1"
    assert s["running"] and s["pid"] == run.process.pid and s["note"] == ""
    assert s["job"]["panda_id"] > 0 and s["job"]["phase"] == "running"
    assert s["job"]["payload"] == "running" and s["job"]["epoch"] == 1
    assert s["total"] == total and 20 <= s["totals"]["finished"] < total
    begun = sum(s["ranges"][name] for name in ("sent", "done", "packed", "staged"))
    assert 1 <= s["at_risk"]["ranges"] <= begun
    assert s["storage"]["state"] == "ok" and s["verdicts"] == []
    assert set(s["pids"]) == {"builtin-server", "event-server", "dispatcher", "stageout"}
    resources = {each["name"]: each for each in s["resources"]}
    assert resources["peak work dir"]["limit"] > 0
    later = eventually(lambda: (new := status(run.state))["rates"] and new, what="rates")
    assert later["rates"]["ranges_per_s"] > 0
    text = espilot("status", run.workdir)
    assert text.returncode == 0 and text.stderr == ""
    assert "would be lost if the node vanished" in text.stdout
    assert f"running, process {run.process.pid}" in text.stdout
    run.wait_booked(run.booked + 20)
    run.process.terminate()
    assert run.end() == 3
    run.account()


def test_explain_live_and_after_the_end(runner: Runner) -> None:
    """A range's whole story is told while the pilot runs and when it has ended, the same."""
    run = runner.start(JOB)
    run.wait_booked(20)
    first = eventually(lambda: told(run, "reported"), what="the story of a report")[0]
    live = explained(run.workdir, first)
    run.require_finished(EVENTS)
    after = explained(run.state, first)
    assert [step["what"] for step in after["steps"]] == [
        "fetched", "sent", "done", "packed", "staged", "reported",
    ]  # fmt: skip
    roles = [step["role"] for step in after["steps"]]
    assert roles == ["event-server", "dispatcher", "dispatcher", "stageout", "stageout",
                     "event-server"]  # fmt: skip
    assert live == after
    assert after["now"].startswith("over")
    text = espilot("explain", first, run.workdir).stdout
    assert f"output.{first}" in text and ".tar" in text and "booked by the server" in text
    assert sorted(told(run, "reported")) == sorted(set(told(run, "fetched")))


def test_status_after_the_end(runner: Runner) -> None:
    """After the end: finished, nothing at risk, nobody runs, nothing to do."""
    run = runner.finish(JOB, EVENTS)
    s = status(run.workdir)
    assert (s["running"], s["run_state"], s["next_step"]) == (False, "finished", "")
    assert s["totals"]["finished"] == s["total"] == EVENTS
    assert s["at_risk"]["ranges"] == 0 and s["stageout"]["lag_s"] == 0
    text = espilot("status", run.workdir).stdout
    assert "finished; no pilot runs" in text and "deadline:" in text and "rates:" in text
    assert espilot("drain", run.workdir, "--plan").returncode == 0
    assert espilot("drain", run.workdir).returncode == 73


def test_what_a_kill_of_everything_left(runner: Runner) -> None:
    """After `kill -9` of all processes the figures are those of the queue, the story of a range in
    hand is told, and what to do next; looking changes nothing, and recover ends the task."""
    run = runner.start(JOB)
    run.wait_booked(20)
    eventually(lambda: told(run, "sent"), what="the story")
    run.process.send_signal(signal.SIGSTOP)
    end_processes_of(run.workdir)
    run.process.wait()
    data = run.state / "queue" / "data.mdb"
    before = data.read_bytes(), sorted(path.name for path in run.state.iterdir())
    known = json.loads((run.state / "standing.json").read_text())
    s = status(run.workdir)
    assert (s["running"], s["pid"], s["run_state"]) == (False, None, "running")
    assert s["totals"]["finished"] >= 20 and s["ranges"]["sent"] >= 1
    assert s["at_risk"]["ranges"] >= s["ranges"]["sent"]
    assert s["next_step"] == f"espilot recover {run.state}"
    assert (s["rates"], s["verdicts"], s["told_at"]) == (known["rates"], [], known["t"])
    assert s["deadline"]["in_s"] is None and s["storage"]["state"] == "ok"
    text = espilot("status", run.workdir).stdout
    assert "no pilot runs" in text and "espilot recover" in text
    for label in ("at risk:", "stage-out:", "deadline:", "verdicts:", "as told at:"):
        assert label in text
    # A pilot that died within its first seconds had not told any rate.
    assert ("rates:" in text) == bool(known["rates"])
    assert status(run.workdir)["at_risk"] == s["at_risk"], "nobody works on them any more"
    plan = espilot("drain", run.workdir, "--plan", "--json")
    planned = json.loads(plan.stdout)
    assert plan.returncode == 0 and planned["pid"] is None
    assert planned["back"] == s["ranges"]["sent"] + s["ranges"]["ready"]
    assert planned["safe"] == sum(s["ranges"][name] for name in ("done", "packed", "staged"))
    words = espilot("drain", run.workdir, "--plan", "--deadline", "30s").stdout
    assert "no pilot runs" in words and "30.0 s are left" in words and "upload" in words
    in_hand = told(run, "sent")[-1]
    assert explained(run.workdir, in_hand)["now"]
    dumped = espilot("dump", run.workdir)
    assert dumped.returncode == 73 and "no pilot runs" in dumped.stderr
    assert (data.read_bytes(), sorted(path.name for path in run.state.iterdir())) == before
    again = espilot("recover", run.workdir, "--json")
    assert again.returncode == 0, again.stderr
    assert status(run.workdir)["totals"]["finished"] == EVENTS


def test_stopped_supervisor(runner: Runner) -> None:
    """A supervisor that does not answer costs two seconds; the figures come from the queue, it is
    said so, and a dump shows what the others do."""
    run = runner.start(JOB)
    run.wait_booked(20)
    run.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    s = status(run.workdir)
    assert time.monotonic() - started < 10
    assert s["running"] and "does not answer" in s["note"]
    assert s["ranges"]["sent"] >= 1 and s["told_at"] < time.time()
    assert s["next_step"].startswith("espilot dump")
    dumped = espilot("dump", run.workdir)
    assert dumped.returncode == 0
    assert f"process {run.process.pid}:" in dumped.stdout and "T (stopped)" in dumped.stdout
    assert "in serve" in dumped.stdout
    run.process.send_signal(signal.SIGCONT)
    run.require_finished(EVENTS)


def test_dump(runner: Runner) -> None:
    """The stacks of all roles and the whole tree go to terminal and log; nobody dies of it, and
    the payload gets no signal."""
    run = runner.start(JOB)
    run.wait_booked(20)
    roles = ("supervisor", "dispatcher", "event-server", "stageout", "builtin-server", "launcher",
             "payload", "client")  # fmt: skip
    before = {role: run.pid_of(role) for role in roles}
    dumped = espilot("dump", run.workdir)
    assert dumped.returncode == 0 and dumped.stderr == ""
    tree, _, rest = dumped.stdout.partition("\n\n")
    for role, pid in before.items():
        assert any(line.split()[0] == str(pid) for line in tree.splitlines()[1:]), role
        assert f"process {pid}: " in rest, role
    for module in ("supervisor/supervisor.py", "workers/dispatcher.py", "workers/stageout.py",
                   "workers/event_server.py", "workers/builtin_server.py"):  # fmt: skip
        assert module in rest, module
    assert dumped.stdout in run.log
    assert {role: run.pid_of(role) for role in roles} == before
    run.require_finished(EVENTS)
    assert "role died" not in run.log


def test_signals_to_every_process_of_the_job(runner: Runner) -> None:
    """Signals that batch systems send to every process of a job neither end nor confuse a role."""
    run = runner.start(JOB)
    run.wait_booked(20)
    pids = {role: run.pid_of(role) for role in ("dispatcher", "event-server", "stageout")}
    for pid in pids.values():
        assert pid is not None
        for name in ("HUP", "USR1", "USR2", "XCPU", "QUIT"):
            os.kill(pid, signal.Signals[f"SIG{name}"])
    run.wait_booked(60)
    assert {role: run.pid_of(role) for role in pids} == pids
    run.require_finished(EVENTS)


@pytest.mark.parametrize("command", ["status", "explain", "dump"])
@pytest.mark.parametrize("place", ["empty", "missing", "file"])
def test_where_nothing_is(tmp_path: Path, command: str, place: str) -> None:
    """No run there: one clear line, exit 64, and nothing is made."""
    directory = tmp_path / place
    if place == "empty":
        directory.mkdir()
    elif place == "file":
        directory.write_text("x")
    before = sorted(tmp_path.rglob("*"))
    arguments = ["1-1-1-1-1", directory] if command == "explain" else [directory]
    done = espilot(command, *arguments)
    assert done.returncode == 64
    assert str(directory) in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_unknown_range(runner: Runner) -> None:
    """A range that nobody knows: exit 64, and the ids that are most like it."""
    run = runner.finish(job_text(f"{FAKE} --clients 2", events=20), 20)
    known = told(run, "reported")[0]
    task, job, file, _, attempt = known.split("-")
    done = espilot("explain", f"{task}-{job}-{file}-77-{attempt}", run.workdir)
    assert done.returncode == 64
    assert "did you mean" in done.stderr and f"{task}-{job}-{file}-20-{attempt}" in done.stderr
    assert espilot("explain", "nonsense", run.workdir).returncode == 64


@pytest.mark.parametrize("command", ["status", "explain", "dump"])
def test_help_has_examples(command: str) -> None:
    """Each command's help shows how it is used."""
    done = espilot(command, "--help")
    assert done.returncode == 0 and "examples:" in done.stdout and "exit codes:" in done.stdout
