"""Each kind of job at servers of the v1 dialect, with every quirk of theirs one by one."""

from __future__ import annotations

import pytest
from quirk_cells import Cell
from quirk_passage import Passage
from quirk_table import cells_of


@pytest.mark.parametrize("cell", cells_of("v1"), ids=lambda cell: cell.name)
def test_quirk(passage: Passage, cell: Cell) -> None:
    """Whatever the server's quirk, its task ends as it should: each range once, the right files."""
    passage.require(cell)
