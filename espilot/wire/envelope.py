"""Control messages between supervisor and workers: msgpack maps with version, type and number.

`{"v": 1, "t": type, "n": sequence number, field: value, ...}`; each type is a frozen dataclass in
`messages.py`. Unknown fields are ignored, so that an older process understands a newer one.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar, cast

import msgpack

from espilot.errors import MessageError
from espilot.wire.messages import TYPES

VERSION = 1
MAX_BYTES = 1 << 20

T = TypeVar("T")


def encode(message: Any, number: int = 0) -> bytes:
    """A message as bytes."""
    body: dict[str, Any] = {"v": VERSION, "t": message.TYPE, "n": number}
    body.update((f.name, getattr(message, f.name)) for f in fields(message))
    return cast(bytes, msgpack.packb(body, use_bin_type=True))


def decode(data: bytes) -> Any:
    """The message in the bytes; `MessageError` when there is none."""
    if len(data) > MAX_BYTES:
        raise MessageError(f"control message of {len(data)} bytes is over {MAX_BYTES}")
    try:
        body = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MessageError(f"not a control message: {error}") from None
    if not isinstance(body, dict) or body.get("v") != VERSION:
        raise MessageError("not a control message: no version 1")
    name = body.get("t")
    kind = TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise MessageError(f"unknown control message {str(name)[:40]!r}")
    return _build(kind, body)


def _build(kind: type[T], body: dict[Any, Any]) -> T:
    values: dict[str, Any] = {}
    for field in fields(cast(Any, kind)):
        if field.name in body:
            values[field.name] = _checked(kind.__name__, field, body[field.name])
        elif field.default is MISSING and field.default_factory is MISSING:
            raise MessageError(f"{kind.__name__} without {field.name}")
    return kind(**values)


_KINDS: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "str": str,
    "bool": bool,
    "float": (int, float),
    "dict": dict,
}


def _checked(kind: str, field: Any, value: Any) -> Any:
    expected = _KINDS[str(field.type).split("[")[0]]
    if not isinstance(value, expected) or (isinstance(value, bool) and field.type != "bool"):
        raise MessageError(f"{kind}.{field.name} is not {field.type}: {str(value)[:40]!r}")
    return value
