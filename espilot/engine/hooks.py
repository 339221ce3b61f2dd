"""The two ends of the engine that belong to the program around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from espilot.model import DoneRange, EventRange, FailedRange


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one range. `state` is `finished`, `failed` or `fatal` (it can never work).

    `paths` are the output files of a finished range, in the order of the streams, `size_bytes` is
    their sum, `events` how many events it had. `cpu_s` and `wall_s` are None where nobody knows.
    `code` and `diag` say why a range failed; the code is a pilot error code.
    """

    id: str
    state: str
    paths: tuple[str, ...] = ()
    size_bytes: int = 0
    events: int = 0
    cpu_s: float | None = None
    wall_s: float | None = None
    code: int = 0
    diag: str = ""


class Hooks(Protocol):
    """What the engine asks of the program around it. Any object with these two methods will do.

    Each hook is called in a thread of its own, never twice at the same time: a slow answer to one
    keeps neither the payload nor the other hook waiting. What a hook raises ends the run.
    """

    def get_event_ranges(self, n: int) -> Sequence[EventRange] | None:
        """Give some ranges, about `n`; more or fewer are welcome.

        An empty sequence: there are no more, and it will not be asked again. None: not now, ask
        again in a second. Ids must be unique: a range that the engine still has, maybe from a
        former run on this directory, is not begun twice; one that was handled would be.
        """
        ...

    def handle_output(self, outcome: Outcome) -> None:
        """Take over what became of a range; its files are yours from now on.

        When it returns the engine forgets the range. Until then it is kept on disk: after a crash
        of this process the next run on the same directory tells it, before it asks for ranges. What
        was being told at that moment is told again, so be ready to hear of a range twice.
        """
        ...


def outcome_of(row: DoneRange | FailedRange) -> Outcome:
    """A row of the queue as the hook hears of it."""
    if isinstance(row, DoneRange):
        return Outcome(
            row.id,
            "finished",
            paths=tuple(output.path for output in row.outputs),
            size_bytes=row.size_bytes,
            events=row.events,
            cpu_s=row.cpu_s,
            wall_s=row.wall_s,
        )
    state = "fatal" if row.fatal else "failed"
    return Outcome(row.id, state, code=row.code, diag=row.diag)
