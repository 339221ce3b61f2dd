"""The payload's clients as the dispatcher knows them, and what they say between two commits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from espilot.model import FailedRange, Output

Message = tuple[bytes, bytes, int | None] | tuple[bytes, bytes, int | None, int]
"""Identity, body, the sender's process at its first message; more is not looked at."""
Reply = tuple[bytes, bytes]


@dataclass(slots=True)
class Client:
    """One connection of the payload. `key` is its name as an owner of ranges.

    `refused`: it has heard that there are no more, so its end is no surprise.
    """

    identity: bytes
    key: str
    pid: int | None
    native: bool
    refused: bool = False


NOBODY = Client(b"", "", None, False)
"""Who is meant where an outcome was not told by a client."""


@dataclass(slots=True)
class Tally:
    """What came over the channel, for status and logs."""

    messages: int = 0
    outcomes: int = 0
    failures: int = 0
    ignored: int = 0
    garbage: int = 0
    handed_out: int = 0


class Done(NamedTuple):
    """An outcome with its outputs looked at."""

    id: str
    outputs: tuple[Output, ...]
    facts: tuple[int | None, float | None, float | None]


@dataclass(slots=True)
class Round:
    """What the messages since the last commit say and ask for, and the replies to them."""

    reports: list[tuple[Client, bytes]] = field(default_factory=list)
    outcomes: list[tuple[Client, Done | FailedRange]] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    garbage: list[str] = field(default_factory=list)
    unwritable: list[tuple[str, FailedRange]] = field(default_factory=list)
    asked: bool = False
