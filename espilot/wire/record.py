"""The record of a channel: JSON lines, `espilot.record/1`.

The first line of each epoch tells of it: `schema`, `epoch`, `channel`, `output_dir`, `started`
(Unix time). Each further line is one message: `t` (seconds since then), `from` (`payload` or
`pilot`), `client` (its identity, hexadecimal), `pid` (null when unknown), and the bytes as `text`
(UTF-8) or `base64`. A report of outputs has their `sizes` besides, in bytes, null for a file that
is not there. A last line `end` says why no more was recorded.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from espilot.errors import MessageError

SCHEMA = "espilot.record/1"


@dataclass(frozen=True, slots=True)
class Opening:
    """The start of an epoch of the payload; `started_at` is Unix time."""

    epoch: int
    channel: str
    output_dir: str
    started_at: float


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `at_s` counts from the opening, `by_payload` tells who said it."""

    at_s: float
    by_payload: bool
    identity: bytes
    pid: int | None
    body: bytes
    sizes: tuple[int | None, ...] = ()


Line = Opening | Message | None
"""None is the line that says why the record ends."""


def encode(line: Opening | Message) -> bytes:
    """One line with its newline."""
    fields: dict[str, Any]
    if isinstance(line, Opening):
        fields = {
            "schema": SCHEMA,
            "epoch": line.epoch,
            "channel": line.channel,
            "output_dir": line.output_dir,
            "started": line.started_at,
        }
    else:
        fields = {
            "t": round(line.at_s, 6),
            "from": "payload" if line.by_payload else "pilot",
            "client": line.identity.hex(),
            "pid": line.pid,
            **_encode_body(line.body),
        }
        if line.sizes:
            fields["sizes"] = list(line.sizes)
    return json.dumps(fields).encode() + b"\n"


def encode_end(why: str) -> bytes:
    """The last line of a record that is not complete."""
    return json.dumps({"end": why}).encode() + b"\n"


def decode_lines(lines: Iterable[bytes]) -> Iterator[Line]:
    """The lines of a record; `MessageError` names the first that cannot be read.

    Half a line at the end, as a killed process leaves it, is passed over.
    """
    first = True
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            return
        try:
            found = _decode(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MessageError(f"line {number} is not of a record: {error}"[:200]) from None
        if first and not isinstance(found, Opening):
            raise MessageError(f"line 1 is not the head of a record ({SCHEMA})")
        first = False
        yield found


def _decode(fields: Any) -> Line:
    if not isinstance(fields, dict):
        raise TypeError("no object")
    if "end" in fields:
        return None
    if "schema" in fields:
        if fields["schema"] != SCHEMA:
            raise ValueError(f"schema {fields['schema']!r:.40} is not {SCHEMA}")
        opening = (int(fields["epoch"]), str(fields["channel"]), str(fields["output_dir"]))
        return Opening(*opening, float(fields["started"]))
    pid = fields["pid"]
    return Message(
        at_s=float(fields["t"]),
        by_payload={"payload": True, "pilot": False}[fields["from"]],
        identity=bytes.fromhex(fields["client"]),
        pid=None if pid is None else int(pid),
        body=_decode_body(fields),
        sizes=tuple(None if size is None else int(size) for size in fields.get("sizes", ())),
    )


def _encode_body(body: bytes) -> dict[str, str]:
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _decode_body(fields: dict[str, Any]) -> bytes:
    if "text" in fields:
        return str(fields["text"]).encode()
    try:
        return base64.b64decode(fields["base64"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"base64: {error}") from None
