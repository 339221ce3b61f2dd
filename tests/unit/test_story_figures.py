"""What is counted from the story, and durations as a histogram."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from espilot.histogram import Histogram, read_histogram
from espilot.view.story_figures import MOST_LIVE, REASONS, StoryFigures

ROOT = Path(__file__).resolve().parents[2] / "espilot"


class Figures(StoryFigures):
    """Of a story that is complete."""

    def take(self, lines: Iterable[Any], until: float = 1e9) -> None:
        super().take(lines, until)


def line(t: float, what: str, ranges: Sequence[str], **facts: Any) -> dict[str, Any]:
    return {"t": t, "what": what, "ranges": list(ranges), **facts}


FETCHED = line(1.0, "fetched", ["a", "b"], each={"events": [[1, 10], [11, 15]], "lfn": ["f", "f"]})


def test_waits_and_durations() -> None:
    """From ready to sent, from sent to done; a return begins both anew."""
    figures = Figures()
    figures.take([
        FETCHED, line(1.5, "sent", "ab"), line(3.5, "done", "a"),
        line(4.0, "returned", "b", why="client 7 ended"), line(4.2, "sent", "b"),
        line(14.2, "done", "b"), line(15.0, "reported", "ab", status="finished"),
    ])  # fmt: skip
    assert (sum(figures.waits.counts), figures.waits.sum_s) == (3, pytest.approx(1.2))
    assert (sum(figures.durations.counts), figures.durations.sum_s) == (2, pytest.approx(12.0))
    assert figures.redispatched == {"client-ended": 1}
    assert not figures.events_lost
    figures.take([line(20.0, "given-back", "ab", why="late"), line(21.0, "done", "xa")])
    assert not figures.events_lost, "what is over counts no more, what is unknown never"


def test_roles_tell_late() -> None:
    """What another role wrote earlier of later moves waits for what came before."""
    figures = Figures()
    figures.take([line(1.5, "sent", "ab"), line(2.5, "done", "ab")], until=1.2)
    figures.take([line(2.9, "reported", "ab")], until=1.2)
    figures.take([FETCHED], until=2.0)
    assert (sum(figures.waits.counts), sum(figures.durations.counts)) == (2, 0)
    figures.take([], until=3.0)
    assert (sum(figures.waits.counts), sum(figures.durations.counts)) == (2, 2)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (line(5.0, "returned", "a", why="its output is missing or short"), "output-lost"),
        (line(5.0, "dropped", "a", why="[Errno 2]", code=1103), "output-lost"),
        (line(5.0, "given-back", "a", why="the server never booked it"), "not-booked"),
        (line(5.0, "given-back", "a", why="some other words"), "other"),
    ],
)
def test_work_in_vain_is_counted_in_events(last: dict[str, Any], reason: str) -> None:
    """Only what was processed; a range that nobody had begun costs nothing."""
    figures = Figures()
    figures.take([FETCHED, line(2.0, "sent", "a"), line(3.0, "done", "a"), last])
    figures.take([line(6.0, "given-back", "b", why="the job ends, it was not in work")])
    assert figures.events_lost == {reason: 10}
    assert figures.ranges_lost == {reason: 1}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges whose end is not told do not stay for ever."""
    monkeypatch.setattr("espilot.view.story_figures.MOST_LIVE", 3)
    figures = Figures()
    figures.take([line(1.0, "fetched", [str(n) for n in range(10)])])
    figures.take([line(2.0, "done", ["0"]), line(2.0, "sent", ["9"])])
    assert sum(figures.waits.counts) == 1
    assert MOST_LIVE > 1000


def test_reasons_are_those_of_the_story() -> None:
    """Each of the words is told somewhere, so none goes to `other` by a change of its text."""
    code = "".join(
        path.read_text() for path in ROOT.rglob("*.py") if path.name != "story_figures.py"
    )
    assert [words for words in REASONS if f'"{words}"' not in code] == []
    told = set(re.findall(r'why="([^"{]+)"', code)) - {"the client does not read"}
    assert told <= REASONS.keys()


def test_histogram() -> None:
    """A bound belongs to its place, what is beyond all has one; facts are read back."""
    made = Histogram((1.0, 2.0))
    for duration_s in (0.5, 1.0, 1.5, 9.0):
        made.add(duration_s)
    assert (made.counts, made.sum_s) == ([2, 1, 1], 12.0)
    again = read_histogram(made.facts())
    assert (again.bounds, again.counts, again.sum_s) == ((1.0, 2.0), [2, 1, 1], 12.0)
