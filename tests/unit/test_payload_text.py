"""The text dialect: what payloads say, and what they can be told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espilot.errors import MessageError
from espilot.model import EventRange
from espilot.wire import payload_text as text
from espilot.wire.payload import Failed, Finished, Ready

RANGE = EventRange("7-11-13-1-1", 3, 5, "EVNT.root.1", "AB-12", "mc16", "root://se//a/EVNT.root.1")


@pytest.mark.parametrize(
    "message", [b"Ready for events", b"Ready for events\nx", b"Ready for events\0"]
)
def test_a_request_is_understood_with_whatever_follows_it(message: bytes) -> None:
    """A request counts up to its first newline, trailing NUL or blank."""
    assert text.parse(message) == Ready(1)


@pytest.mark.parametrize(
    ("message", "paths", "cpu_s", "wall_s"),
    [
        (b"/a/b,ID:1-2,CPU:1.5,WALL:2", ("/a/b",), 1.5, 2.0),
        (b"/a/b,/c/d,ID:1-2,CPU:1,WALL:2", ("/a/b", "/c/d"), 1.0, 2.0),
        (b"/a/b,ID:1-2,CPU:N/A,WALL:N/A", ("/a/b",), None, None),
        (b"/a/b,ID:1-2", ("/a/b",), None, None),
        (b"/a,b:c/d,/e,ID:1-2,CPU:1,WALL:2\nmore", ("/a,b:c/d", "/e"), 1.0, 2.0),
        (b"/a,ID:9/b,ID:1-2,CPU:1,WALL:2", ("/a,ID:9/b",), 1.0, 2.0),
        (b"/a,ID:1-2,CPU:nan,WALL:-1", ("/a",), None, None),
        (b"relative,ID:1-2,CPU:1,WALL:inf", ("relative",), 1.0, None),
    ],
)
def test_lesson_11_outputs_are_split_as_the_rules_say(
    message: bytes, paths: tuple[str, ...], cpu_s: float | None, wall_s: float | None
) -> None:
    """Commas and colons may occur in paths, several paths may come, times may be unknown."""
    assert text.parse(message) == Finished("1-2", paths, cpu_s, wall_s)


def test_an_output_message_without_a_file_fails_its_range() -> None:
    """A report that names a range but no file is a failure of that range, not a lost message."""
    said = text.parse(b",ID:1-2,CPU:1,WALL:2")
    assert isinstance(said, Failed)
    assert said.id == "1-2"


@pytest.mark.parametrize(
    ("message", "range_id", "code", "fatal"),
    [
        (b"ERR_ATHENAMP_PROCESS 1-2: Seek failed", "1-2", 1220, False),
        (b"ERR_ATHENAMP_PROCESS : Seek failed", "", 1220, False),
        (b"ERR_TE_RANGE 1-2: x", "1-2", 1220, False),
        (b"ERR_TE_FATAL 1-2: x", "1-2", 1229, True),
        (b"ERR_TE_FATAL 1-2: bad URL given", "1-2", 1230, True),
        (b"ERR_TE_FATAL 1-2: Invalid GUID", "1-2", 1231, True),
        (b"ERR_TE_FATAL 1-2: wrong guid", "1-2", 1232, True),
        (b"ERR_TE_FATAL 1-2: no such host", "1-2", 1233, True),
        (b"ERR_ATHENAMP_FATAL 1-2: x", "1-2", 1228, True),
        (b"ERR_X", "", 1220, False),
        (b"ERR_X no id here", "", 1220, False),
    ],
)
def test_errors_carry_id_code_and_fate(
    message: bytes, range_id: str, code: int, fatal: bool
) -> None:
    """An error names its range; only acronyms with FATAL are fatal, with their own codes."""
    said = text.parse(message)
    assert isinstance(said, Failed)
    assert (said.id, said.code, said.fatal) == (range_id, code, fatal)


@pytest.mark.parametrize(
    ("range_text", "range_id"),
    [
        ('"eventRangeID": "1-2", "LFN": "x"', "1-2"),
        ("'eventRangeID': '1-2', 'LFN': 'x'", "1-2"),
        ("u'LFN': u'x', u'eventRangeID': u'1-2'", "1-2"),
        ('\\"eventRangeID\\": \\"1-2\\", \\"LFN\\": \\"x\\"', "1-2"),
        ('{"eventRangeID":"1-2"}', "1-2"),
        ('"eventRangeID": "", "LFN": "x"', ""),
        ("eventRangeID: 1-2, LFN: x", "1-2"),
        ("[]", ""),
    ],
)
def test_the_id_is_dug_out_of_a_repeated_range(range_text: str, range_id: str) -> None:
    """ERR_ATHENAMP_PARSE repeats the range in any quoting; its id is found, or is empty."""
    said = text.parse(f'ERR_ATHENAMP_PARSE "{range_text}": Wrong format'.encode())
    assert isinstance(said, Failed)
    assert said.id == range_id
    assert said.diag == "ERR_ATHENAMP_PARSE: Wrong format"
    assert not said.fatal


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n",
        b"hello",
        b"\xff\xfe",
        b"/a,ID:",
        b"/a\x00b,ID:1,CPU:1",
        b"/a,ID:" + b"1" * 300,
        b"x" * (2**20 + 1),
    ],
)
def test_what_is_no_message_is_refused_with_a_short_safe_text(message: bytes) -> None:
    """Unknown, undecodable, or oversized bytes raise a short printable error."""
    with pytest.raises(MessageError) as caught:
        text.parse(message)
    assert len(str(caught.value)) < 160
    assert str(caught.value).isprintable()


@given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda s: s.encode())))
def test_no_bytes_raise_anything_else(message: bytes) -> None:
    """Whatever arrives is a message or a MessageError."""
    for prefix in (b"", b"ERR_ATHENAMP_PARSE ", b"ERR_TE_FATAL ", b"/a,ID:", b"/a,ID:1,CPU:"):
        try:
            text.parse(prefix + message)
        except MessageError as error:
            assert str(error).isprintable()
        try:
            text.parse_reply(b'[{"eventRangeID": "' + message + b"}]")
        except MessageError as error:
            assert str(error).isprintable()


def test_a_reply_is_one_line_with_all_keys() -> None:
    """The reply is what the specification shows, and JSON at that."""
    reply = text.range_reply(RANGE)
    assert reply == (
        b'[{"eventRangeID": "7-11-13-1-1", "LFN": "EVNT.root.1", "GUID": "AB-12", '
        b'"scope": "mc16", "startEvent": 3, "lastEvent": 5, "PFN": "root://se//a/EVNT.root.1"}]'
    )
    assert json.loads(reply)[0]["lastEvent"] == 5
    assert text.NO_MORE == b"No more events" and len(text.NO_MORE) == 14


def test_a_payload_that_parses_by_hand_reads_the_reply_back() -> None:
    """What was written is what a real payload understands."""
    assert text.parse_reply(text.range_reply(RANGE)) == {
        "eventRangeID": "7-11-13-1-1",
        "LFN": "EVNT.root.1",
        "GUID": "AB-12",
        "scope": "mc16",
        "startEvent": "3",
        "lastEvent": "5",
        "PFN": "root://se//a/EVNT.root.1",
    }


@pytest.mark.parametrize("bad", [*",\"'\\{}[]\n\r\t\0", "\ud800"])
@pytest.mark.parametrize("key", ["id", "lfn", "guid", "scope", "pfn"])
def test_a_value_that_payloads_trip_over_is_refused(key: str, bad: str) -> None:
    """A range that cannot be written for a naive parser is refused, naming the value."""
    fields = {"id": "1-2", "lfn": "l", "guid": "g", "scope": "s", "pfn": "p"}
    fields[key] = f"a{bad}b"
    with pytest.raises(
        MessageError, match="eventRangeID" if key == "id" else key.upper() + "|scope"
    ):
        text.range_reply(EventRange(start_event=1, last_event=1, **fields))


@pytest.mark.parametrize(("range_id", "first", "last"), [("", 1, 1), ("1-2", 2, 1)])
def test_an_impossible_range_is_refused(range_id: str, first: int, last: int) -> None:
    """An empty id, or an end before the start, is never sent."""
    with pytest.raises(MessageError):
        text.range_reply(EventRange(range_id, first, last, "l", "g", "s"))


@pytest.mark.parametrize(
    "reply",
    [
        b"[]",
        b"",
        b"{}",
        b'{"eventRangeID": "1"}',
        b'[{"eventRangeID": "1"}]',
        b"[{}]",
        b'[{"eventRangeID": "", "startEvent": 1, "lastEvent": 1}]',
        b'[{"eventRangeID": "1", "startEvent": 2, "lastEvent": 1}]',
        b'[\n {"eventRangeID": "1", "startEvent": 1, "lastEvent": 1}\n]',
    ],
)
def test_payloads_do_not_understand_other_forms(reply: bytes) -> None:
    """The emulated hand parser refuses what real payloads refuse, and its complaint can be read."""
    with pytest.raises(MessageError):
        text.parse_reply(reply)
    assert isinstance(
        text.parse(text.parse_error(reply, "Wrong format").replace(b"\n", b"")), Failed
    )


def test_two_ranges_in_one_list_are_mixed_up() -> None:
    """The hand parser takes the id of the first and the events of the second range."""
    first = text.range_reply(RANGE)[1:-1]
    second = text.range_reply(EventRange("9-9-9-9-9", 8, 9, "l", "g", "s"))[1:-1]
    found = text.parse_reply(b"[" + first + b", " + second + b"]")
    assert (found["eventRangeID"], found["startEvent"]) == ("7-11-13-1-1", "8")


def test_the_payloads_writers_are_understood_by_the_pilot() -> None:
    """Outputs and errors written by the payload's side come back as they were meant."""
    said = text.parse(text.finished(["/a/b", "/c"], "1-2", 1.5, 2.5))
    assert said == Finished("1-2", ("/a/b", "/c"), 1.5, 2.5)
    assert text.parse(text.process_error("1-2", "no")) == Failed(
        "1-2", 1220, "ERR_ATHENAMP_PROCESS: no", False
    )
    said = text.parse(text.parse_error(text.range_reply(RANGE), "Wrong format"))
    assert isinstance(said, Failed) and said.id == RANGE.id
