"""Limits: each verdict names number and limit, and nothing within its limit gets one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from espilot.core import limits
from espilot.model import Verdict

CASES: list[tuple[Callable[[int, int], Verdict | None], str, int, str]] = [
    (limits.work_dir, "end-job", 1104, "the work directory holds 17.3 GB, the limit is 16.0 GB"),
    (
        lambda value, limit: limits.payload_log("payload.stdout", value, limit),
        "end-job",
        1106,
        "payload.stdout of the payload has 17.3 GB, the limit is 16.0 GB",
    ),
    (
        lambda value, limit: limits.output("hits.root", value, limit),
        "fail-range",
        1124,
        "the output hits.root has 17.3 GB, the limit is 16.0 GB",
    ),
]


@pytest.mark.parametrize(("rule", "action", "code", "text"), CASES)
def test_size_limits(
    rule: Callable[[int, int], Verdict | None], action: str, code: int, text: str
) -> None:
    """A size above its limit has a verdict with code, action, words; one at the limit has none."""
    limit = 16 * 10**9
    verdict = rule(17_300_000_000, limit)
    assert verdict is not None
    assert (verdict.action, verdict.code, verdict.text) == (action, code, text)
    assert (verdict.value, verdict.limit) == (17_300_000_000, limit)
    assert rule(limit, limit) is None
    assert rule(limit + 1, limit) is not None
    assert rule(0, limit) is None


@pytest.mark.parametrize(("rule", "_action", "_code", "_text"), CASES)
def test_no_limit(
    rule: Callable[[int, int], Verdict | None], _action: str, _code: int, _text: str
) -> None:
    """A limit of 0 means that there is none."""
    assert rule(10**18, 0) is None


def test_free_space() -> None:
    """Free space below the least value ends the job with 1098; here small is bad."""
    verdict = limits.free_space(400_000_000, 10**9)
    assert verdict is not None
    assert (verdict.code, verdict.action) == (1098, "end-job")
    assert verdict.text == "the local disk has 0.4 GB left, the limit is 1.0 GB"
    assert limits.free_space(10**9, 10**9) is None
    assert limits.free_space(0, 0) is None


@pytest.mark.parametrize(
    ("value", "limit", "texts"),
    [
        (16_000_000_001, 16_000_000_000, ("16.000000 GB", "16.000000 GB")),
        (16_010_000_000, 16_000_000_000, ("16.01 GB", "16.00 GB")),
        (101, 100, ("101 bytes", "100 bytes")),
        (5_000_000, 2_000, ("5000.0 kB", "2.0 kB")),
        (3, 0, ("3 bytes", "0 bytes")),
    ],
)
def test_sizes_in_words(value: int, limit: int, texts: tuple[str, str]) -> None:
    """Both numbers are in the limit's unit, with the digits that tell them apart."""
    assert limits.size_texts(value, limit) == texts


def test_hostile_name() -> None:
    """A name from a payload cannot break the line or make it endless."""
    verdict = limits.output("a\nb\x1b[31m" + "x" * 5000, 2, 1)
    assert verdict is not None
    assert "\n" not in verdict.text
    assert "\x1b" not in verdict.text
    assert len(verdict.text) < 200
