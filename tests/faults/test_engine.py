"""The engine inside of a foreign program: to the end, and through every way to end early."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pilot_run import FAKE, eventually
from run_oracle import processes_of

from espilot.api import EventEngine, EventRange, LocalError, Outcome, PayloadError, UsageError

HERE = Path(__file__).parent
EVENTS = 40
FILES = f"{sys.executable} {HERE / 'file_payload.py'} ask --clients 2"
SLOW = "--delay-ms 30"


class Program:
    """The embedding program, started again and again with the same directory and book."""

    def __init__(self, directory: Path) -> None:
        self.workdir, self.book = directory / "w", directory / "book"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, payload: str, *options: str) -> subprocess.Popen[str]:
        """Start it."""
        program = [sys.executable, str(HERE / "embedder.py"), str(self.workdir), str(self.book)]
        process = subprocess.Popen(
            [*program, "--events", str(EVENTS), *options, "--", *payload.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def end(self, process: subprocess.Popen[str], code: int = 0) -> tuple[dict[str, Any], str]:
        """Wait for its end, nothing may be left of it; what it printed, and its stderr."""
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == code, f"{stderr[-3000:]}\n{self.log[-3000:]}"
        self.require_nothing_left()
        return json.loads(stdout) if stdout else {}, stderr

    def require_nothing_left(self) -> None:
        """No process, socket or directory of it is there any more."""
        eventually(lambda: not processes_of(self.workdir), 20.0, "its processes end")
        pilot = self.workdir / "state" / "pilot.json"
        record = json.loads(pilot.read_text()) if pilot.exists() else {}
        names = [word.partition("name=")[2].split()[0] for word in self.log.splitlines()
                 if "channel open" in word]  # fmt: skip
        paths = [Path(f"/tmp/zmq_{name}") for name in names] + [Path(record.get("runtime", "/no"))]
        eventually(lambda: not any(path.exists() for path in paths), 20.0, f"{paths} go")

    @property
    def log(self) -> str:
        """The engine's log."""
        path = self.workdir / "logs" / "pilot.log"
        return path.read_text() if path.exists() else ""

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was handled, in order."""
        text = self.book.read_text() if self.book.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def require_all(self, *, repeated: int = 0) -> None:
        """Every range has a right output, and at most so many were told twice."""
        counts = Counter(line["id"] for line in self.lines if line["state"] == "finished")
        assert len(counts) == EVENTS
        assert all(line["right"] == [True] for line in self.lines)
        assert sum(counts.values()) - EVENTS <= repeated


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("payload", "options"),
    [
        (f"{FAKE} --clients 2", ()),
        (f"{FAKE} --clients 2 --dialect native --outstanding 4", ()),
        (FILES, ("--outputs", "renamed")),
    ],
    ids=["text", "native", "files"],
)
def test_foreign_program_runs_a_payload_to_the_end(
    program: Program, payload: str, options: tuple[str, ...]
) -> None:
    """Each range is handled once with its output; hooks have threads of their own, and children
    of the program are left to it."""
    facts, stderr = program.end(program.start(payload, *options))
    program.require_all()
    assert (facts["finished"], facts["failed"], facts["returned"]) == (EVENTS, 0, [])
    assert (facts["own"], facts["in_main"], facts["stopped"]) == (5, False, False)
    assert len(facts["given"]) == EVENTS and not stderr


def test_failures_are_outcomes_too(program: Program) -> None:
    """A range that the payload reports as failed is handled with its reason."""
    facts, _ = program.end(program.start(f"{FAKE} --fail-every 10"))
    assert (facts["finished"], facts["failed"]) == (EVENTS - 4, 4)
    assert Counter(line["state"] for line in program.lines) == {"finished": 36, "failed": 4}
    assert all(line["code"] for line in program.lines if line["state"] == "failed")


@pytest.mark.parametrize("hook", ["--raise-get", "--raise-handle"])
def test_a_hook_that_raises_ends_the_run_and_loses_nothing(program: Program, hook: str) -> None:
    """run() raises it when the payload is gone; the next run tells what was not handled."""
    _, stderr = program.end(program.start(f"{FAKE} --clients 2 {SLOW}", hook, "5"), code=1)
    assert "RuntimeError: the s" in stderr and "is broken" in stderr
    handled = len(program.lines)
    assert handled < EVENTS
    program.end(program.start(f"{FAKE} --clients 2"))
    program.require_all()


def test_an_early_end_by_the_program(program: Program) -> None:
    """After stop() every range that was given is handled or named as returned, none is both."""
    facts, _ = program.end(program.start(f"{FAKE} --clients 2 {SLOW}", "--stop-after", "10"))
    handled = [line["id"] for line in program.lines]
    assert facts["stopped"] and 10 <= facts["finished"] < EVENTS
    assert sorted(handled + facts["returned"]) == sorted(facts["given"])
    program.end(program.start(f"{FAKE} --clients 2"))
    program.require_all()


def test_an_early_end_with_a_payload_that_does_not(program: Program) -> None:
    """A payload that hangs and ignores SIGTERM is killed after the grace; the rest is as always."""
    payload = f"{FAKE} --hang-after 8 --ignore-term"
    process = program.start(payload, "--stop-after", "8", "--grace-s", "0.2")
    facts, _ = program.end(process)
    assert facts["finished"] == 8 and facts["returned"]
    assert len(facts["given"]) == 8 + len(facts["returned"])


def test_lesson_08_killed_program_loses_nothing(program: Program) -> None:
    """SIGKILL at any moment: the payload ends with it, and the next runs tell every outcome; what
    was being told at that instant is told again."""
    chance = random.Random(8)
    for _ in range(2):
        process = program.start(f"{FAKE} --clients 2 {SLOW}", "--slow-ms", "5")
        wanted = len(program.lines) + chance.randrange(2, 12)
        eventually(lambda: len(program.lines) >= wanted or process.poll() is not None)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.communicate()
        program.require_nothing_left()
    program.end(program.start(f"{FAKE} --clients 2"))
    program.require_all(repeated=2 * 16)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_of_the_program_is_its_own(program: Program, number: signal.Signals) -> None:
    """Ctrl-C raises KeyboardInterrupt out of run(), the default of SIGTERM ends the process: the
    payload ends, nothing is lost."""
    process = program.start(f"{FAKE} --clients 2 {SLOW}")
    eventually(lambda: len(program.lines) >= 5)
    process.send_signal(number)
    program.end(process, code=-number if number == signal.SIGTERM else -signal.SIGINT)
    program.end(program.start(f"{FAKE} --clients 2"))
    program.require_all(repeated=16)


def test_a_crashing_payload_is_started_again(program: Program) -> None:
    """What it had in hand goes to the next start."""
    facts, _ = program.end(program.start(f"{FAKE} --crash-after 15"))
    program.require_all()
    assert facts["starts"] == 3


class Hooks:
    """Ranges without end; outcomes are counted."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def get_event_ranges(self, n: int) -> list[EventRange]:
        return [EventRange(f"1-1-1-{k}-1", k, k, "f", "G", "s") for k in range(1, n + 1)]

    def handle_output(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@pytest.mark.parametrize(
    ("command", "text"),
    [(["/no/such/program"], "/no/such/program"), (["false"], "died after 2 starts")],
)
def test_a_payload_that_cannot_run(tmp_path: Path, command: list[str], text: str) -> None:
    """One error that names it; nothing hangs."""
    engine = EventEngine(command, Hooks(), tmp_path / "w", settings={"restarts": 2})
    with pytest.raises(PayloadError, match=text):
        engine.run()
    assert not processes_of(tmp_path / "w")


def test_one_engine_in_a_directory(tmp_path: Path) -> None:
    """The second one is refused with the process of the first."""

    class Nested(Hooks):
        def get_event_ranges(self, n: int) -> list[EventRange]:
            return EventEngine(["true"], Hooks(), tmp_path / "w").run()  # type: ignore[return-value]

    with pytest.raises(LocalError, match=f"process {os.getpid()}"):
        EventEngine(["sleep", "60"], Nested(), tmp_path / "w").run()


class NoRanges(Hooks):
    """Gives something else."""

    def __init__(self, given: object) -> None:
        super().__init__()
        self.given = given

    def get_event_ranges(self, n: int) -> list[EventRange]:
        return self.given  # type: ignore[return-value]


@pytest.mark.parametrize("given", [7, ["1-2-3-4-1"], [EventRange("", 1, 1, "f", "G", "s")]])
def test_what_is_no_range_is_refused(tmp_path: Path, given: object) -> None:
    """A hook that gives something else hears so from run()."""
    with pytest.raises((UsageError, TypeError, Exception)) as caught:
        EventEngine(["sleep", "60"], NoRanges(given), tmp_path / "w").run()
    assert not processes_of(tmp_path / "w")
    assert str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"command": "./payload"}, "command must be a list"),
        ({"command": []}, "command must be a list"),
        ({"hooks": object()}, "get_event_ranges"),
        ({"output_names": "out"}, "output_names"),
        ({"settings": {"outputs": "x"}}, "payload.outputs"),
        ({"settings": {"exec": "x"}}, "exec"),
        ({"settings": {"nonsense": 1}}, "payload.nonsense"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: dict[str, Any], text: str) -> None:
    """Before anything is started."""
    good: dict[str, Any] = {"command": ["true"], "hooks": Hooks(), "workdir": tmp_path / "w"}
    with pytest.raises(UsageError, match=text):
        EventEngine(**(good | arguments))
    assert not (tmp_path / "w").exists()


def test_the_example_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    """The shown program: Ctrl-C ends it in good order, and the same command does the rest."""
    root = HERE.parents[1]
    argv = [sys.executable, str(root / "etc/jobs/embed_example.py"), str(tmp_path), "--events"]
    argv += ["100", "--", *FAKE.split(), *SLOW.split()]
    table = tmp_path / "book.csv"
    first = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    eventually(lambda: table.exists())
    first.send_signal(signal.SIGINT)
    stdout, _ = first.communicate(timeout=60)
    assert first.returncode == 3 and "left" in stdout
    second = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert second.returncode == 0, second.stderr
    assert len(table.read_text().splitlines()) == 20
    assert len(list((tmp_path / "outputs").iterdir())) == 20
