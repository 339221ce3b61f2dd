"""The payload's clients as the dispatcher knows them, and what they said in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Client:
    """One connection of the payload. `key` is its name as an owner of ranges."""

    identity: bytes
    key: str
    pid: int | None
    native: bool


@dataclass(slots=True)
class Tally:
    """What came over the channel, for status and logs."""

    messages: int = 0
    outcomes: int = 0
    failures: int = 0
    ignored: int = 0
    garbage: int = 0
    handed_out: int = 0
