"""Finds the story of one range: in the event log of all roles, and in the queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from espilot.adapters.story import NAME, read_lines
from espilot.errors import LocalError, UsageError
from espilot.model import RangeView
from espilot.queue.reading import QueueReader
from espilot.view.explanation import PILOT, Explanation, explain, near_matches


def tell_range(state: Path, range_id: str) -> tuple[Explanation, RangeView | None]:
    """The explanation of a range, and its row in the queue if it is still there.

    `UsageError` when neither story nor queue knows it, with those that are most like it.
    """
    try:
        view, queued = look_up(state, range_id)
        lines = list(lines_of(state, range_id))
        if view is None and not any(range_id in line["ranges"] for line in lines):
            raise UsageError(unknown_range(state, range_id, queued))
    except OSError as error:
        raise LocalError(f"cannot read the story in {state}: {error.strerror}") from None
    return explain(range_id, lines, view), view


def look_up(state: Path, range_id: str) -> tuple[RangeView | None, list[str]]:
    """A range in the queue, or else the ids of those that are there."""
    try:
        with closing(QueueReader(state / "queue")) as queue:
            view = queue.find(range_id)
            return view, [] if view else queue.all_ids()
    except UsageError:
        return None, []


def lines_of(state: Path, range_id: str) -> Iterator[Mapping[str, Any]]:
    """The lines of the story about a range, and those about the pilot."""
    yield from (line for line in read_lines(state / NAME, (range_id, *PILOT)))


def unknown_range(state: Path, range_id: str, queued: list[str]) -> str:
    """What to say of a range that nobody knows."""
    known = {str(each) for line in read_lines(state / NAME) for each in line["ranges"]}
    near = near_matches(range_id, known | set(queued))
    if near:
        return f"no range {range_id!r} in {state}; did you mean {', '.join(near)}?"
    of = f"none of its {len(known)} ranges is like it" if known else "its story is empty"
    return f"no range {range_id!r} in {state}: {of}"
