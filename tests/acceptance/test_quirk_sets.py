"""Each kind of job at servers with many quirks and faults at once, of either dialect or both."""

from __future__ import annotations

import pytest
from quirk_cells import Cell
from quirk_passage import Passage
from quirk_table import random_cells, untested


@pytest.mark.parametrize("cell", random_cells(), ids=lambda cell: cell.name)
def test_set(passage: Passage, cell: Cell) -> None:
    """Whatever comes together, the task ends as it should: each range once, the right files."""
    passage.require(cell)


def test_every_quirk_has_a_case() -> None:
    """A new quirk needs a case in the table."""
    assert untested() == set()
