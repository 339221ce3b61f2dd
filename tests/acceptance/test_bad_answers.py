"""Answers that are none, to each call of a pilot, in both dialects: a clear line, and no harm."""

from __future__ import annotations

import bad_answers
import pytest
from quirk_cells import Cell
from quirk_passage import Passage

FLOWS = ("jobs", "ranges", "reports", "updates")
CELLS = [
    Cell(dialect, "event", (), spoiled=kind, label=kind)
    for dialect in ("legacy", "v1")
    for kind in bad_answers.KINDS
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_bad_answer(passage: Passage, cell: Cell) -> None:
    """Each call that was answered so is made again or verified; the task ends as it should."""
    passage.require(cell)
    calls = passage.cells[cell.name].calls
    made = {flow for name, flow in bad_answers.FUNCTIONS.items() if name in calls}
    assert made == set(FLOWS)
    lines = [line for line in passage.log_of(cell) if "call failed" in line]
    for flow in FLOWS:
        mine = [line for line in lines if f"flow={flow}" in line]
        assert mine, f"nothing is said of {flow}: {lines}"
        assert all(len(line) < 600 for line in mine)
    # The first job was lost with its answer; the second ends without the ranges that were lost
    # with theirs, the third processes these, the fourth merges. No job has failed for an answer.
    ends = [line for line in passage.log_of(cell) if "job ended" in line and "action=final" in line]
    assert ["state=finished" in line for line in ends] == [True] * 3, ends
