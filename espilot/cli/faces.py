"""Which of its two faces the program shows: its own commands, or those of a stock pilot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

STOCK_PROGRAM = "pilot.py"
_NATIVE = (["-h"], ["--help"], ["--version"])


def is_stock(program: str, argv: Sequence[str]) -> bool:
    """Whether we are called as a stock pilot: by its name, or with options only."""
    if list(argv) in _NATIVE:
        return False
    return Path(program).name == STOCK_PROGRAM or (bool(argv) and argv[0].startswith("-"))
