"""The record of a channel as lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espilot.errors import MessageError
from espilot.wire.record import SCHEMA, Message, Opening, decode_lines, encode, encode_end

OPENING = Opening(2, "channel", "/work/payload-2", 1795323463.5)


@given(
    body=st.binary(max_size=200),
    identity=st.binary(min_size=1, max_size=20),
    pid=st.none() | st.integers(1, 2**22),
    by_payload=st.booleans(),
)
def test_every_message_comes_back(
    body: bytes, identity: bytes, pid: int | None, by_payload: bool
) -> None:
    """Whatever bytes went over the channel are read back exactly."""
    message = Message(1.25, by_payload, identity, pid, body, (10, None, 0))
    lines = [encode(OPENING), encode(message), encode_end("limit")]
    assert list(decode_lines(lines)) == [OPENING, message, None]


def test_half_a_line_at_the_end_is_passed_over() -> None:
    """A recorder that was killed leaves a usable record."""
    line = encode(Message(0.0, True, b"a", 1, b"hello"))
    assert list(decode_lines([encode(OPENING), line, line[:-5]])) == [
        OPENING, Message(0.0, True, b"a", 1, b"hello"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([b"some text\n"], "line 1"),
        ([encode(Message(0.0, True, b"a", 1, b"x"))], "not the head"),
        ([b'{"schema": "espilot.record/9"}\n'], "espilot.record/9"),
        ([encode(OPENING), b"[1]\n"], "line 2"),
        ([encode(OPENING), b'{"t": 1, "from": "me", "client": "", "pid": 1}\n'], "line 2"),
        ([encode(OPENING), b'{"t":1,"from":"pilot","client":"a","pid":1,"text":""}\n'], "line 2"),
        ([encode(OPENING), b'{"t":1,"from":"pilot","client":"","pid":1,"base64":"!"}\n'], "base64"),
    ],
)
def test_what_is_no_record_is_refused(lines: list[bytes], words: str) -> None:
    """The error names the line."""
    with pytest.raises(MessageError, match=words):
        list(decode_lines(lines))
    assert SCHEMA == "espilot.record/1"
