"""The native dialect of the payload channel: one msgpack map per message.

The pilot's side is `is_native`, `parse` and the encoders from `welcome` to `error`; the payload's
side is `parse_pilot` and the encoders from `hello` to `failed`; both use `ping`, `pong`, `error`.
Unknown fields are ignored. Types are checked strictly; whatever is wrong raises `MessageError` with
a short text. A measured time that is no finite, non-negative number counts as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any, Final, TypeVar

import msgpack

from espilot.errors import MessageError
from espilot.model import EventRange
from espilot.wire.payload import (
    CODE_UNKNOWN,
    MAX_MESSAGE_BYTES,
    NOTHING,
    Ack,
    Cancel,
    Failed,
    Finished,
    Hello,
    NoMore,
    PeerError,
    Ping,
    Pong,
    Progress,
    Ranges,
    Ready,
    Started,
    UnknownMessage,
    Welcome,
    checked_id,
    printable,
    shortened,
)

VERSION: Final = 1
MAX_ITEMS = 16384
"""Most elements of one list or map, so that a small message cannot claim much memory."""
MAX_COUNT = 2**31
"""Bound of counters and pids that a peer may name."""
MAX_EVENT = 2**63 - 1
"""Largest event number, as the server may send it."""

Fields = Mapping[str, Any]
FromPayload = Hello | Ready | Started | Progress | Finished | Failed | Ping | Pong | PeerError
FromPilot = Welcome | Ranges | NoMore | Ack | Cancel | Ping | Pong | PeerError

M = TypeVar("M")

_pack: Callable[[Any], bytes] = msgpack.Packer().pack


def is_native(first_message: bytes) -> bool:
    """Tell whether a client's first message opens this dialect: it starts as a msgpack map does."""
    if not first_message:
        return False
    first = first_message[0]
    return 0x80 <= first <= 0x8F or first in (0xDE, 0xDF)


def parse(message: bytes) -> FromPayload:
    """Return what a payload said."""
    return _parse_with(_PAYLOAD_PARSERS, message)


def parse_pilot(message: bytes) -> FromPilot:
    """Return what the pilot said."""
    return _parse_with(_PILOT_PARSERS, message)


def kind_of(message: bytes) -> str:
    """Return the type of a message that may be unusable otherwise; empty when it has none."""
    kind = readable_fields(message).get("t")
    return printable(kind) if isinstance(kind, str) else ""


def readable_fields(message: bytes) -> Fields:
    """Return the fields of a message that may be unusable otherwise; none when nothing is read."""
    try:
        return _unpacked(message)
    except MessageError:
        return {}


def _parse_with(parsers: Mapping[str, Callable[[Fields], M]], message: bytes) -> M:
    fields = _unpacked(message)
    version = fields.get("v", VERSION)
    if type(version) is not int or version != VERSION:
        raise MessageError(f"protocol version {shortened(version)} is not {VERSION}")
    kind = fields.get("t")
    if not isinstance(kind, str):
        raise MessageError(f"message type is {shortened(kind)}, not a string")
    parser = parsers.get(kind)
    if parser is None:
        raise UnknownMessage(f"unknown message type {shortened(kind)}")
    return parser(fields)


def _unpacked(message: bytes) -> Fields:
    if len(message) > MAX_MESSAGE_BYTES:
        raise MessageError(f"message of {len(message)} bytes is over the limit")
    try:
        fields = msgpack.unpackb(message, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        reason = type(error).__name__
        raise MessageError(f"not msgpack ({reason}): {shortened(message)}") from None
    if not isinstance(fields, dict):
        raise MessageError(f"not a msgpack map: {shortened(message)}")
    return fields


# Fields of a message; each names itself when it is wrong.


def _text(fields: Fields, key: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    if type(value) is not str:
        raise MessageError(f"field {key} is {shortened(value)}, not a string")
    return value


def _whole(fields: Fields, key: str, default: int | None = None, least: int = 0) -> int:
    value = fields.get(key, default)
    if type(value) is not int or not least <= value <= MAX_COUNT:
        raise MessageError(f"field {key} is {shortened(value)}, not a whole number from {least}")
    return value


def _event(fields: Fields, key: str) -> int:
    value = fields.get(key)
    if type(value) is not int or not 0 <= value <= MAX_EVENT:
        raise MessageError(f"field {key} is {shortened(value)}, not an event number")
    return value


def _flag(fields: Fields, key: str) -> bool:
    value = fields.get(key, False)
    if type(value) is not bool:
        raise MessageError(f"field {key} is {shortened(value)}, not true or false")
    return value


def _seconds(fields: Fields, key: str) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if type(value) not in (int, float):
        raise MessageError(f"field {key} is {shortened(value)}, not a number")
    return float(value) if 0 <= value < inf else None


def _id(fields: Fields, key: str = "id") -> str:
    range_id = checked_id(_text(fields, key))
    if not range_id:
        raise MessageError(f"field {key} is empty")
    return range_id


def _map(fields: Fields, key: str) -> Fields:
    value = fields.get(key)
    if value is None:
        return NOTHING
    if type(value) is not dict or not all(type(k) is str for k in value):
        raise MessageError(f"field {key} is {shortened(value)}, not a map with names")
    return value


def _list(fields: Fields, key: str) -> list[Any]:
    value = fields.get(key)
    if type(value) is not list or not value:
        raise MessageError(f"field {key} is {shortened(value)}, not a list with entries")
    return value


# What a payload says.


def _parse_hello(fields: Fields) -> Hello:
    return Hello(
        pid=_whole(fields, "pid", default=0),
        slots=_whole(fields, "slots", default=1, least=1),
        name=printable(_text(fields, "name", "")),
        sdk=printable(_text(fields, "sdk", "")),
    )


def _parse_finished(fields: Fields) -> Finished:
    range_id = _id(fields)
    paths = _list(fields, "outputs")
    if not all(type(path) is str and path and "\0" not in path for path in paths):
        raise MessageError(f"range {range_id}: outputs are {shortened(paths)}, not paths")
    events = _whole(fields, "events") if fields.get("events") is not None else None
    return Finished(
        id=range_id,
        paths=tuple(paths),
        cpu_s=_seconds(fields, "cpu_s"),
        wall_s=_seconds(fields, "wall_s"),
        events=events,
        meta=_map(fields, "meta"),
    )


def _parse_failed(fields: Fields) -> Failed:
    return Failed(
        id=_id(fields),
        code=_whole(fields, "code", default=CODE_UNKNOWN),
        diag=printable(_text(fields, "diag", "")),
        fatal=_flag(fields, "fatal"),
    )


def _parse_error(fields: Fields) -> PeerError:
    return PeerError(printable(_text(fields, "diag", "")), printable(_text(fields, "about", "")))


_PAYLOAD_PARSERS: Final[Mapping[str, Callable[[Fields], FromPayload]]] = {
    "hello": _parse_hello,
    "ready": lambda fields: Ready(_whole(fields, "n", default=1, least=1)),
    "started": lambda fields: Started(_id(fields)),
    "progress": lambda fields: Progress(_id(fields), _event(fields, "event")),
    "done": _parse_finished,
    "failed": _parse_failed,
    "ping": lambda fields: Ping(_whole(fields, "seq", default=0)),
    "pong": lambda fields: Pong(_whole(fields, "seq", default=0)),
    "error": _parse_error,
}


# What the pilot says.


def _parse_welcome(fields: Fields) -> Welcome:
    inputs = _map(fields, "inputs")
    if not all(type(pfn) is str for pfn in inputs.values()):
        raise MessageError(f"field inputs is {shortened(inputs)}, not names to names")
    return Welcome(
        job=_map(fields, "job"),
        output_dir=_text(fields, "output_dir", ""),
        inputs=inputs,
        heartbeat_s=_seconds(fields, "heartbeat_s") or 0.0,
    )


def _parse_ranges(fields: Fields) -> Ranges:
    return Ranges(tuple(map(_parse_range, _list(fields, "ranges"))))


def _parse_range(fields: Any) -> EventRange:
    if type(fields) is not dict:
        raise MessageError(f"a range is {shortened(fields)}, not a map")
    event_range = EventRange(
        id=_id(fields, "eventRangeID"),
        start_event=_event(fields, "startEvent"),
        last_event=_event(fields, "lastEvent"),
        lfn=_text(fields, "LFN", ""),
        guid=_text(fields, "GUID", ""),
        scope=_text(fields, "scope", ""),
        pfn=_text(fields, "PFN", ""),
    )
    if event_range.events < 1:
        raise MessageError(f"range {event_range.id} ends before it starts")
    return event_range


_PILOT_PARSERS: Final[Mapping[str, Callable[[Fields], FromPilot]]] = {
    "welcome": _parse_welcome,
    "ranges": _parse_ranges,
    "no_more": lambda fields: NoMore(printable(_text(fields, "reason", "done"))),
    "ack": lambda fields: Ack(_id(fields)),
    "cancel": lambda fields: Cancel(_id(fields)),
    "ping": lambda fields: Ping(_whole(fields, "seq", default=0)),
    "pong": lambda fields: Pong(_whole(fields, "seq", default=0)),
    "error": _parse_error,
}


def welcome(
    job: Mapping[str, Any], output_dir: str, inputs: Mapping[str, str], heartbeat_s: float
) -> bytes:
    """Return the answer to `hello`; `job` holds PandaID, taskID, parameters, outputs."""
    return _pack(
        {
            "t": "welcome",
            "v": VERSION,
            "job": dict(job),
            "output_dir": output_dir,
            "inputs": dict(inputs),
            "heartbeat_s": heartbeat_s,
        }
    )


def ranges(event_ranges: Iterable[EventRange]) -> bytes:
    """Return the message that hands out ranges, with the same keys as the text dialect."""
    return _pack({"t": "ranges", "v": VERSION, "ranges": [_range_map(r) for r in event_ranges]})


def _range_map(r: EventRange) -> dict[str, str | int]:
    return {
        "eventRangeID": r.id,
        "LFN": r.lfn,
        "GUID": r.guid,
        "scope": r.scope,
        "startEvent": r.start_event,
        "lastEvent": r.last_event,
        "PFN": r.pfn,
    }


def no_more(reason: str) -> bytes:
    """Return the message that no range will ever come."""
    return _pack({"t": "no_more", "v": VERSION, "reason": reason})


def ack(range_id: str) -> bytes:
    """Return the message that an outcome is recorded."""
    return _pack({"t": "ack", "v": VERSION, "id": range_id})


def cancel(range_id: str) -> bytes:
    """Return the message that a range is needed no more."""
    return _pack({"t": "cancel", "v": VERSION, "id": range_id})


def ping(seq: int) -> bytes:
    """Return a question for life."""
    return _pack({"t": "ping", "v": VERSION, "seq": seq})


def pong(seq: int) -> bytes:
    """Return the answer to the ping with this `seq`."""
    return _pack({"t": "pong", "v": VERSION, "seq": seq})


def error(diag: str, about: str) -> bytes:
    """Return the message that the last one could not be used; `about` is its type or range."""
    return _pack({"t": "error", "v": VERSION, "diag": diag, "about": about})


def hello(pid: int, slots: int, name: str, sdk: str) -> bytes:
    """Return a client's first message."""
    return _pack({"t": "hello", "v": VERSION, "pid": pid, "slots": slots, "name": name, "sdk": sdk})


def ready(n: int) -> bytes:
    """Return the request for up to `n` ranges."""
    return _pack({"t": "ready", "v": VERSION, "n": n})


def started(range_id: str) -> bytes:
    """Return the message that work on a range began."""
    return _pack({"t": "started", "v": VERSION, "id": range_id})


def progress(range_id: str, event: int) -> bytes:
    """Return the proof of life of a long range."""
    return _pack({"t": "progress", "v": VERSION, "id": range_id, "event": event})


def done(
    range_id: str,
    outputs: Sequence[str],
    *,
    cpu_s: float | None = None,
    wall_s: float | None = None,
    events: int | None = None,
    meta: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the message that a range's outputs exist; unknown values are left out.

    So is a number of events that is too large to be told: the pilot knows the range.
    """
    if events is not None and events > MAX_COUNT:
        events = None
    fields = {"t": "done", "v": VERSION, "id": range_id, "outputs": list(outputs)}
    optional = {"cpu_s": cpu_s, "wall_s": wall_s, "events": events, "meta": meta}
    fields.update({key: value for key, value in optional.items() if value is not None})
    return _pack(fields)


def failed(range_id: str, code: int, diag: str, fatal: bool = False) -> bytes:
    """Return the message that a range failed; fatal means it can never work."""
    return _pack(
        {"t": "failed", "v": VERSION, "id": range_id, "code": code, "diag": diag, "fatal": fatal}
    )
