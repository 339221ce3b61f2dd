"""What a bench hands out: rows, and the median of rounds that were taken in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]
Emit = Callable[[Row], None]


def make_row(
    bench: str, case: str, value: float, unit: str, *, limit: float | None = None, **more: Any
) -> Row:
    """One row; with a limit it also gets the ratio of value to limit unless `more` has one."""
    row: Row = {"bench": bench, "case": case, "value": shortened(value), "unit": unit}
    if limit is not None:
        row["limit"] = shortened(limit)
        row["ratio"] = round(more.pop("ratio", value / limit if limit else 0.0), 3)
    return row | more


def shortened(value: float) -> float:
    """A number with the digits that mean something."""
    return round(value) if value >= 1000 else float(f"{value:.4g}")


def compare(bench: str, case: str, unit: str, pairs: list[tuple[float, float]], **more: Any) -> Row:
    """The row of (value, limit) pairs that were measured back to back.

    The ratio is the median of the pairs' ratios: other load on the machine hits both of a pair.
    """
    values, limits = zip(*pairs, strict=True)
    ratio = statistics.median(value / limit for value, limit in pairs)
    return make_row(
        bench, case, statistics.median(values), unit,
        limit=statistics.median(limits), ratio=ratio, **more,
    )  # fmt: skip


def rounds(most: int, budget_s: float) -> Iterator[int]:
    """Count rounds: at most so many, at least one, and none that would begin after the budget."""
    started = time.monotonic()
    for number in range(most):
        if number and time.monotonic() - started > budget_s:
            return
        yield number
