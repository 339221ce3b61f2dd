"""What the kit finds in payloads that are wrong in ways of their own: real processes, one case."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from espilot.check.campaign import Campaign, Verdict, chosen_cases
from espilot.check.cases import IMAGINED
from espilot.check.findings import KINDS
from espilot.check.wishes import Wishes

Check = Callable[..., set[str]]

TEXT = """
import os, sys, time, zmq
context = zmq.Context()
socket = context.socket(zmq.DEALER)
socket.connect("ipc:///tmp/zmq_" + os.environ["PILOT_EVENTRANGECHANNEL"])
here = os.environ["ESPILOT_OUTPUT_DIR"]

def ask():
    socket.send(b"Ready for events")
    reply = socket.recv().decode()
    return None if reply == "No more events" else reply.split('"')[3]

def write(name, text="output"):
    with open(f"{here}/{name}", "w") as file:
        file.write(text)
    return f"{here}/{name}"

def report(path, range_id):
    socket.send(f"{path},ID:{range_id},CPU:1,WALL:1".encode())
"""
NATIVE = """
import os, msgpack, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.connect("ipc:///tmp/zmq_" + os.environ["PILOT_EVENTRANGECHANNEL"])
here = os.environ["ESPILOT_OUTPUT_DIR"]

def say(kind, **fields):
    socket.send(msgpack.packb({"t": kind, "v": 1, **fields}))

def hear(*kinds):
    while True:
        message = msgpack.unpackb(socket.recv())
        if message["t"] in kinds:
            return message

def write(range_id):
    path = f"{here}/output.{range_id}"
    with open(path, "w") as file:
        file.write("output")
    return path

def work():
    while (said := hear("ranges", "no_more"))["t"] == "ranges":
        for each in said["ranges"]:
            say("done", id=each["eventRangeID"], outputs=[write(each["eventRangeID"])])
            say("ready", n=1)
"""


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Check a payload given as text in one case; returns the codes."""

    def run(source: str, case: str = "plain", timeout_s: float = 3.0, **more: object) -> set[str]:
        script = tmp_path / "payload.py"
        script.write_text(source)
        return verdict_of([sys.executable, str(script)], case, tmp_path, timeout_s, **more)

    return run


def verdict_of(
    words: list[str], case: str, directory: Path, timeout_s: float, **more: object
) -> set[str]:
    """The codes of one case."""
    wishes = Wishes(tuple(words), timeout_s=timeout_s, inputs=(IMAGINED,), **more)  # type: ignore[arg-type]
    campaign = Campaign(
        wishes, chosen_cases([case]), directory / "cases", jobs=1, on_result=lambda result: None
    )
    verdict: Verdict = campaign.run()
    return {each.code for result in verdict.results for each in result.findings.all()}


def test_text_payload_of_a_few_lines_is_sound(check: Check) -> None:
    """The text that the others are made from is right."""
    source = TEXT + "while each := ask():\n    report(write(each), each)\n"
    assert check(source, timeout_s=20.0) == set()


def test_native_payload_of_a_few_lines_is_sound(check: Check) -> None:
    """The same in the native dialect."""
    source = NATIVE + "say('hello', pid=1, slots=1, name='', sdk='')\nsay('ready', n=1)\nwork()\n"
    assert check(source, timeout_s=20.0) == set()


TEXT_FAULTS = {
    "while each := ask():\n    report(write('same'), each)": "output-overwritten",
    "while each := ask():\n    socket.send(f'ERR_ATHENAMP_PROCESS {each}: '.encode())":
        "failure-without-reason",
    "while each := ask():\n    os.mkdir(f'{here}/{each}'); report(f'{here}/{each}', each)":
        "unusable-file",
    "while each := ask():\n    report('output', each)": "unusable-file",
    "while each := ask():\n    report(write(each), each); ask()": "range-unreported",
    "ask() and time.sleep(600)": "hang",
    "each = ask()\nreport(write(each), each)\ntime.sleep(600)": "stops-asking",
    "path = ''\nwhile each := ask():\n    path and os.unlink(path)\n"
    "    path = write(each); report(path, each)": "change-after-report",
    "while each := ask():\n    socket.send_multipart([b'', b'x']); report(write(each), each)":
        "extra-frames",
    "while each := ask():\n    socket.send(b'Finished ' + each.encode())\n"
    "    report(write(each), each)": "unknown-message",
    "while each := ask():\n    report(write(each), each)\nsys.exit(4)": "exit-code",
    "sys.exit(0)": "no-request",
}  # fmt: skip


@pytest.mark.parametrize("source", TEXT_FAULTS)
def test_text_fault_is_named(check: Check, source: str) -> None:
    """Each fault of a text payload has its name."""
    assert TEXT_FAULTS[source] in check(TEXT + source + "\n")


NATIVE_FAULTS = {
    "say('ready', n=1)\nwork()": ("plain", "no-hello"),
    "say('hello', pid=1, slots=2)\nsay('ready', n=9)\nwork()": ("plain", "request-flood"),
    "say('hello', pid=1)\nsay('ready', n=1)\nwork()": ("slow", "no-pong"),
    "say('hello', pid=1)\nsay('ready', n=1)\nsay('finished', id='x')\nwork()":
        ("plain", "unknown-message"),
    "say('hello', pid=1)\nsay('ready', n=1)\nhear('no_more')\n"
    "for _ in range(100):\n    say('ready', n=1)": ("impatient", "asks-after-no-more"),
}  # fmt: skip


@pytest.mark.parametrize("source", NATIVE_FAULTS)
def test_native_fault_is_named(check: Check, source: str) -> None:
    """Each fault of a native payload has its name."""
    case, code = NATIVE_FAULTS[source]
    assert code in check(NATIVE + source + "\n", case)


def test_other_dialect_is_named(check: Check) -> None:
    """A payload that must speak native and speaks text is told so."""
    source = TEXT + "while each := ask():\n    report(write(each), each)\n"
    assert check(source, dialect="native") == {"wrong-dialect"}


TAKEN_OVER = """
def connect():
    global socket
    socket = zmq.Context().socket(zmq.DEALER)
    socket.identity = b"worker"
    socket.connect("ipc:///tmp/zmq_" + os.environ["PILOT_EVENTRANGECHANNEL"])

child = os.fork()
if child:
    os.waitpid(child, 0)
connect()
if not child:
    ask()
    os._exit(0)
while each := ask():
    report(write(each), each)
"""


def test_range_of_a_client_that_is_replaced_is_missed(check: Check) -> None:
    """A worker that ends with a range in hand and is started again under its name is found out."""
    assert check(TEXT + TAKEN_OVER, timeout_s=20.0) == {"range-unreported"}


def test_failing_odd_ranges_is_no_fault(check: Check) -> None:
    """Where a range may not exist, a failure with a reason is fine."""
    source = TEXT + (
        "while each := ask():\n    socket.send(f'ERR_ATHENAMP_PROCESS {each}: no event'.encode())\n"
    )
    assert check(source, "odd-ranges", timeout_s=20.0) == set()
    assert "range-failed" in KINDS


def test_all_kinds_are_shown_somewhere() -> None:
    """Each kind of finding is provoked by a test here or by the table of the fake payload."""
    table = (Path(__file__).parents[1] / "acceptance" / "test_check_payload.py").read_text()
    here = Path(__file__).read_text()
    assert [code for code in KINDS if f'"{code}"' not in table + here] == []
