"""What a payload can say and hear, whichever dialect it speaks.

`payload_text` and `payload_native` parse into these nouns. An id is at most `MAX_ID_CHARS` long and
printable; a diagnosis is printable and at most `MAX_DIAG_CHARS` long, so both are safe to log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from espilot.errors import MessageError
from espilot.model import EventRange

MAX_MESSAGE_BYTES = 2**20
"""Largest message either side accepts."""
MAX_ID_CHARS = 256
MAX_DIAG_CHARS = 500

CODE_UNKNOWN = 1220
"""Pilot error code of a payload failure without a code of its own."""
CODE_EXECUTION = 1305
"""Pilot error code of a payload that could not process a range."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


class UnknownMessage(MessageError):
    """A well-formed message of a type this version does not know; the text names the type."""


@dataclass(frozen=True, slots=True)
class Hello:
    """First words of a native client; `slots` is how many ranges it can hold at once."""

    pid: int
    slots: int
    name: str
    sdk: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The client asks for up to `n` ranges."""

    n: int


@dataclass(frozen=True, slots=True)
class Started:
    """The client began to work on a range."""

    id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Proof of life: the client reached `event` of a range."""

    id: str
    event: int


class Finished(NamedTuple):
    """A range's outputs exist; `paths` as the payload wrote them, unchecked, one per stream."""

    id: str
    paths: tuple[str, ...]
    cpu_s: float | None
    wall_s: float | None
    events: int | None = None
    meta: Mapping[str, Any] = NOTHING


@dataclass(frozen=True, slots=True)
class Failed:
    """A range failed; the id is empty when the payload could not tell which."""

    id: str
    code: int
    diag: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? Answered with the same `seq`."""

    seq: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Here I am."""

    seq: int


@dataclass(frozen=True, slots=True)
class PeerError:
    """The other side could not use our last message; `about` is its type or the range concerned."""

    diag: str
    about: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """The pilot's answer to `Hello`; `inputs` maps logical to physical file names."""

    job: Mapping[str, Any]
    output_dir: str
    inputs: Mapping[str, str]
    heartbeat_s: float


@dataclass(frozen=True, slots=True)
class Ranges:
    """One or more ranges for the client."""

    ranges: tuple[EventRange, ...]


@dataclass(frozen=True, slots=True)
class NoMore:
    """No range will ever come; `reason` is `done`, `drain`, `storage` or `stop`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ack:
    """The outcome of a range is recorded and survives the death of any process."""

    id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop this range; nobody needs it any more."""

    id: str


def shortened(value: object, limit: int = 80) -> str:
    """Return the repr of foreign data cut to `limit` characters, safe to log."""
    if isinstance(value, bytes | str):
        value = value[:limit]
    try:
        text = repr(value)
    except RecursionError:
        # A kilobyte of msgpack nests deeper than Python writes it.
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def printable(text: str, limit: int = MAX_DIAG_CHARS) -> str:
    """Return foreign text as one printable line of at most `limit` characters."""
    line = " ".join(text[: 4 * limit].split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def checked_id(text: str) -> str:
    """Return a range id that can be a key and a part of a file name, else raise `MessageError`."""
    if len(text) <= MAX_ID_CHARS and text.isprintable():
        return text
    raise MessageError(f"not a range id: {shortened(text)}")
