"""What goes wrong between a payload's end of the channel and the pilot, against a real ROUTER."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from payload_stub import PilotStub, end, make_ranges

from espilot.errors import UsageError
from espilot.model import EventRange
from espilot.payload import EventRanges
from espilot.wire import payload_native as native
from espilot.wire.payload import MAX_DIAG_CHARS, Hello, PeerError, Ready

LOOP = """
from pathlib import Path
from espilot.payload import EventRanges

for event_range in EventRanges():
    path = event_range.output_path()
    event_range.progress(event_range.last_event)
    Path(path).write_text(str(event_range.start_event))
    event_range.done(path)
"""


EXEC = ("-m", "espilot.payload.exec_runner")
FILE = ("-m", "espilot.payload.file_runner")


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[PilotStub]:
    """A pilot with two ranges."""
    pilot = PilotStub(make_ranges(2), tmp_path)
    yield pilot
    pilot.close()


def run(stub: PilotStub, *command: str) -> tuple[int, str]:
    """Serve a payload to its end; its exit code and stderr."""
    process = stub.start(*command)
    try:
        stub.serve(process)
    finally:
        _, err = end(process)
    return process.returncode, err.decode()


def test_large_event_numbers_are_processed(stub: PilotStub) -> None:
    """Numbers up to the server's limit are done like others, also a range of very many events."""
    stub.left.clear()
    stub.left.append(EventRange("1-2-3-4-1", 2**63 - 1, 2**63 - 1, "", "", ""))
    stub.left.append(EventRange("1-2-3-5-1", 0, 2**63 - 1, "", "", ""))
    assert run(stub, "-c", LOOP) == (0, "")
    assert [(f.id, f.events) for f in stub.finished] == [("1-2-3-4-1", 1), ("1-2-3-5-1", None)]
    assert not stub.unusable


@pytest.mark.parametrize(
    ("kind", "cause"),
    [("welcome", Hello), ("ranges", Ready), ("no_more", Ready)],
)
def test_an_unusable_answer_ends_the_payload(stub: PilotStub, kind: str, cause: type) -> None:
    """What is waited for and cannot be used would never come again: both sides are told."""

    def answer(identity: bytes, said: object) -> bool:
        if not isinstance(said, cause):
            return False
        stub.send(identity, msgpack.packb({"t": kind, "v": 2}))
        return True

    stub.on_message = answer
    code, err = run(stub, "-c", LOOP.replace("in EventRanges()", "in EventRanges(slots=2)"))
    assert code == 1
    assert f"PayloadError: the pilot sent a {kind} message that cannot be used" in err
    assert [said.about for said in stub.heard if isinstance(said, PeerError)] == [kind]


@pytest.mark.parametrize("about", ["hello", "ready"])
def test_a_refused_request_ends_the_payload_with_the_reason(stub: PilotStub, about: str) -> None:
    """The pilot's words are told, whichever of the first messages it could not use."""

    def refuse(identity: bytes, said: object) -> bool:
        if type(said).__name__.lower() == about:
            stub.send(identity, native.error("field x is 0", about))
            return True
        return False

    stub.on_message = refuse
    code, err = run(stub, "-c", LOOP)
    assert code == 1
    assert f"PayloadError: the pilot refused our {about}: field x is 0" in err


TALKATIVE = """
from pathlib import Path
from espilot.payload import EventRanges
with EventRanges() as ranges:
    for number, r in enumerate(ranges):
        if number == 0:
            r.failed("why: " + "x" * 2**21)
        else:
            r.failed("b\\udce9ton, second line\\n below")
"""


def test_a_diagnosis_is_told_as_far_as_it_can_be(stub: PilotStub) -> None:
    """Its length and characters never cost the outcome."""
    assert run(stub, "-c", TALKATIVE) == (0, "")
    long, strange = [f.diag for f in stub.failed]
    assert long.startswith("why: xxx") and len(long) == MAX_DIAG_CHARS
    assert strange == "b?ton, second line below"


UNUSABLE = """
from espilot.errors import UsageError
from espilot.payload import EventRanges
with EventRanges() as ranges:
    for r in ranges:
        for path, more in (
            ("/a", {"meta": {"log": "x" * 2**20}}),
            ("/a", {"meta": {1: "x"}}),
            ("/a", {"meta": {"x": object()}}),
            ("/a", {"events": -1}),
            ("/a\\udce9", {}),
        ):
            try:
                r.done(path, **more)
            except UsageError as error:
                print(error)
        r.failed("no luck", code=-1) if r.start_event == 1 else r.done("/b", meta={"x": 1})
"""


def test_an_outcome_that_the_pilot_could_not_use_is_the_payloads_error(stub: PilotStub) -> None:
    """It is told what is wrong, may report otherwise, and what it raises fails the range."""
    process = stub.start("-c", UNUSABLE)
    try:
        stub.serve(process)
    finally:
        out, err = end(process)
    assert process.returncode == 1
    lines = out.decode().splitlines()
    words = "over the limit", "not msgpack", "serialize", "field events", "surrogates"
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * 5
    assert all("range 7-11-13-1-1 cannot be reported: " in line for line in lines)
    assert b"UsageError: the outcome of range 7-11-13-1-1 cannot be reported: field code" in err
    assert [f.diag.partition(":")[0] for f in stub.failed] == ["UsageError"]
    assert not stub.unusable


def test_an_outcome_after_a_refused_one_counts(stub: PilotStub) -> None:
    """The range is not settled by a report that could not be made."""
    stub.left.popleft()
    code = UNUSABLE.replace("print(error)", "pass")
    assert run(stub, "-c", code) == (0, "")
    assert [(f.paths, f.meta) for f in stub.finished] == [(("/b",), {"x": 1})]
    assert not stub.failed and not stub.unusable


EACH = (*EXEC, "--processes", "1", "--", "true", "{output}")
MANY = (*FILE, "--", "true", "{ranges}")


@pytest.mark.parametrize(
    ("command", "name", "why"),
    [
        pytest.param(EACH, "o" * 250, "exit code 0, but no output", id="long"),
        pytest.param(EACH, "o\0o", "cannot run 'true': embedded null byte", id="NUL"),
        pytest.param(MANY, "o" * 250, "the command ended with exit code 0, and", id="long, many"),
        pytest.param(MANY, "o\0o", "the command ended with exit code 0, and", id="NUL, many"),
    ],
)
def test_an_impossible_output_name_fails_its_ranges(
    stub: PilotStub, command: tuple[str, ...], name: str, why: str
) -> None:
    """A name that no file can have is a reason for the range; the runner goes on to its end."""
    stub.job["outputs"] = [name]
    assert run(stub, *command) == (0, "")
    assert [f.diag[: len(why)] for f in stub.failed] == [why] * 2


def test_a_full_disk_for_stderr_ends_no_command(stub: PilotStub) -> None:
    """Where a command's stderr cannot be passed on, the work goes on and reasons are known."""
    script = "echo warning >&2; test {startEvent} = 1 && exit 3; echo x > {output}"
    command = [sys.executable, *EXEC, "--processes", "2", "--", "sh", "-c", script]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            command, env=stub.environment(), stderr=full, start_new_session=True
        )
    try:
        stub.serve(process)
    finally:
        end(process)
    assert process.returncode == 0
    assert [f.id for f in stub.finished] == ["7-11-13-2-1"]
    assert [f.diag for f in stub.failed] == ["exit code 3: warning"]


def test_trouble_of_this_node_is_one_line_of_the_runner(stub: PilotStub) -> None:
    """An error of the system while a command is started ends the runner with its reason."""
    code = (
        "import os, sys; from espilot.payload import exec_runner\n"
        "def broken(pid): raise OSError(24, 'Too many open files')\n"
        "os.pidfd_open = broken\n"
        "sys.exit(exec_runner.run(['--processes', '1', '--', 'true', '{output}']))"
    )
    assert run(stub, "-c", code) == (1, "exec_runner: [Errno 24] Too many open files\n")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ((*EXEC, "--processes", "3000000000", "--", "x", "{output}"), "--processes 3000000000"),
        ((*EXEC, "--processes", "0", "--", "x", "{output}"), "--processes 0"),
        ((*FILE, "--ranges", "3000000000", "--", "x", "{ranges}"), "--ranges 3000000000"),
        ((*FILE, "--ranges", "0", "--", "x", "{ranges}"), "--ranges 0"),
    ],
)
def test_more_than_can_be_told_is_refused_at_once(
    stub: PilotStub, command: tuple[str, ...], named: str
) -> None:
    """A number beyond the protocol is one clear line and exit code 64; the pilot hears nothing."""
    code, err = run(stub, *command)
    assert (code, err.count("\n")) == (64, 1)
    assert f"{named}: must be from 1 to 2147483648" in err
    assert not stub.heard and not stub.unusable


def test_more_slots_than_can_be_told_are_refused() -> None:
    """The SDK says so before there is a socket."""
    for slots in (0, 3_000_000_000):
        with pytest.raises(UsageError, match=f"slots is {slots}"):
            EventRanges("nobody", slots=slots)
