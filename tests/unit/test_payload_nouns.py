"""What both dialects share: foreign data in words that can be logged."""

from __future__ import annotations

import pytest

from espilot.errors import MessageError
from espilot.wire import payload_native as native
from espilot.wire.payload import shortened

DEEP = b"\x91" * 1010 + b"\x90"
"""A list in a list in a list: deeper than Python writes it, not deeper than msgpack reads it."""


@pytest.mark.parametrize(
    "message",
    [
        b"\x81\xa1t" + DEEP,
        b"\x81\xa1v" + DEEP,
        b"\x82\xa1t\xa5ready\xa1n" + DEEP,
        b"\x83\xa1t\xa4done\xa2id\xa1x\xa7outputs" + DEEP,
        b"\x81\xa1t" + b"\x91" * 100_000 + b"\x90",
    ],
)
def test_deep_nesting_is_only_a_bad_message(message: bytes) -> None:
    """However deep a field is nested, the message is refused with a short text."""
    with pytest.raises(MessageError) as refused:
        native.parse(message)
    assert len(str(refused.value)) < 200 and str(refused.value).isprintable()


def test_what_cannot_be_written_is_named_by_its_type() -> None:
    """Foreign data is cut; what is nested too deeply for that is told by its type."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert shortened(value) == "a deeply nested list"
    assert shortened("x" * 500) == "'" + "x" * 76 + "..."
