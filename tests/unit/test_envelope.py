"""Control messages as bytes: what is said is heard, and nothing else is."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espilot.errors import MessageError
from espilot.wire import envelope, messages
from espilot.wire.messages import Alive, Bound, Hello, Serve, Ship, Stop, Used, Work

EXAMPLES: dict[str, Any] = {
    "hello": Hello("dispatcher", 4711),
    "alive": Alive("dispatcher", 12, {"waiting": 3, "last_message_mono": 1.5}),
    "listening": messages.Listening("http://127.0.0.1:1", 7),
    "job-phase": messages.JobPhase(17, 7, "running", "tobekilled"),
    "resumed": messages.Resumed(17, 12, 3, 4, 1, False),
    "task-over": messages.TaskOver({"task_id": 7, "state": "finished"}),
    "bound": Bound(3),
    "settled": messages.Settled(3, 2, 1),
    "overdue": messages.Overdue(3, 4711, "7-11-13-1-1", 700.5, 600.0),
    "storage-health": messages.StorageHealth("trouble", "disk full"),
    "serve": Serve(3, "name", "serve", "drain"),
    "work": Work(17, True, False, True, 1150, "hung"),
    "ship": Ship(0.5),
    "used": Used({"cpu_s": 1.5}),
    "stop": Stop("drain"),
    "bell": messages.Bell("stageout"),
    "status-request": messages.StatusRequest(),
    "status-answer": messages.StatusAnswer({"phase": "running", "verdicts": [[1.5, "hung"]]}),
    "drain-request": messages.DrainRequest("30s", True),
    "drain-answer": messages.DrainAnswer(17, {"safe": 3, "steps": [{"name": "run"}]}),
    "refused": messages.Refused("it drains already"),
}


def packed(**fields: Any) -> bytes:
    """Any map as bytes."""
    data: bytes = msgpack.packb(fields)
    return data


def test_every_type_has_an_example() -> None:
    """No message goes untested."""
    assert set(EXAMPLES) == set(messages.TYPES)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_round_trip(kind: str) -> None:
    """What is encoded is decoded."""
    assert envelope.decode(envelope.encode(EXAMPLES[kind], 9)) == EXAMPLES[kind]


def test_what_is_on_the_wire() -> None:
    """A map with version, type, number and the fields."""
    assert msgpack.unpackb(envelope.encode(Bound(3), 9)) == {
        "v": 1,
        "t": "bound",
        "n": 9,
        "epoch": 3,
    }


def test_unknown_fields_are_ignored() -> None:
    """An older process understands a newer one."""
    assert envelope.decode(packed(v=1, t="bound", n=1, epoch=3, colour="red")) == Bound(3)


def test_missing_fields_have_their_defaults() -> None:
    """A newer process understands an older one, where a default exists."""
    assert envelope.decode(packed(v=1, t="alive", role="x")) == Alive("x")
    with pytest.raises(MessageError, match="Bound without epoch"):
        envelope.decode(packed(v=1, t="bound"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\x81\x90\x01",
        b"\x91" * 3000,
        b"\xdf\xff\xff\xff\xff",
        b"plain text",
        msgpack.packb([1, 2]),
        msgpack.packb(None),
        packed(),
        packed(v=2, t="bound", epoch=3),
        packed(v=1),
        packed(v=1, t="no-such-type"),
        packed(v=1, t=["bound"], epoch=3),
        packed(v=1, t="bound", epoch="3"),
        packed(v=1, t="bound", epoch=3.5),
        packed(v=1, t="bound", epoch=True),
        packed(v=1, t="bound", epoch=None),
        packed(v=1, t="work", panda_id=1, fetch=1, jobs=True, payload_over=False),
        packed(v=1, t="alive", role="x", facts=[1]),
        packed(v=1, t="hello", role=b"bytes", pid=1),
        msgpack.packb(b"x" * (envelope.MAX_BYTES + 1)),
        b"\xd6\xff\xff\xff\xff\xff" + b"\0",
    ],
)
def test_garbage(data: bytes) -> None:
    """What is no message is refused in one short line."""
    with pytest.raises(MessageError) as caught:
        envelope.decode(data)
    assert len(str(caught.value)) < 200


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """No bytes make another error than the one for garbage."""
    try:
        said = envelope.decode(data)
    except MessageError:
        return
    assert dataclasses.is_dataclass(said)


@settings(max_examples=300)
@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_damaged_messages(kind: str, data: st.DataObject) -> None:
    """A message with changed bytes is another message, or refused."""
    body = bytearray(envelope.encode(EXAMPLES[kind]))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        envelope.decode(bytes(body))
    except MessageError:
        return
