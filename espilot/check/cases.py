"""The cases: how the pilot behaves that the kit plays, and which ranges it has. No I/O."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from espilot.errors import MessageError
from espilot.model import EventRange
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text


class Ending(Enum):
    """How a case comes to its end."""

    EXHAUSTED = "exhausted"
    """When the ranges are used up, each further request hears that there are no more."""
    IN_HAND = "in hand"
    """*No more* is said as soon as a client asks while a range is in hand."""
    TERM = "term"
    """The payload gets SIGTERM while it has ranges or waits for one."""
    CLOSE = "close"
    """The channel is closed, and SIGTERM follows."""


@dataclass(frozen=True, slots=True)
class Case:
    """One way to treat a payload.

    At least `least` ranges are handed out, then more for `time_s` from the first request, at most
    `most`. `tolerant`: a range may be reported as failed.
    """

    name: str
    about: str
    least: int = 5
    most: int = 30
    time_s: float = 4.0
    first_reply_s: float = 0.0
    reply_s: float = 0.0
    odd: bool = False
    tolerant: bool = False
    ping: bool = False
    ending: Ending = Ending.EXHAUSTED

    def wants_more(self, handed_out: int, elapsed_s: float) -> bool:
        """Whether another range shall be handed out."""
        return handed_out < self.least or (handed_out < self.most and elapsed_s < self.time_s)


PLAIN = Case("plain", "ranges one by one, then no more")
CASES: Sequence[Case] = (
    PLAIN,
    Case("fast", "as many ranges as are asked for, at once", most=1000, time_s=2.5),
    Case(
        "slow", "the first reply takes 1.5 s, the others 0.2 s, a ping in between",
        least=3, most=6, time_s=2.0, first_reply_s=1.5, reply_s=0.2, ping=True,
    ),
    Case("impatient", "no more is the answer to the first request", least=0, most=0),
    Case(
        "odd-ranges", "large numbers, long names, unusual characters, several files",
        least=8, most=8, odd=True, tolerant=True,
    ),
    Case(
        "early-stop", "no more is said while ranges are in hand",
        least=4, most=8, ending=Ending.IN_HAND,
    ),
    Case(
        "channel-closed", "the pilot's end is closed, then SIGTERM",
        least=2, most=2, tolerant=True, ending=Ending.CLOSE,
    ),
    Case("sigterm", "SIGTERM in the middle", least=2, most=2, tolerant=True, ending=Ending.TERM),
)  # fmt: skip
"""All cases, the gate first."""


@dataclass(frozen=True, slots=True)
class Input:
    """An input file: its path (a name only, when it is imagined) and how many events it has."""

    path: str
    events: int

    @property
    def lfn(self) -> str:
        """Its logical name."""
        return self.path.rpartition("/")[2]

    @property
    def pfn(self) -> str:
        """Where it is; "" when it is imagined."""
        return self.path if "/" in self.path else ""


IMAGINED = Input("check.input.root", 10_000)
_GUID = "0B1C2D3E-4F50-6172-8394-A5B6C7D8E9F0"
_MANY_EVENTS = 20
_LARGE = 2_000_000_000
_LONG = 10**18


def plain_ranges(inputs: Sequence[Input]) -> Iterator[EventRange]:
    """One event after the other, of one file after the other, for ever."""
    events = ((each, n) for each in inputs for n in range(1, each.events + 1))
    for number, (each, event) in enumerate(itertools.cycle(events), 1):
        yield make_range(f"90-100-110-{number}-1", each, event)


def odd_ranges(inputs: Sequence[Input]) -> Iterator[EventRange]:
    """Legal, and unlike what a payload's author has tried."""
    first, last = inputs[0], inputs[-1]
    many = min(_MANY_EVENTS, first.events)
    other = EventRange("90-100-120-8-1", 1, 1, last.lfn, _GUID[::-1], "check", last.pfn)
    long_id = f"{_LONG}-{_LONG + 1}-{_LONG + 2}-{_LONG + 3}-{_LONG + 4}"
    strange = "a b+c#d~e=f@g%h&i;j(k)!.root"
    yield make_range("90-100-110-1-1", first, 1, many)
    yield make_range(long_id, first, 1)
    yield EventRange("90-100-110-3-1", _LARGE, _LARGE, first.lfn, _GUID, "check", first.pfn)
    yield EventRange("90-100-110-4-12", 1, 1, strange, _GUID, "user.né", first.pfn)
    yield EventRange("90-100-110-5-1", 1, 1, "n" * 200 + ".root", _GUID, "", first.pfn)
    url = "root://se.example.org:1094//data/check.root?svcClass=a&x=1"
    yield EventRange("90-100-110-6-1", 1, 1, first.lfn, "", "group.phys:x", first.pfn or url)
    yield make_range("90-100-110-7-1", first, first.events)
    yield other


def make_range(range_id: str, source: Input, first: int, last: int | None = None) -> EventRange:
    """A range of one file, as a server would name it."""
    last = first if last is None else last
    return EventRange(range_id, first, last, source.lfn, _GUID, "check", source.pfn)


def untellable(source: Input) -> str:
    """Why no payload can be told of this file, in either dialect; empty when it can be."""
    each = make_range("1-1-1-1-1", source, source.events)
    try:
        text.range_reply(each)
        native.parse_pilot(native.ranges([each]))
    except (MessageError, ValueError, OverflowError) as error:
        return str(error)
    return ""
