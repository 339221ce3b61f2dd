"""What goes wrong between a payload's end of the channel and the pilot, against a real ROUTER."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from payload_stub import PilotStub, end, make_ranges

from espilot.model import EventRange
from espilot.wire import payload_native as native
from espilot.wire.payload import Hello, PeerError, Ready

LOOP = """
from pathlib import Path
from espilot.payload import EventRanges

for event_range in EventRanges():
    path = event_range.output_path()
    event_range.progress(event_range.last_event)
    Path(path).write_text(str(event_range.start_event))
    event_range.done(path)
"""


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[PilotStub]:
    """A pilot with two ranges."""
    pilot = PilotStub(make_ranges(2), tmp_path)
    yield pilot
    pilot.close()


def test_large_event_numbers_are_processed(stub: PilotStub) -> None:
    """Numbers up to the server's limit are done like others, also a range of very many events."""
    stub.left.clear()
    stub.left.append(EventRange("1-2-3-4-1", 2**63 - 1, 2**63 - 1, "", "", ""))
    stub.left.append(EventRange("1-2-3-5-1", 0, 2**63 - 1, "", "", ""))
    process = stub.start("-c", LOOP)
    stub.serve(process)
    _, err = end(process)
    assert (process.returncode, err) == (0, b"")
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
    process = stub.start("-c", LOOP.replace("in EventRanges()", "in EventRanges(slots=2)"))
    stub.serve(process)
    _, err = end(process)
    assert process.returncode == 1
    assert f"PayloadError: the pilot sent a {kind} message that cannot be used".encode() in err
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
    process = stub.start("-c", LOOP)
    stub.serve(process)
    _, err = end(process)
    assert process.returncode == 1
    assert f"PayloadError: the pilot refused our {about}: field x is 0".encode() in err
