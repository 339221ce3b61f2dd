"""What a payload said, held against what it was given. No I/O: files are looked at by a callable.

Rules:

* Only what can be seen from the pilot's side is a finding; what a payload may do is none.
* A range ends with its first outcome, whoever reports it.
* In a tolerant case a failure is a note; in any case a failure needs a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from espilot.check.findings import Findings
from espilot.errors import MessageError
from espilot.model import EventRange, Output
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text
from espilot.wire.payload import (
    MAX_MESSAGE_BYTES,
    Failed,
    Finished,
    Hello,
    Pong,
    Ready,
    UnknownMessage,
    shortened,
)

MAX_HELD = 64
"""Ranges that one client holds at once, by default; its requests beyond only wait."""

Look = Callable[[str], tuple[Output | None, str, str]]
"""Path to the output, or to the code and the text of a finding."""


@dataclass(slots=True)
class Peer:
    """One client of the payload: `asked` requests are not answered yet."""

    identity: bytes
    pid: int | None
    native: bool
    slots: int | None = None
    asked: int = 0
    held: set[str] = field(default_factory=set)
    refused: bool = False
    gone: bool = False
    asked_after: int = 0
    pongs: set[int] = field(default_factory=set)

    @property
    def limit(self) -> int:
        """How many ranges it may hold and ask for together."""
        return self.slots if self.slots is not None else MAX_HELD


class Ledger:
    """The account of one case."""

    def __init__(self, findings: Findings, look: Look, *, tolerant: bool) -> None:
        self.findings = findings
        self.peers: dict[bytes, Peer] = {}
        self.holders: dict[str, Peer] = {}
        self.outputs: dict[str, Output] = {}
        self.messages = self.requests = self.handed_out = self.finished = self.failed = 0
        self._replaced: list[Peer] = []
        self._ended: set[str] = set()
        self._writers: dict[str, str] = {}
        self._look = look
        self._tolerant = tolerant

    @property
    def everyone(self) -> list[Peer]:
        """All clients, also those whose name another process has taken over."""
        return [*self.peers.values(), *self._replaced]

    @property
    def outcomes(self) -> int:
        """Ranges that have ended."""
        return self.finished + self.failed

    @property
    def refused(self) -> bool:
        """Whether some client heard that there are no more."""
        return any(peer.refused for peer in self.everyone)

    @property
    def dialects(self) -> set[str]:
        """The dialects that were spoken."""
        return {"native" if peer.native else "text" for peer in self.everyone}

    def hear(self, identity: bytes, message: bytes, pid: int | None) -> tuple[Peer, object]:
        """Take one message in; returns who said it, and what (None when it cannot be read)."""
        self.messages += 1
        peer = self.peers.get(identity)
        if peer is None or (pid is not None and pid != peer.pid):
            if peer is not None:
                self._replaced.append(peer)
            peer = self.peers[identity] = Peer(identity, pid, native.is_native(message))
        if len(message) > MAX_MESSAGE_BYTES:
            self.findings.add("oversize", f"a message of {len(message)} bytes")
            return peer, None
        try:
            said = native.parse(message) if peer.native else text.parse(message)
        except MessageError as error:
            self.findings.add(_code_of(error, peer, message), str(error))
            return peer, None
        self._note(peer, said)
        return peer, said

    def give(self, peer: Peer, event_range: EventRange) -> None:
        """A range was handed out."""
        peer.asked -= 1
        peer.held.add(event_range.id)
        self.holders[event_range.id] = peer
        self.handed_out += 1

    def refuse(self, peer: Peer) -> None:
        """A client was told that there are no more."""
        peer.asked, peer.refused = 0, True

    def left(self, pid: int) -> None:
        """A client's process has ended, and all that it said was heard."""
        for peer in self.everyone:
            if peer.pid == pid:
                self._lose(peer, f"client (process {pid}) ended")
                peer.asked, peer.gone = 0, True

    def close(self) -> None:
        """The payload has ended."""
        for peer in self.everyone:
            self._lose(peer, "the payload ended")

    def _lose(self, peer: Peer, why: str) -> None:
        for range_id in sorted(peer.held):
            self.findings.add("range-unreported", f"{why} with range {range_id} in hand")
            self.holders.pop(range_id)
        peer.held.clear()

    def _note(self, peer: Peer, said: object) -> None:
        if isinstance(said, Ready):
            self._note_request(peer, said.n)
        elif isinstance(said, Finished):
            self._note_finished(said)
        elif isinstance(said, Failed):
            self._note_failed(said)
        elif isinstance(said, Hello):
            peer.slots = said.slots
        elif isinstance(said, Pong):
            peer.pongs.add(said.seq)

    def _note_request(self, peer: Peer, n: int) -> None:
        self.requests += n
        peer.asked += n
        if peer.native and peer.slots is None:
            self.findings.add("no-hello", "the first message was a request")
        if peer.refused:
            peer.asked_after += n
            if peer.asked_after > MAX_HELD:
                # Who still holds ranges has not come to read that there are no more.
                code = "request-flood" if peer.held else "asks-after-no-more"
                self.findings.add(code, f"{peer.asked_after} requests after the last range")
        elif peer.asked + len(peer.held) > peer.limit:
            self.findings.add(
                "request-flood",
                f"{peer.asked} open requests with {len(peer.held)} ranges in hand, "
                f"{peer.limit} in all make sense",
            )

    def _end(self, range_id: str) -> bool:
        """The range gets its outcome; False when it must not have one (any more)."""
        holder = self.holders.pop(range_id, None)
        if holder is not None:
            holder.held.discard(range_id)
            self._ended.add(range_id)
            return True
        code = "report-twice" if range_id in self._ended else "report-unknown"
        self.findings.add(code, f"range {shortened(range_id)}")
        return False

    def _note_finished(self, said: Finished) -> None:
        if not self._end(said.id):
            return
        self.finished += 1
        for path in said.paths:
            output, code, why = self._look(path)
            if output is None:
                self.findings.add(code, why)
                continue
            writer = self._writers.setdefault(output.path, said.id)
            if writer != said.id:
                self.findings.add(
                    "output-overwritten", f"{path} for the ranges {writer} and {said.id}"
                )
            self.outputs[output.path] = output

    def _note_failed(self, said: Failed) -> None:
        if not self._end(said.id):
            return
        self.failed += 1
        reason = said.diag.partition(":")[2].strip() if _is_text_error(said.diag) else said.diag
        if not reason:
            self.findings.add("failure-without-reason", f"range {said.id}")
        told = f"range {said.id}: {said.diag or 'no reason'}"
        if _is_misunderstanding(said.diag):
            self.findings.add("range-not-understood", told)
        elif self._tolerant:
            self.findings.note(f"an unusual range was reported as failed, which is fine: {told}")
        else:
            self.findings.add("range-failed", told)


def _code_of(error: MessageError, peer: Peer, message: bytes) -> str:
    """Whether the bytes are a message of an unknown kind, or none at all."""
    if peer.native:
        return "unknown-message" if isinstance(error, UnknownMessage) else "garbage"
    line = message.partition(b"\n")[0]
    try:
        words = line.decode()
    except UnicodeDecodeError:
        return "garbage"
    return "unknown-message" if words.rstrip("\0").strip().isprintable() and words else "garbage"


def _is_text_error(diag: str) -> bool:
    return diag.startswith("ERR_")


def _is_misunderstanding(diag: str) -> bool:
    """Whether the payload says that it cannot parse the range."""
    return diag.startswith(("ERR_ATHENAMP_PARSE", "not understood"))
