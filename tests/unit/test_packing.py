"""When outputs become an archive, and which ones."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from espilot.config import PackingConfig
from espilot.core.packing import Backlog, Plan, Trigger, choose

CONFIG = PackingConfig(max_ranges=3, max_bytes=100, max_age_s=60.0)


def backlog_of(*rows: tuple[str, int, float] | tuple[str, int, float, float]) -> Backlog:
    backlog = Backlog()
    for row in rows:
        backlog.add(*row)
    return backlog


def test_nothing_waits() -> None:
    """An empty backlog makes no archive and sets no deadline, not even on a flush."""
    assert choose(Backlog(), CONFIG, now=5.0, flush=True) == Plan()


def test_below_limits_waits_for_age() -> None:
    """What is not full waits, and the deadline is that of the oldest output."""
    backlog = backlog_of(("a", 10, 7.0), ("b", 10, 5.0))
    assert choose(backlog, CONFIG, now=10.0, flush=False) == Plan(deadline=65.0)
    assert choose(backlog, CONFIG, now=64.9, flush=False) == Plan(deadline=65.0)
    assert choose(backlog, CONFIG, now=65.0, flush=False) == Plan(("a", "b"), Trigger.AGE)


def test_deadline_follows_removal_and_return() -> None:
    """A range that left sets no deadline; one that came back counts from its new time."""
    backlog = backlog_of(("a", 10, 5.0), ("b", 10, 7.0))
    backlog.remove(["a", "unknown"])
    assert choose(backlog, CONFIG, now=8.0, flush=False).deadline == 67.0
    backlog.add("a", 10, 9.0)
    backlog.remove(["b"])
    assert choose(backlog, CONFIG, now=10.0, flush=False).deadline == 69.0


def test_full_by_count_keeps_order() -> None:
    """At the largest number of ranges an archive is made at once, in order of arrival."""
    backlog = backlog_of(*((name, 1, 0.0) for name in "dcba"))
    assert choose(backlog, CONFIG, now=0.0, flush=False) == Plan(("d", "c", "b"), Trigger.COUNT)
    backlog.remove(["d", "c", "b"])
    assert choose(backlog, CONFIG, now=0.0, flush=False) == Plan(deadline=60.0)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((60, 40), ("0", "1")), ((60, 41), ("0",)), ((250, 1), ("0",)), ((1, 250), ("0",))],
)
def test_full_by_bytes(sizes: tuple[int, ...], expected: tuple[str, ...]) -> None:
    """An archive never passes the byte limit, except for an output that alone is larger."""
    backlog = backlog_of(*((str(k), size, 0.0) for k, size in enumerate(sizes)))
    assert choose(backlog, CONFIG, now=0.0, flush=False) == Plan(expected, Trigger.BYTES)


def test_flush_takes_what_is_there() -> None:
    """A flush packs everything, archive by archive, whatever the age."""
    backlog = backlog_of(*((name, 1, 0.0) for name in "abcd"))
    seen = []
    while (plan := choose(backlog, CONFIG, now=0.0, flush=True)).ids:
        seen.append((plan.ids, plan.trigger))
        backlog.remove(plan.ids)
    assert seen == [(("a", "b", "c"), Trigger.COUNT), (("d",), Trigger.FLUSH)]
    assert (len(backlog), backlog.size_bytes) == (0, 0)


def test_clock_set_back() -> None:
    """An output from the future is due now, instead of waiting for the clock to catch up."""
    backlog = backlog_of(("a", 1, 5000.0))
    assert choose(backlog, CONFIG, now=1000.0, flush=False) == Plan(("a",), Trigger.AGE)


def test_work_at_risk() -> None:
    """However few and young the outputs are, so much CPU time in them makes an archive."""
    config = PackingConfig(max_ranges=100, max_bytes=1000, max_age_s=600.0, risk_cpu_min=2.0)
    backlog = backlog_of(("a", 1, 0.0, 60.0), ("b", 1, 0.0, 59.0))
    assert choose(backlog, config, now=0.0, flush=False) == Plan(deadline=600.0)
    backlog.add("c", 1, 0.0, 1.0)
    assert choose(backlog, config, now=0.0, flush=False) == Plan(("a", "b", "c"), Trigger.RISK)
    backlog.remove(("a",))
    assert choose(backlog, config, now=0.0, flush=False) == Plan(deadline=600.0)
    no_limit = replace(config, risk_cpu_min=0.0)
    backlog.add("d", 1, 0.0, 1e9)
    assert choose(backlog, no_limit, now=0.0, flush=False) == Plan(deadline=600.0)


def test_work_sums_to_nothing() -> None:
    """Fractions that were added and taken away again leave no work behind."""
    backlog = backlog_of(*((str(k), 1, 0.0, 0.1) for k in range(10)))
    backlog.remove([str(k) for k in range(10)])
    assert backlog.cost_s == 0.0


def test_add_twice_counts_once() -> None:
    """A repeated notice of the same range changes neither its place nor the sizes."""
    backlog = backlog_of(("a", 10, 1.0), ("a", 99, 2.0))
    assert (len(backlog), backlog.size_bytes, backlog.oldest()) == (1, 10, 1.0)


def test_long_backlog_is_cheap() -> None:
    """Emptying a backlog of 20,000 costs a walk over each range once, not once per archive."""
    config = PackingConfig(max_ranges=10, max_bytes=10**12, max_age_s=60.0)
    backlog = backlog_of(*((f"r{k}", 100, float(k)) for k in range(20_000)))
    started = time.process_time()
    archives = 0
    while ids := choose(backlog, config, now=1e6, flush=False).ids:
        backlog.remove(ids)
        archives += 1
    assert archives == 2000
    assert time.process_time() - started < 1.0
