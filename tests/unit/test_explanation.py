"""The story of a range in sentences: which lines are told, in which words, and where it is now."""

from __future__ import annotations

from typing import Any

import pytest

from espilot.model import EventRange, Output, RangeState, RangeView
from espilot.view.explanation import (
    SENTENCES,
    Explanation,
    as_document,
    describe,
    explain,
    near_matches,
    sentence,
)

ID = "7-1001-3-22-3"


def line(t: float, what: str, ranges: list[str] | None = None, **facts: Any) -> dict[str, Any]:
    """A line of the story, about our range unless it says otherwise."""
    ranges = [ID] if ranges is None else ranges
    return {"t": t, "role": "dispatcher", "pid": 42, "what": what, "ranges": ranges, **facts}


def view(state: RangeState, **fields: Any) -> RangeView:
    """A row of the queue."""
    event_range = EventRange(ID, 22, 22, "in.root", "g", "s")
    return RangeView(event_range, state, "a", 2, 10.0, **fields)


WHOLE = [
    line(1.0, "fetched", ["other", ID], job=1001,
         each={"events": [[1, 1], [22, 24]], "lfn": ["a", "b"]}),
    line(2.0, "sent", epoch=1, each={"client": [4711]}),
    line(3.0, "done", epoch=1, each={"paths": [["/w/p-1/out"]], "bytes": [1500]}),
    line(4.0, "packed", archive="x.tar", each={"files": [[["/w/p-1/out", 1500]]]}),
    line(5.5, "staged", archive="x.tar", storage="se", storage_id=3, size=20480, adler32="0a"),
    line(6.0, "reported", status="finished", archive="x.tar", checked=True),
]  # fmt: skip


def test_whole_life() -> None:
    """Every move is one step, in order, with the facts of this range and the time since the one
    before."""
    told = explain(ID, reversed(WHOLE), None)
    assert [step.what for step in told.steps] == [
        "fetched", "sent", "done", "packed", "staged", "reported",
    ]  # fmt: skip
    assert [step.since_s for step in told.steps] == [None, 1.0, 1.0, 1.0, 1.5, 0.5]
    texts = [step.text for step in told.steps]
    assert texts[0] == ("fetched from the server for job 1001: events 22 to 24 of b (with 1 other)")
    assert "process 4711" in texts[1] and "start 1" in texts[1]
    assert "/w/p-1/out" in texts[2] and "1.5 kB" in texts[2]
    assert "x.tar" in texts[3] and "/w/p-1/out" in texts[3]
    assert all(word in texts[4] for word in ("x.tar", "se", "id 3", "20.5 kB", "adler32 0a"))
    assert "finished" in texts[5] and "statuses were asked for" in texts[5]
    assert told.now.startswith("over")


def test_only_its_own_lines() -> None:
    """Lines of other ranges are left out, also of those whose id contains this one."""
    told = explain(ID, [line(1.0, "sent", [f"1{ID}"]), line(2.0, "done", ["x"])], None)
    assert told.steps == ()


def test_pilot_events_while_in_hand() -> None:
    """A verdict or the payload's death is told when the range was in hand, not otherwise."""
    lines = [
        line(1.0, "payload-ended", [], epoch=1, how="early"),
        line(2.0, "sent", epoch=2),
        line(3.0, "verdict", [], rule="hang", text="no message for 7200 s"),
        line(4.0, "payload-ended", [], epoch=2, how="killed by SIGKILL (9)"),
        line(5.0, "returned", epoch=2, why="the payload ended", suspect=True),
        line(6.0, "payload-started", [], epoch=3),
    ]
    told = explain(ID, lines, view(RangeState.READY))
    assert [step.t for step in told.steps] == [2.0, 3.0, 4.0, 5.0]
    assert told.steps[1].text == "verdict by rule hang: no message for 7200 s"
    assert told.steps[2].text.endswith("killed by SIGKILL (9)")
    assert "last and alone" in told.steps[3].text
    assert told.now.startswith("ready")


@pytest.mark.parametrize(
    ("state", "fields", "words"),
    [
        (RangeState.READY, {}, ["ready", "waiting to be handed out"]),
        (RangeState.SENT, {}, ["sent", "start 2"]),
        (RangeState.DONE, {"outputs": (Output("/w/o", 1, 2, 3, 4),)}, ["done", "/w/o"]),
        (RangeState.PACKED, {"archive": "x.tar"}, ["packed", "x.tar"]),
        (RangeState.STAGED, {"archive": "x.tar"}, ["staged", "x.tar", "server"]),
        (RangeState.FAILED, {"code": 1305, "diag": "bad event"}, ["failed", "1305", "bad event"]),
        (RangeState.FATAL, {"code": 1305, "diag": "bad event"}, ["fatal", "1305", "bad event"]),
    ],
)
def test_where_it_is(state: RangeState, fields: dict[str, Any], words: list[str]) -> None:
    """The queue says where a range is, with what belongs to its state, whatever the story says."""
    told = explain(ID, WHOLE, view(state, **fields))
    assert all(word in told.now for word in words), told.now


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (line(9.0, "reported", status="finished"), "booked"),
        (line(9.0, "given-back", why="the job ends"), "the server's"),
        (line(9.0, "sent", epoch=1), "does not tell why"),
    ],
)
def test_where_it_went(last: dict[str, Any], words: str) -> None:
    """Of a range that left the queue the end of its story tells where it is."""
    assert words in explain(ID, [last], None).now


@pytest.mark.parametrize("what", [*SENTENCES, "something-new"])
@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"each": {"events": [], "client": 3, "files": "x"}},
        {"each": [1], "why": None, "diag": "\x1b[31mred\n", "archive": "\x07", "how": "\r"},
        {"x": "\x1b", "role": "\x1b", "text": "\n"},
    ],
)  # fmt: skip
def test_lines_without_their_facts(what: str, facts: dict[str, Any]) -> None:
    """A line of another version is told with what it has, on one line, and no terminal obeys it."""
    told = explain(ID, [line(1.0, what) | facts], None)
    shown = describe(told)
    assert not any(c in shown for c in "\x1b\x07\r")
    assert len(shown.splitlines()) <= 5


def test_failed_and_given_back() -> None:
    """Reasons and codes are told."""
    assert "bad event (code 1305)" in sentence("failed", {"code": 1305, "diag": "bad event"})
    assert "the job ends" in sentence("given-back", {"why": "the job ends"})
    assert "again" in sentence("undecided", {})
    assert sentence("odd", {"what": "odd", "a": 1}) == "odd (a 1)"


def test_described_in_local_time() -> None:
    """Each step has a line with time, role and pid; the end says where the range is now."""
    lines = describe(explain(ID, WHOLE, None)).splitlines()
    assert lines[0] == f"range {ID}"
    assert lines[2].split()[1].endswith(".000")
    assert "dispatcher[42]" in lines[2] and "+1.50 s" in lines[6]
    assert lines[-1].startswith("now: over")


def test_nothing_told() -> None:
    """A range that only the queue knows is told from there."""
    text = describe(explain(ID, [], view(RangeState.SENT)))
    assert "its story does not tell of it" in text and "now: sent" in text


def test_document() -> None:
    """The JSON object has its schema, the state, and every step as it is told."""
    told = explain(ID, WHOLE, view(RangeState.STAGED, archive="x.tar"))
    document = as_document(told, view(RangeState.STAGED))
    assert document["schema"] == "espilot.explanation/1"
    assert (document["range"], document["state"]) == (ID, "staged")
    assert document["steps"][1]["text"] == told.steps[1].text
    assert as_document(Explanation(ID, (), "x"), None)["state"] is None


@pytest.mark.parametrize(
    ("sought", "likest"),
    [
        ("7-1001-3-22-2", "7-1001-3-22-3"),
        ("7-1001-3-23-3", "7-1001-3-22-3"),
        ("7-1001-3-2", "7-1001-3-22-3"),
        ("3-22-3", "7-1001-3-22-3"),
    ],
)
def test_near_matches(sought: str, likest: str) -> None:
    """A slip in one part, or an id that is cut off, finds the range that was meant."""
    ids = ["7-1001-3-22-3", "7-1001-9-900-3", "8-1-1-1-1"]
    assert near_matches(sought, ids)[0] == likest


@pytest.mark.parametrize("sought", ["", "x", "1-2", "9-9-9-9-9"])
def test_nothing_is_near(sought: str) -> None:
    """What is like nothing gets no proposal."""
    assert near_matches(sought, ["7-1001-3-22-3"]) == []
