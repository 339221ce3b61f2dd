"""What the pilot of a case replies, and when. No I/O: messages go out by a callable."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from espilot.check.cases import Case, Ending
from espilot.check.findings import Findings
from espilot.check.ledger import MAX_HELD, Ledger, Peer
from espilot.model import EventRange
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text

Send = Callable[[bytes, bytes], None]
"""Identity and message."""


class Replies:
    """Serves the requests of one case. `over`: nobody is served any more."""

    def __init__(
        self,
        case: Case,
        ledger: Ledger,
        findings: Findings,
        *,
        ranges: Iterator[EventRange],
        send: Send,
    ) -> None:
        self.over = False
        self._case = case
        self._ledger = ledger
        self._findings = findings
        self._ranges = ranges
        self._send = send

    @property
    def interrupts(self) -> bool:
        """Whether the time has come for a case that is ended from outside."""
        outside = self._case.ending in (Ending.TERM, Ending.CLOSE)
        return outside and self._ledger.handed_out >= self._case.least

    def answer(self, peer: Peer, elapsed_s: float) -> None:
        """Serve a client's open requests, as far as the case wants it; `elapsed_s` since the first
        request."""
        given: list[EventRange] = []
        while peer.asked and len(peer.held) < MAX_HELD and not self._shall_end(elapsed_s):
            each = next(self._ranges, None)
            if each is None:
                break
            self._ledger.give(peer, each)
            given.append(each)
            if self._case.ending is Ending.IN_HAND:
                break
        self._hand_over(peer, given)
        if peer.asked and not self.interrupts and self._shall_end(elapsed_s):
            self._refuse(peer)

    def _shall_end(self, elapsed_s: float) -> bool:
        # The pilot would have cut the connection of who sends too much: nothing more to be learnt.
        if self.over or self._ledger.refused or self._findings.has("oversize"):
            return True
        handed_out = self._ledger.handed_out
        if self._case.ending is Ending.IN_HAND and self._ledger.holders:
            return handed_out > 1
        return not self._case.wants_more(handed_out, elapsed_s)

    def _hand_over(self, peer: Peer, given: list[EventRange]) -> None:
        if given and peer.native:
            self._send(peer.identity, native.ranges(given))
            return
        for each in given:
            self._send(peer.identity, text.range_reply(each))

    def _refuse(self, peer: Peer) -> None:
        if self.over:
            return
        if self._case.ending is Ending.IN_HAND and not self._ledger.holders:
            self._findings.note("it never asks while a range is in hand: nothing was interrupted")
        asked = min(peer.asked, MAX_HELD)
        self._ledger.refuse(peer)
        if peer.native:
            self._send(peer.identity, native.no_more("done"))
            return
        for _ in range(asked):
            self._send(peer.identity, text.NO_MORE)
