"""Looks for clients that hold a range too long, and tells the supervisor, who ends them."""

from __future__ import annotations

from collections.abc import Callable

from espilot.config import PayloadConfig
from espilot.core.hang import RangeWatch
from espilot.pipeline.dispatch import Dispatch
from espilot.wire.messages import Overdue


class HangWatch:
    """The watch over one epoch's clients."""

    def __init__(
        self, config: PayloadConfig, dispatch: Dispatch, send: Callable[[Overdue], None]
    ) -> None:
        self._watch = RangeWatch(
            factor=config.range_hang_factor,
            floor_s=config.range_hang_floor_s,
            cap_s=config.range_hang_cap_s,
        )
        self._dispatch = dispatch
        self._send = send

    @property
    def facts(self) -> dict[str, float]:
        """What a range takes here, in the middle and at most but for one in twenty."""
        durations = self._watch.durations
        if not durations:
            return {}
        return {"range_median_s": durations.median_s, "range_p95_s": durations.quantile(0.95)}

    def look(self, now_mono: float, read_pending: Callable[[], None]) -> None:
        """Look, not more often than it makes sense.

        Before anybody is accused, `read_pending` takes what waits on the channel: a result that
        nobody has read is no hang.
        """
        if not self._watch.is_due(now_mono):
            return
        dispatch = self._dispatch
        ended = dispatch.tally.outcomes + dispatch.tally.failures
        hands = {client.key: ids for client, ids in dispatch.hands()}
        found = self._watch.look(now_mono, hands, ended)
        if not found:
            return
        read_pending()
        pids = {client.key: client.pid for client, ids in dispatch.hands() if ids}
        still = {range_id for _, ids in dispatch.hands() for range_id in ids}
        for held in found:
            if held.range_id in still:
                pid = pids.get(held.client) or 0
                self._send(Overdue(dispatch.epoch, pid, held.range_id, held.held_s, held.limit_s))
