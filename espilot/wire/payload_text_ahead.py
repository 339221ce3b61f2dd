"""Replies of the text dialect that are written before they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from espilot.errors import MessageError
from espilot.model import EventRange
from espilot.wire import payload_text as text


def write_ahead(written: dict[str, bytes], ranges: Sequence[EventRange]) -> None:
    """Add the replies of these ranges by id; they grew at their end since the last time.

    One that cannot be written is dealt with when a client gets it.
    """
    for each in reversed(ranges):
        if each.id in written:
            return
        with suppress(MessageError):
            written[each.id] = text.range_reply(each)
