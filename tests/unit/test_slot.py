"""The limits of a slot."""

from __future__ import annotations

import pytest

from espilot.core.slot import Slot, cpu_left_s, read_slot, smaller


@pytest.mark.parametrize(
    ("key", "text", "slot"),
    [
        ("max_rss_bytes", "2000\n", Slot(rss_bytes=2000)),
        ("max_swap_bytes", "3000", Slot(swap_bytes=3000)),
        ("scratch_limit_bytes", "4000", Slot(scratch_bytes=4000)),
        ("cpu_limit_secs", "36000", Slot(cpu_s=36000.0)),
        ("max_rss_bytes", "0", Slot()),
        ("job_id", "17", Slot()),
    ],
)
def test_lesson_47_each_limit_is_read(key: str, text: str, slot: Slot) -> None:
    """Each key of the job features that is a limit is one; 0 is none."""
    assert read_slot({key: text}) == slot


def test_what_is_no_number_is_told() -> None:
    """A limit that cannot be read is none, with a warning that names it."""
    slot = read_slot({"max_rss_bytes": "2 GB", "cpu_limit_secs": "-1"})
    assert (slot.rss_bytes, slot.cpu_s) == (0, 0.0)
    assert [warning.partition(":")[0] for warning in slot.warnings] == [
        "max_rss_bytes",
        "cpu_limit_secs",
    ]


def test_the_smaller_limit_counts() -> None:
    """Of two limits the smaller one, where both are there."""
    assert [smaller(*pair) for pair in ((1, 2), (3, 2), (0, 2), (2, 0), (0, 0))] == [1, 2, 2, 2, 0]


def test_lesson_47_cpu_time_ends_earlier_with_more_cores() -> None:
    """What is left is shared by all cores, which may all be busy; used up is 0."""
    slot = Slot(cpu_s=100.0)
    assert cpu_left_s(slot, 20.0, 1) == 80.0
    assert cpu_left_s(slot, 20.0, 4) == 20.0
    assert cpu_left_s(slot, 200.0, 0) == 0.0
    assert cpu_left_s(Slot(), 20.0, 4) is None
