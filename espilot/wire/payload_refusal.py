"""What a native message was about that could not be used, as far as it can be read."""

from __future__ import annotations

from espilot.wire import payload_native as native
from espilot.wire.payload import MAX_ID_CHARS, printable

OUTCOMES = ("done", "failed")
UNKNOWN = "message"
MAX_TYPE_CHARS = 80


def about_of(message: bytes) -> tuple[str, bool]:
    """The message's type, or the range whose outcome it reports; and whether it is a range.

    A payload may wait for the answer to its `hello` or `ready`: it must hear that there is none.
    """
    fields = native.readable_fields(message)
    kind, range_id = fields.get("t"), fields.get("id")
    if type(kind) is not str or not kind:
        return UNKNOWN, False
    if kind in OUTCOMES and type(range_id) is str and _is_id(range_id):
        return range_id, True
    return printable(kind, MAX_TYPE_CHARS), False


def _is_id(text: str) -> bool:
    return 0 < len(text) <= MAX_ID_CHARS and text.isprintable()
