"""The two dialects as the fake payload speaks them, behind one face."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import zmq

from espilot.errors import MessageError
from espilot.payload.client import SDK
from espilot.payload.fake.counts import Counts
from espilot.payload.fake.faults import GARBAGE_NATIVE, GARBAGE_TEXT
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text
from espilot.wire.payload import CODE_EXECUTION, NoMore, Ping, Ranges


@dataclass(frozen=True, slots=True)
class Work:
    """A range as received; the id is empty if it could not be understood."""

    id: str
    raw: bytes


class Speech(Protocol):
    """One dialect on one socket."""

    garbage: Sequence[bytes]

    def greet(self, slots: int) -> None:
        """Say hello, where that is usual."""
        ...

    def ask(self, n: int) -> None:
        """Ask for `n` ranges."""
        ...

    def receive(self) -> list[Work] | None:
        """Wait for the next message with ranges; None means no more."""
        ...

    def finished(self, work: Work, paths: Sequence[str], wall_s: float) -> None:
        """Report outputs."""
        ...

    def failed(self, work: Work, diag: str) -> None:
        """Report a failure."""
        ...

    def misunderstood(self, work: Work, diag: str) -> None:
        """Report that the range could not be understood."""
        ...


class TextSpeech:
    """As AthenaMP and AthenaMT speak."""

    garbage: Sequence[bytes] = GARBAGE_TEXT

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def greet(self, slots: int) -> None:
        """The text dialect knows no greeting."""

    def ask(self, n: int) -> None:
        """Ask for ranges one by one."""
        for _ in range(n):
            self._socket.send(text.READY)

    def receive(self) -> list[Work] | None:
        """Take one reply apart by hand, as payloads do."""
        reply = self._socket.recv()
        if reply == text.NO_MORE:
            return None
        try:
            return [Work(text.parse_reply(reply)["eventRangeID"], reply)]
        except MessageError:
            return [Work("", reply)]

    def finished(self, work: Work, paths: Sequence[str], wall_s: float) -> None:
        """Report outputs."""
        self._socket.send(text.finished(paths, work.id, wall_s, wall_s))

    def failed(self, work: Work, diag: str) -> None:
        """Report a failure."""
        self._socket.send(text.process_error(work.id, diag))

    def misunderstood(self, work: Work, diag: str) -> None:
        """Send the range back as an error."""
        self._socket.send(text.parse_error(work.raw, diag))


class NativeSpeech:
    """As the SDK speaks; what the pilot says besides ranges is counted."""

    garbage: Sequence[bytes] = GARBAGE_NATIVE

    def __init__(self, socket: zmq.Socket[bytes], counts: Counts) -> None:
        self._socket = socket
        self._counts = counts

    def greet(self, slots: int) -> None:
        """Say hello."""
        self._socket.send(native.hello(os.getpid(), slots, "fake-payload", SDK))

    def ask(self, n: int) -> None:
        """Ask for ranges in one message."""
        self._socket.send(native.ready(n))

    def receive(self) -> list[Work] | None:
        """Wait for ranges, answering pings meanwhile."""
        while True:
            raw = self._socket.recv()
            try:
                said = native.parse_pilot(raw)
            except MessageError:
                self._counts.heard["unusable"] += 1
                continue
            match said:
                case Ranges(ranges):
                    return [Work(r.id, raw) for r in ranges]
                case NoMore():
                    return None
                case Ping(seq):
                    self._socket.send(native.pong(seq))
            self._counts.heard[type(said).__name__.lower()] += 1

    def finished(self, work: Work, paths: Sequence[str], wall_s: float) -> None:
        """Report outputs."""
        self._socket.send(native.done(work.id, paths, cpu_s=wall_s, wall_s=wall_s))

    def failed(self, work: Work, diag: str) -> None:
        """Report a failure."""
        self._socket.send(native.failed(work.id, CODE_EXECUTION, diag))

    def misunderstood(self, work: Work, diag: str) -> None:
        """Report a failure that blames the message."""
        self._socket.send(native.failed(work.id, CODE_EXECUTION, f"not understood: {diag}"))
