"""A run as its story tells it: cells, lanes, sums, whatever the order and the gaps of the lines."""

from __future__ import annotations

import random
from typing import Any

import pytest

from espilot.view import cells as cells_module
from espilot.view.cells import Cells, count_states
from espilot.view.chronicle import Chronicle
from espilot.view.history import History
from espilot.view.lanes import MOST_BOXES, MOST_LANES


def line(t: float, what: str, *ids: str, **facts: Any) -> dict[str, Any]:
    """A line of the story."""
    return {"t": t, "role": "r", "pid": 1, "what": what, "ranges": list(ids), **facts}


def fetched(t: float, *places: tuple[str, int], lfn: str = "a") -> dict[str, Any]:
    """Ranges with their ids and first events, ten events each."""
    each = {"events": [[first, first + 9] for _, first in places], "lfn": [lfn] * len(places)}
    return line(t, "fetched", *(range_id for range_id, _ in places), job=7, each=each)


def life(range_id: str, first: int, t: float) -> list[dict[str, Any]]:
    """All lines of a range that goes well."""
    return [
        fetched(t, (range_id, first)),
        line(t + 1, "sent", range_id, epoch=1, each={"client": [42]}),
        line(t + 3, "done", range_id, epoch=1, each={"paths": [["/w/x"]], "bytes": [10]}),
        line(t + 4, "packed", range_id, archive="a.tar", size=20),
        line(t + 5, "staged", range_id, archive="a.tar", size=20, storage="se"),
        line(t + 6, "reported", range_id, status="finished", archive="a.tar"),
    ]


def test_life_of_a_range() -> None:
    """Each move gives the cell its letter; at the end all facts are there."""
    chronicle, letters = Chronicle(), ""
    for each in life("r1", 11, 100.0):
        chronicle.take([each])
        letters += chronicle.cells.letters.decode()
    assert letters == "rsdptf"
    row = chronicle.cells.row(0)
    assert (row["id"], row["first"], row["last"], row["lfn"]) == ("r1", 11, 20, "a")
    assert (row["state"], row["took_s"], row["client"]) == ("reported", 2.0, 42)
    assert row["archive"] == "a.tar" and not row["redone"]
    assert chronicle.median_s == 2.0 and chronicle.storages == {"se": 20}


def test_any_order_of_writing() -> None:
    """Roles flush when they like: in whatever order lines come, the end is the same."""
    lines = [each for n in range(20) for each in life(f"r{n}", n * 10, 100.0 + n)]
    for seed in range(20):
        mixed = lines[:]
        random.Random(seed).shuffle(mixed)
        chronicle = Chronicle()
        for at in range(0, len(mixed), 7):
            chronicle.take(mixed[at : at + 7])
        assert chronicle.cells.letters == b"f" * 20, seed


def test_done_again_keeps_its_cell() -> None:
    """A range that comes back under another id, of another attempt or job, stays where it was."""
    chronicle = Chronicle()
    chronicle.take(life("1-7-5-1-3", 1, 0.0)[:2])
    chronicle.take([line(2, "given-back", "1-7-5-1-3", why="x"), fetched(3, ("1-8-5-1-2", 1))])
    assert chronicle.cells.letters == b"R"
    chronicle.take(life("1-8-5-1-2", 1, 3.0)[1:])
    assert chronicle.cells.letters == b"F" and len(chronicle.cells) == 1
    assert chronicle.cells.row(0)["id"] == "1-8-5-1-2"
    assert count_states(chronicle.cells.letters, 3) | {"f": 1, "w": 3} == count_states(b"f", 3)


def test_a_failure_has_its_reason() -> None:
    """Failed, fatal and dropped ranges are counted by reason, with one of them as example."""
    chronicle = Chronicle()
    chronicle.take([fetched(0, *((f"r{n}", n) for n in range(5)))])
    chronicle.take([line(1, "failed", "r1", code=1305, diag="boom"),
                    line(2, "failed", "r2", code=1305, diag="boom"),
                    line(3, "fatal", "r3", code=9, diag="never"),
                    line(4, "dropped", "r4", code=8, why="too short")])  # fmt: skip
    assert chronicle.cells.letters == b"rxxzx"
    assert chronicle.failures[("1305", "boom")] == 2
    assert chronicle.example[("1305", "boom")] == "r1"
    assert chronicle.cells.row(4)["diag"] == "too short (code 8)"


def test_without_its_beginning() -> None:
    """Of a story whose first page is gone every range gets a cell when it is settled."""
    chronicle = Chronicle()
    chronicle.take(life("r1", 1, 0.0)[1:])
    assert len(chronicle.cells) == 0
    chronicle.settle()
    assert chronicle.cells.letters == b"f" and chronicle.cells.row(0)["lfn"] == ""


def test_the_queue_knows_better() -> None:
    """What a killed pilot did not tell any more is taken from its queue."""
    chronicle = Chronicle()
    chronicle.take([each for n in range(4) for each in life(f"r{n}", n, 0.0)[: 3 + n]])
    chronicle.take([fetched(50, ("r4", 4)), *life("r5", 5, 0.0)[:2]])
    chronicle.take(life("r6", 6, 0.0)[:2] + life("r7", 7, 0.0)[:2])
    chronicle.reconcile({"r0": "p", "r4": "s", "r5": "s"}, finished=4)
    assert chronicle.cells.letters == b"pfffssfs"


def test_strange_lines() -> None:
    """Unknown words and facts of wrong kinds are passed over or taken as not told."""
    chronicle = Chronicle()
    chronicle.take([line(1, "danced", "r1"), line(2, "fetched", "r1", each={"events": ["x"]}),
                    line(3, "sent", "r1", each={"client": ["?"]}),
                    line(4, "staged", "r1", size="big", storage=None, archive=3),
                    line(5, "reported", "r1")])  # fmt: skip
    assert chronicle.cells.letters == b"f"


def test_the_map_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its size ranges are counted, not kept."""
    monkeypatch.setattr(cells_module, "MOST_CELLS", 10)
    cells = Cells()
    placed = [cells.place(f"r{n}", n, n, "a") for n in range(25)]
    assert placed[:10] == list(range(10)) and placed[10:] == [None] * 15
    assert len(cells) == 10 and cells.beyond == 15


def test_lanes() -> None:
    """A lane has a box for each range, begun when the one before it ended; so has the stage-out."""
    chronicle = Chronicle()
    chronicle.take(
        [
            fetched(0, *((f"r{n}", n) for n in range(3))),
            line(1, "sent", "r0", "r1", each={"client": [5, 5]}),
            line(3, "done", "r0"),
            line(6, "failed", "r1", code=1, diag="d"),
            line(7, "sent", "r2", each={"client": [6]}),
            line(7, "packed", "r0", archive="t"),
            line(9, "staged", "r0", archive="t"),
        ]
    )
    document = chronicle.lanes.document(10)
    five, six, stageout = document["lanes"]
    start = document["from"]
    assert five["boxes"] == [(1 - start, 3 - start, "d"), (3 - start, 6 - start, "x")]
    assert five["failed"] == 1
    assert six["now"] == 7 - start and six["boxes"] == [] and five["now"] is None
    assert stageout["boxes"] == [(7 - start, 9 - start, "d")]


def test_many_boxes_become_bins() -> None:
    """When boxes are too many, a lane tells the share of time that it was busy; all is bounded."""
    chronicle = Chronicle()
    n = (MOST_LANES + 6) * 30
    for at in range(n):
        client = 1 + at // 30
        chronicle.take([fetched(at, (f"r{at}", at)),
                        line(at, "sent", f"r{at}", each={"client": [client]}),
                        line(at + 0.5, "done", f"r{at}")])  # fmt: skip
    document = chronicle.lanes.document(float(n))
    assert len(document["lanes"]) == MOST_LANES + 1 and document["dropped"] == 6 and n > MOST_BOXES
    assert all("boxes" not in lane and len(lane["bins"]) in (0, 240) for lane in document["lanes"])
    assert len(chronicle.history.series) <= MOST_LANES + 5


def test_history_keeps_sums() -> None:
    """However wide bins become, nothing is lost, and spans fill what they touch."""
    history = History(bins=8)
    for t in range(1000):
        history.add("n", 50.0 + t)
    history.add_span("busy", 50.0, 1050.0)
    history.add("n", 0.0)
    assert sum(history.series["n"]) == 1001
    assert sum(history.series["busy"]) == pytest.approx(1000.0)
    assert max(history.series["busy"]) <= history.width_s + 1e-9
    assert 1000 <= history.width_s * 8 <= 4096
