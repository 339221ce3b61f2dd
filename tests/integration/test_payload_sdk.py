"""The SDK, its process pool and the runner of commands, against a real ROUTER."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from payload_stub import PilotStub, end, make_ranges

from espilot.errors import UsageError
from espilot.payload import EventRanges
from espilot.wire import payload_native as native
from espilot.wire.payload import Hello, Pong, Progress, Ready, Started

TEN_LINES = """
from pathlib import Path
from espilot.payload import EventRanges

for event_range in EventRanges():
    path = event_range.output_path()
    Path(path).write_text(" ".join(str(event) for event in event_range.events))
    event_range.done(path)
"""


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[PilotStub]:
    """A pilot with five ranges of two events."""
    pilot = PilotStub(make_ranges(5, events=2), tmp_path)
    yield pilot
    pilot.close()


def start(stub: PilotStub, code: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a payload given as Python text."""
    return stub.start("-c", code, **environment)


def test_a_payload_of_ten_lines_does_every_range(stub: PilotStub, tmp_path: Path) -> None:
    """Each range is reported done with its output, events and measured times, then it ends."""
    process = start(stub, TEN_LINES)
    stub.serve(process)
    _, err = end(process)
    assert (process.returncode, err) == (0, b"")
    assert [f.id for f in stub.finished] == [r.id for r in make_ranges(5)]
    assert {f.events for f in stub.finished} == {2}
    assert all(f.cpu_s is not None and f.wall_s is not None for f in stub.finished)
    assert stub.finished[1].paths == (str(tmp_path / "out.dat.7-11-13-2-1"),)
    assert (tmp_path / "out.dat.7-11-13-2-1").read_text() == "3 4"
    assert isinstance(stub.heard[0], Hello) and stub.heard[0].pid == process.pid


def test_the_next_range_is_asked_for_with_the_outcome(stub: PilotStub) -> None:
    """A free slot never waits: right after each outcome comes the next request."""
    process = start(stub, TEN_LINES)
    stub.serve(process)
    end(process)
    kinds = [type(said).__name__ for said in stub.heard]
    assert kinds == ["Hello", "Ready"] + ["Started", "Finished", "Ready"] * 5


def test_several_slots_are_asked_for_at_once(stub: PilotStub) -> None:
    """With three slots the first request is for three ranges, and all are done."""
    process = start(stub, TEN_LINES.replace("EventRanges()", "EventRanges(slots=3, name='x')"))
    stub.serve(process)
    end(process)
    assert stub.heard[:2] == [Hello(process.pid, 3, "x", "espilot"), Ready(3)]
    assert len(stub.finished) == 5


FAILING = """
from espilot.payload import EventRanges
with EventRanges() as ranges:
    for r in ranges:
        if r.start_event == 1:
            r.failed("no such thing", code=1310, fatal=True)
        elif r.start_event == 3:
            r.progress(4)
            continue
        elif r.start_event == 5:
            raise ValueError("broken event")
"""


def test_a_range_without_outcome_is_reported_failed(stub: PilotStub) -> None:
    """Failures said, ranges forgotten and exceptions all reach the pilot with their reason."""
    process = start(stub, FAILING)
    stub.serve(process)
    end(process)
    said, forgotten, raised = stub.failed
    assert (said.code, said.diag, said.fatal) == (1310, "no such thing", True)
    assert "without an outcome" in forgotten.diag and forgotten.code == 1305
    assert raised.diag == "ValueError: broken event"
    assert process.returncode == 1
    assert Progress("7-11-13-2-1", 4) in stub.heard


def test_the_job_is_known_and_pings_are_answered(stub: PilotStub) -> None:
    """Job, output directory and inputs come from the welcome; a ping brings a pong."""

    def ping(identity: bytes, said: object) -> bool:
        if isinstance(said, Hello):
            stub.send(identity, native.ping(77))
        return False

    stub.on_message = ping
    code = (
        "from espilot.payload import EventRanges\n"
        "with EventRanges() as ranges:\n"
        "    print(ranges.job['PandaID'], ranges.output_dir, dict(ranges.inputs))\n"
    )
    process = start(stub, code)
    stub.serve(process)
    out, _ = end(process)
    assert out.decode() == f"5 {stub.output_dir} {{}}\n"
    assert Pong(77) in stub.heard


def test_a_cancelled_range_gets_no_outcome_and_the_next_is_asked_for(stub: PilotStub) -> None:
    """After cancel the payload sees it, says nothing more of that range, and goes on."""

    def cancel(identity: bytes, said: object) -> bool:
        if said == Progress("7-11-13-1-1", 1):
            stub.send(identity, native.cancel("7-11-13-1-1"))
        return False

    stub.on_message = cancel
    code = TEN_LINES.replace(
        "    path =",
        "    event_range.progress(1)\n"
        "    while event_range.start_event == 1 and not event_range.cancelled:\n"
        "        event_range._owner._client.socket.poll()\n"
        "    path =",
    )
    process = start(stub, code)
    stub.serve(process)
    _, err = end(process)
    assert (process.returncode, err) == (0, b"")
    assert [f.id for f in stub.finished] == [r.id for r in make_ranges(5)[1:]]
    assert not stub.failed


def test_a_refused_request_is_an_error_not_a_hang(stub: PilotStub) -> None:
    """When the pilot cannot use our request we end with its words."""

    def refuse(identity: bytes, said: object) -> bool:
        if isinstance(said, Ready):
            stub.send(identity, native.error("too many", "ready"))
        return isinstance(said, Ready)

    stub.on_message = refuse
    process = start(stub, TEN_LINES)
    stub.serve(process)
    _, err = end(process)
    assert process.returncode == 1
    assert b"the pilot refused our ready: too many" in err


def test_garbage_from_the_pilot_is_survived(stub: PilotStub) -> None:
    """An unusable message is answered with an error and the work goes on."""

    def disturb(identity: bytes, said: object) -> bool:
        if isinstance(said, Started):
            stub.send(identity, b"\xc1garbage")
        return False

    stub.on_message = disturb
    process = start(stub, TEN_LINES)
    stub.serve(process)
    end(process)
    assert process.returncode == 0
    assert len(stub.finished) == 5


TERMINATED = TEN_LINES + "    if event_range.start_event == 3: import signal; signal.pause()\n"


def test_term_ends_the_payload_after_delivering_what_was_sent(stub: PilotStub) -> None:
    """SIGTERM is exit code 143; outcomes sent before arrive, and none is invented."""
    process = start(stub, TERMINATED)
    stub.serve(process, until=lambda: len(stub.finished) == 2)
    process.send_signal(signal.SIGTERM)
    stub.serve(process)
    end(process)
    assert process.returncode == 143
    assert len(stub.finished) == 2 and not stub.failed


def test_a_burst_of_outcomes_survives_the_exit(tmp_path: Path) -> None:
    """What was sent right before a clean exit is delivered even when the pilot reads late."""
    stub = PilotStub(make_ranges(500), tmp_path)
    code = (
        "from espilot.payload import EventRanges\n"
        "for r in EventRanges(slots=500): r.done('/x')\n"
        "raise SystemExit(7)\n"
    )
    process = start(stub, code)
    try:
        stub.serve(process)
    finally:
        end(process)
        stub.close()
    assert process.returncode == 7
    assert len(stub.finished) == 500


def test_without_a_channel_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name, or an impossible one, is a clear error before any socket."""
    monkeypatch.delenv("PILOT_EVENTRANGECHANNEL", raising=False)
    with pytest.raises(UsageError, match="PILOT_EVENTRANGECHANNEL"):
        EventRanges()
    for name in ("a/b", "x" * 99):
        with pytest.raises(UsageError, match="slash"):
            EventRanges(name)


POOL = """
import os, sys
from pathlib import Path
from espilot.payload import EventRanges
from espilot.payload.pool import run_processes

def work(index):
    with EventRanges() as ranges:
        for r in ranges:
            path = Path(r.output_path())
            marker = path.with_name("died." + r.id)
            if DEADLY and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), 9)
            path.write_text(str(index))
            r.done(path)

sys.exit(run_processes(work))
"""


def pool(deadly: str) -> str:
    """The payload above, dying where the condition holds."""
    return POOL.replace("DEADLY", deadly)


def test_a_pool_shares_the_ranges(stub: PilotStub) -> None:
    """As many processes as the pilot allows, each a client of its own, exit code 0."""
    process = start(stub, pool("False"), ESPILOT_CORES="2")
    stub.serve(process)
    _, err = end(process)
    assert (process.returncode, err) == (0, b"")
    assert len(stub.identities) == 2
    assert len(stub.finished) == 5


def test_a_pool_restarts_a_process_that_died(stub: PilotStub) -> None:
    """A process killed by a signal is started again and the others' ranges are not touched."""
    process = start(stub, pool("r.start_event == 1"), ESPILOT_CORES="1")
    stub.serve(process)
    _, err = end(process)
    assert process.returncode == 0
    assert b"ended with signal 9; started again" in err
    assert len(stub.finished) == 4


def test_a_pool_gives_up_after_three_restarts(tmp_path: Path) -> None:
    """A process that always dies is given up, and the exit code says so."""
    stub = PilotStub(make_ranges(50), tmp_path)
    process = start(stub, pool("True"), ESPILOT_CORES="1")
    try:
        stub.serve(process)
    finally:
        _, err = end(process)
        stub.close()
    assert process.returncode == 137
    assert err.count(b"started again") == 3 and err.count(b"given up") == 1


def test_a_pool_passes_term_on(stub: PilotStub) -> None:
    """SIGTERM to the parent ends every process, and no one is left."""
    code = pool("False").replace("r.done(path)", "r.done(path); import signal; signal.pause()")
    process = start(stub, code, ESPILOT_CORES="2")
    stub.serve(process, until=lambda: len(stub.finished) == 2)
    process.send_signal(signal.SIGTERM)
    stub.serve(process)
    end(process)
    assert process.returncode == 143
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def runner(stub: PilotStub, *template: str, processes: int = 2) -> subprocess.Popen[bytes]:
    """Start the runner of commands."""
    return stub.start(
        "-m", "espilot.payload.exec_runner", "--processes", str(processes), "--", *template
    )


def test_a_command_runs_per_range_without_a_shell(stub: PilotStub, tmp_path: Path) -> None:
    """Placeholders are filled inside arguments; blanks and quotes in them stay what they are."""
    script = "import sys; open(sys.argv[1],'w').write('|'.join(sys.argv[2:]))"
    words = [
        "{output}",
        "{startEvent}-{lastEvent}",
        "{events} x",
        "{{{LFN}}}",
        "$HOME;'",
        "{input}",
    ]
    process = runner(stub, sys.executable, "-c", script, *words)
    stub.serve(process)
    _, err = end(process)
    assert (process.returncode, err) == (0, b"")
    assert len(stub.finished) == 5
    assert {f.events for f in stub.finished} == {2}
    made = (tmp_path / "out.dat.7-11-13-2-1").read_text()
    assert made == "3-4|2 x|{in.root}|$HOME;'|in.root"


def test_a_template_in_one_string_is_split_once(stub: PilotStub, tmp_path: Path) -> None:
    """One string is split as a shell would split it, before anything is filled in."""
    process = runner(stub, f"{sys.executable} -c \"open('{{output}}', 'w').write('a b')\"")
    stub.serve(process)
    end(process)
    assert len(stub.finished) == 5
    assert (tmp_path / "out.dat.7-11-13-1-1").read_text() == "a b"


@pytest.mark.parametrize(
    ("script", "diag"),
    [
        (
            "import sys; print('a', file=sys.stderr); sys.exit('last words')",
            "exit code 1: last words",
        ),
        ("import os; os.kill(os.getpid(), 9)", "signal 9 (Killed)"),
        ("pass", "exit code 0, but no output"),
    ],
)
def test_a_failing_command_fails_its_range_with_the_reason(
    stub: PilotStub, script: str, diag: str
) -> None:
    """Exit code, signal or missing output are reported with the last line of stderr."""
    process = runner(stub, sys.executable, "-c", script, "{output}")
    stub.serve(process)
    end(process)
    assert process.returncode == 0
    assert [f.code for f in stub.failed] == [1305] * 5
    assert [f.diag[: len(diag)] for f in stub.failed] == [diag] * 5, stub.failed


FIRST_SILENT = """
import os, pathlib, sys, time
here = pathlib.Path(sys.argv[1])

def wait(done):
    deadline = time.monotonic() + 30
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)

if here.name.endswith("-1-1"):
    os.close(2)
    (here.parent / "silent").write_text(str(os.getpid()))
    wait((here.parent / "third").exists)
elif here.name.endswith("-2-1"):
    wait((here.parent / "silent").exists)
    time.sleep(0.2)  # the runner has met the end of the first one's stderr
elif here.name.endswith("-3-1"):
    first = (here.parent / "silent").read_text()
    (here.parent / "third").touch()
    wait(lambda: not pathlib.Path("/proc", first).exists())
sys.exit("last words of " + here.name[-3:])
"""


def test_a_command_that_closes_its_stderr_takes_none_from_a_later_one(stub: PilotStub) -> None:
    """The number of a closed pipe goes to the next command's; the first one's end spares that."""
    process = runner(stub, sys.executable, "-c", FIRST_SILENT, "{output}")
    stub.serve(process)
    end(process)
    said = {f.id: f.diag for f in stub.failed}
    assert said == {"7-11-13-1-1": "exit code 1"} | {
        f"7-11-13-{i}-1": f"exit code 1: last words of {i}-1" for i in range(2, 6)
    }


def test_a_command_that_cannot_be_run_fails_its_range(stub: PilotStub) -> None:
    """A missing program is a failure of the range that names it."""
    process = runner(stub, "/no/such/program", "{output}")
    stub.serve(process)
    end(process)
    assert len(stub.failed) == 5
    assert "cannot run '/no/such/program'" in stub.failed[0].diag


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (["x", "{output}", "{frist}"], "unknown placeholder {frist}"),
        (["x", "{output:>9}"], "unknown placeholder {output:>9}"),
        (["x", "{output0}"], "unknown placeholder {output0}"),
        (["x", "{output"], "command template"),
        (["x 'y {output}"], "No closing quotation"),
        (["x", "{input}"], "names no {output}"),
        (["x", "{output2}"], "there is no stream 1"),
    ],
)
def test_an_unusable_template_takes_no_range(
    stub: PilotStub, template: list[str], words: str
) -> None:
    """A wrong placeholder is one clear line and exit code 64, before any range is asked for."""
    process = runner(stub, *template)
    stub.serve(process)
    _, err = end(process)
    assert process.returncode == 64
    assert words in err.decode() and err.count(b"\n") == 1
    assert not any(isinstance(said, Ready) for said in stub.heard)


def test_commands_run_side_by_side_and_term_ends_them(stub: PilotStub, tmp_path: Path) -> None:
    """N commands run at once; TERM to the runner ends them and what they started."""
    script = "echo $$ > {output}; sleep 600 & wait"
    process = runner(stub, "sh", "-c", script, processes=2)
    stub.serve(process, until=lambda: sum(isinstance(s, Started) for s in stub.heard) == 2)
    groups = [os.getpgid(int(pid)) for pid in children_of(process.pid)]
    assert len(set(groups)) == 2
    process.send_signal(signal.SIGTERM)
    stub.serve(process)
    end(process)
    assert process.returncode == 143
    assert not stub.finished and not stub.failed
    for group in groups:
        assert members(group) == []


def children_of(pid: int) -> list[str]:
    """The pids of a process's children."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def members(group: int) -> list[str]:
    """The living processes of a process group, zombies not counted."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def test_the_runner_cancels_a_command(stub: PilotStub) -> None:
    """A cancelled range's command is ended without outcome and the next one starts."""

    def cancel(identity: bytes, said: object) -> bool:
        if said == Started("7-11-13-1-1"):
            stub.send(identity, native.cancel("7-11-13-1-1"))
        return False

    stub.on_message = cancel
    script = "test {startEvent} = 1 && sleep 600; echo x > {output}"
    process = runner(stub, "sh", "-c", script, processes=1)
    stub.serve(process)
    end(process)
    assert process.returncode == 0
    assert [f.id for f in stub.finished] == [r.id for r in make_ranges(5)[1:]]
    assert not stub.failed


def test_the_sdk_needs_pyzmq_and_msgpack_alone() -> None:
    """Importing the SDK brings in no other third-party package, so a payload can ship it."""
    code = (
        "import sys; before = set(sys.modules); import espilot.payload, espilot.payload.pool;"
        "print(*{m.split('.')[0] for m in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    packages = {name for name in found.stdout.decode().split() if "cython" not in name}
    assert packages == {"espilot", "zmq", "msgpack"}
