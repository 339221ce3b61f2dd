"""The native dialect: both sides understand each other, and nothing else does harm."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espilot.errors import MessageError
from espilot.model import EventRange
from espilot.wire import payload as said
from espilot.wire import payload_native as native

RANGES = tuple(EventRange(f"1-2-3-{i}-1", i, i + 1, "l", "g", "s", "p") for i in (1, 2))


@pytest.mark.parametrize(
    ("message", "meant"),
    [
        (native.hello(12, 3, "n", "espilot"), said.Hello(12, 3, "n", "espilot")),
        (native.ready(4), said.Ready(4)),
        (native.started("1-2"), said.Started("1-2")),
        (native.progress("1-2", 7), said.Progress("1-2", 7)),
        (native.done("1-2", ["/a"]), said.Finished("1-2", ("/a",), None, None)),
        (
            native.done("1-2", ["/a", "/b"], cpu_s=1.0, wall_s=2, events=3, meta={"k": [1]}),
            said.Finished("1-2", ("/a", "/b"), 1.0, 2.0, 3, {"k": [1]}),
        ),
        (native.failed("1-2", 1305, "no", True), said.Failed("1-2", 1305, "no", True)),
        (native.ping(1), said.Ping(1)),
        (native.pong(2), said.Pong(2)),
        (native.error("bad", "ack"), said.PeerError("bad", "ack")),
    ],
)
def test_the_pilot_understands_the_payload(message: bytes, meant: Any) -> None:
    """Each message of the payload arrives as it was meant."""
    assert native.is_native(message)
    assert native.parse(message) == meant


@pytest.mark.parametrize(
    ("message", "meant"),
    [
        (
            native.welcome({"PandaID": 1}, "/out", {"l": "p"}, 5.0),
            said.Welcome({"PandaID": 1}, "/out", {"l": "p"}, 5.0),
        ),
        (native.ranges(RANGES), said.Ranges(RANGES)),
        (native.no_more("drain"), said.NoMore("drain")),
        (native.ack("1-2"), said.Ack("1-2")),
        (native.cancel("1-2"), said.Cancel("1-2")),
        (native.ping(1), said.Ping(1)),
    ],
)
def test_the_payload_understands_the_pilot(message: bytes, meant: Any) -> None:
    """Each message of the pilot arrives as it was meant."""
    assert native.parse_pilot(message) == meant


def test_text_is_not_taken_for_native() -> None:
    """The first byte tells the dialects apart."""
    for message in (b"", b"Ready for events", b"/a,ID:1", b"ERR_X 1: t", b"[{}]"):
        assert not native.is_native(message)
    assert native.is_native(msgpack.packb({str(i): i for i in range(20)}))
    assert native.is_native(msgpack.packb({i: i for i in range(70000)}))


def test_unknown_fields_are_ignored_and_unknown_types_named() -> None:
    """A newer peer may say more; a type we do not know is told apart and named."""
    assert native.parse(msgpack.packb({"t": "ready", "v": 1, "n": 2, "new": [1]})) == said.Ready(2)
    with pytest.raises(said.UnknownMessage, match="nonsense"):
        native.parse(msgpack.packb({"t": "nonsense", "v": 1}))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"t": 1},
        {"t": "ready", "v": 2},
        {"t": "ready", "v": True},
        {"t": "ready", "n": 0},
        {"t": "ready", "n": True},
        {"t": "ready", "n": "1"},
        {"t": "ready", "n": 2**40},
        {"t": "started"},
        {"t": "started", "id": ""},
        {"t": "started", "id": "a\nb"},
        {"t": "started", "id": "1" * 300},
        {"t": "started", "id": b"1"},
        {"t": "done", "id": "1", "outputs": []},
        {"t": "done", "id": "1", "outputs": "/a"},
        {"t": "done", "id": "1", "outputs": ["/a\0"]},
        {"t": "done", "id": "1", "outputs": [1]},
        {"t": "done", "id": "1", "outputs": ["/a"], "cpu_s": "1"},
        {"t": "done", "id": "1", "outputs": ["/a"], "events": -1},
        {"t": "done", "id": "1", "outputs": ["/a"], "meta": [1]},
        {"t": "failed", "id": "1", "fatal": 1},
        {"t": "failed", "id": "1", "code": 1.5},
        {"t": "hello", "slots": 0},
    ],
)
def test_wrong_types_are_refused_with_a_short_text(fields: dict[str, Any]) -> None:
    """A field of the wrong type or out of bounds is named in a short printable error."""
    with pytest.raises(MessageError) as caught:
        native.parse(msgpack.packb(fields))
    assert len(str(caught.value)) < 200 and str(caught.value).isprintable()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_an_impossible_time_never_costs_an_output(value: float) -> None:
    """A measured time that cannot be is unknown; the output is taken."""
    message = native.done("1", ["/a"], cpu_s=value, wall_s=value)
    assert native.parse(message) == said.Finished("1", ("/a",), None, None)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x81",
        b"\xc1",
        b"\x90",
        b"\x80\x80",
        b"\x81\x80\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 3000,
        b"\x81\xa1t" * 3000,
        b"\x80" + b"x" * 2**20,
    ],
)
def test_broken_or_greedy_bytes_are_refused(message: bytes) -> None:
    """Truncated, nested or oversized bytes raise MessageError, on both sides."""
    for parse in (native.parse, native.parse_pilot):
        with pytest.raises(MessageError):
            parse(message)


LAST = 2**63 - 1


@pytest.mark.parametrize("first", [2**31 + 1, 3_000_000_000, LAST])
def test_an_event_number_of_the_server_reaches_the_payload(first: int) -> None:
    """Whatever number the server may send is understood, and so is the progress with it."""
    each = EventRange("1-2-3-4-1", first, LAST, "l", "g", "s")
    assert native.parse_pilot(native.ranges([each])) == said.Ranges((each,))
    assert native.parse(native.progress("1-2", first)) == said.Progress("1-2", first)


def test_a_number_of_events_that_cannot_be_told_is_left_out() -> None:
    """The outcome of a huge range is no reason for the pilot to refuse it."""
    heard = native.parse(native.done("1-2", ["/a"], events=LAST + 1))
    assert heard == said.Finished("1-2", ("/a",), None, None, None)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (msgpack.packb({"t": "ranges", "v": 2}), "ranges"),
        (msgpack.packb({"t": "a\nb"}), "a b"),
        (msgpack.packb({"t": 1}), ""),
        (msgpack.packb({}), ""),
        (b"\xc1garbage", ""),
        (b"", ""),
    ],
)
def test_the_kind_of_an_unusable_message_can_be_told(message: bytes, kind: str) -> None:
    """Its type is known where it has one, though the rest cannot be used."""
    assert native.kind_of(message) == kind


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [1],
        [{}],
        [{"eventRangeID": "1", "startEvent": 2, "lastEvent": 1}],
        [{"eventRangeID": "1", "startEvent": 1, "lastEvent": 2**63}],
        "x",
    ],
)
def test_the_payload_refuses_broken_ranges(ranges: Any) -> None:
    """At least one range, each with an id and events in order."""
    with pytest.raises(MessageError):
        native.parse_pilot(msgpack.packb({"t": "ranges", "v": 1, "ranges": ranges}))


_KEYS = st.sampled_from(["t", "v", "id", "n", "outputs", "ranges", "job", "inputs", "code", "meta"])
_TYPES = st.sampled_from(["hello", "ready", "done", "failed", "welcome", "ranges", "error", "x"])
_LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary()
_VALUES = st.recursive(
    _LEAVES | st.text() | _TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=300) | st.dictionaries(_KEYS, _VALUES | _TYPES).map(msgpack.packb))
def test_no_bytes_raise_anything_else(message: bytes) -> None:
    """Whatever arrives is a message or a MessageError with a printable text."""
    for parse in (native.parse, native.parse_pilot):
        try:
            parse(message)
        except MessageError as error:
            assert str(error).isprintable()


def test_a_diagnosis_is_one_short_printable_line() -> None:
    """Foreign text is flattened and shortened before it reaches a log."""
    heard = native.parse(native.failed("1", 1, "a\nb\x1b[31m" + "x" * 9999))
    assert isinstance(heard, said.Failed)
    assert heard.diag.startswith("a b?[31m") and len(heard.diag) == said.MAX_DIAG_CHARS
