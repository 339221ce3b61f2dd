"""What is to be told of ranges, gathered between two commits so that telling costs little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from espilot.model import FailedRange, Output

Tell = Callable[..., None]
"""`tell(what, ids, **facts)`; facts that differ from range to range lie below `each`."""


def say_nothing(what: str, ranges: Sequence[str], **facts: Any) -> None:
    """Tell nobody."""


class News:
    """Moves that were made and not told yet."""

    def __init__(self) -> None:
        self._sent: list[tuple[str, int | None]] = []
        self._done: list[tuple[str, tuple[Output, ...], float | None]] = []
        self._failed: list[FailedRange] = []

    def sent(self, range_id: str, pid: int | None) -> None:
        """A range went to a client."""
        self._sent.append((range_id, pid))

    def done(self, range_id: str, outputs: tuple[Output, ...], wall_s: float | None) -> None:
        """A range is done; `wall_s` is what the payload says that it took."""
        self._done.append((range_id, outputs, wall_s))

    def failed(self, failure: FailedRange) -> None:
        """A range is failed or fatal."""
        self._failed.append(failure)

    def publish(self, tell: Tell, epoch: int) -> None:
        """Tell all of it, one line for each kind of move."""
        if self._sent:
            ids, pids = zip(*self._sent, strict=True)
            tell("sent", ids, epoch=epoch, each={"client": pids})
        if self._done:
            paths = [[output.path for output in outputs] for _, outputs, _ in self._done]
            sizes = [sum(output.size_bytes for output in outputs) for _, outputs, _ in self._done]
            walls = [wall_s for _, _, wall_s in self._done]
            ids = tuple(range_id for range_id, _, _ in self._done)
            tell("done", ids, epoch=epoch, each={"paths": paths, "bytes": sizes, "wall_s": walls})
        for each in self._failed:
            what = "fatal" if each.fatal else "failed"
            tell(what, (each.id,), epoch=epoch, code=each.code, diag=each.diag)
        self._sent, self._done, self._failed = [], [], []
