"""Back-pressure: what waits on the disk for the storage holds back packing, then the hand-out.

Rules:
* Archives that wait for the storage are bounded. At the bound, packing waits: an upload has to end
  first. At the end of a job it goes on, since no more outputs come.
* Archives that nobody has booked yet and outputs together are bounded by `OUTPUT_SHARE` times as
  much. There, no range is handed out until a part of it is gone; whatever waits is packed as soon
  as packing may go on.
* A bound of 0 means: none.
"""

from __future__ import annotations

from espilot.core.limits import size_texts

OUTPUT_SHARE = 2.0
RESUME_SHARE = 0.8


class Pressure:
    """What the bytes that wait mean for packing and for the hand-out."""

    __slots__ = ("_bound_bytes", "_held_bytes", "is_open")

    def __init__(self, bound_bytes: int) -> None:
        self._bound_bytes = bound_bytes
        self._held_bytes = 0
        self.is_open = True

    @property
    def reason(self) -> str:
        """Why no ranges are handed out; "" while they are."""
        if self.is_open:
            return ""
        held, limit = size_texts(self._held_bytes, self._bound_bytes * OUTPUT_SHARE)
        return (
            f"{held} of outputs wait for the storage, the limit is {limit} "
            "(twice stageout.waiting_bytes): no ranges are handed out"
        )

    def packing_waits(self, waiting_bytes: int) -> bool:
        """Whether no further archive may be made beside these, which are not on the storage."""
        return 0 < self._bound_bytes <= waiting_bytes

    def observe(self, held_bytes: int) -> None:
        """Take the bytes of all outputs and archives on this disk; they open or close the way."""
        self._held_bytes = held_bytes
        limit_bytes = self._bound_bytes * OUTPUT_SHARE
        if limit_bytes and self.is_open:
            self.is_open = held_bytes < limit_bytes
        elif limit_bytes:
            self.is_open = held_bytes < limit_bytes * RESUME_SHARE
