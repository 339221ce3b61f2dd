"""The plan of a drain, made backwards from the deadline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from espilot.core.drain import EXIT_S, IDLE_S, UNKNOWN_RANGE_S, Pace, Stock, lead_s, make_plan

PACE = Pace(
    range_s=20.0,
    range_p95_s=40.0,
    output_bytes=1e6,
    pack_rate=100e6,
    upload_rate=10e6,
    report_s=0.5,
    update_s=0.5,
    term_s=30.0,
)
STOCK = Stock(running=8, ready=16, done=10, packed=20, done_bytes=10e6, packed_bytes=20e6)
NOTHING = Stock(payload_alive=False)


@pytest.mark.parametrize("left_s", [0.0, 1.0, 10.0, 30.0, 150.0, 3600.0])
def test_steps_fill_the_time_and_no_more(left_s: float) -> None:
    """The budgets of all steps end at the deadline, follow one another, and none is negative."""
    plan = make_plan(STOCK, PACE, left_s=left_s)
    assert plan.total_s == pytest.approx(left_s)
    assert all(step.budget_s >= 0.0 for step in plan.steps)
    begins = [step.begin_s for step in plan.steps]
    assert begins == sorted(begins)
    last = plan.steps[-1]
    assert last.begin_s + last.budget_s == pytest.approx(left_s)
    names = [step.name for step in plan.steps]
    assert names == [
        "last hand-out", "run", "stop payload", "pack", "upload", "report", "give back",
        "final update", "exit",
    ]  # fmt: skip


@pytest.mark.parametrize("left_s", [0.0, 10.0, 30.0, 150.0, 3600.0])
@pytest.mark.parametrize("upload_rate", [10e6, 1e3])
@pytest.mark.parametrize("storage_ok", [True, False])
def test_every_range_has_one_fate(left_s: float, upload_rate: float, storage_ok: bool) -> None:
    """What is safe, kept, lost and given back is all that is on the node."""
    stock = replace(STOCK, storage_ok=storage_ok, staged=3)
    plan = make_plan(stock, replace(PACE, upload_rate=upload_rate), left_s=left_s)
    assert plan.safe + plan.kept + plan.lost + plan.back == 8 + 16 + 10 + 20 + 3
    assert min(plan.safe, plan.kept, plan.lost, plan.back) >= 0


def test_lesson_14_ten_seconds_to_live() -> None:
    """With 10 s the payload's stop gets 2 s; the outputs that exist still get out."""
    pace = replace(PACE, range_p95_s=3600.0, range_s=1800.0, output_bytes=1e5)
    stock = Stock(running=4, ready=8, done=6, packed=0, done_bytes=6e5)
    plan = make_plan(stock, pace, left_s=10.0)
    assert plan.stop_s == pytest.approx(2.0)
    assert plan.tail_s >= EXIT_S
    assert (plan.safe, plan.back, plan.kept, plan.lost) == (6, 12, 0, 0)


def test_thirty_seconds_to_live() -> None:
    """With 30 s ranges of 5 s end, though the kill ladder would take 30 s by itself."""
    pace = replace(PACE, range_s=4.0, range_p95_s=5.0)
    plan = make_plan(STOCK, pace, left_s=30.0)
    assert plan.run_s > 5.0
    assert plan.stop_s <= 6.0
    assert (plan.safe, plan.back) == (38, 16)


def test_some_running_ranges_end() -> None:
    """Of ranges that take longer than the time that is left, the share that ends counts as safe."""
    plan = make_plan(STOCK, PACE, left_s=30.0)
    assert 30 < plan.safe < 38
    assert plan.safe + plan.back == 54


def test_an_hour_is_used_by_the_running_ranges() -> None:
    """What stop, shipping and reports do not need is left to running ranges."""
    plan = make_plan(STOCK, PACE, left_s=3600.0)
    assert plan.run_s > 3500.0
    assert plan.stop_s == 30.0
    assert (plan.safe, plan.back) == (38, 16)


def test_too_short_for_all_is_cut_in_proportion() -> None:
    """When the budgets take more than the time left, each step is cut, no range waited for."""
    slow = replace(PACE, upload_rate=1e6)
    plan = make_plan(STOCK, slow, left_s=20.0)
    assert plan.run_s == 0.0
    budgets = {step.name: step.budget_s for step in plan.steps}
    for name in ("stop payload", "pack", "upload", "report", "final update", "exit"):
        assert budgets[name] > 0.0, name
    assert plan.kept > 0
    assert plan.lost == 0


def test_slow_storage_takes_time_from_the_ranges() -> None:
    """The slower the storage, the earlier the payload is stopped."""
    waits = [
        make_plan(STOCK, replace(PACE, upload_rate=rate), left_s=150.0).run_s
        for rate in (100e6, 10e6, 1e6, 0.3e6)
    ]
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] < waits[0]


def test_lesson_15_sick_storage_keeps_what_is_made() -> None:
    """With a sick storage nothing counts as safe but what is there; archives are kept, not lost."""
    stock = replace(STOCK, storage_ok=False, staged=2, spared=True)
    plan = make_plan(stock, PACE, left_s=150.0)
    assert plan.safe == 2
    assert plan.kept == 38
    assert plan.lost == 0


def test_no_deadline() -> None:
    """Without a deadline ranges get the 95th percentile of their duration, else a minute."""
    plan = make_plan(STOCK, PACE, left_s=None)
    assert plan.left_s is None
    assert plan.run_s == 40.0
    unknown = replace(PACE, range_s=None, range_p95_s=None)
    assert make_plan(STOCK, unknown, left_s=None).run_s == UNKNOWN_RANGE_S
    idle = replace(STOCK, running=0)
    assert make_plan(idle, PACE, left_s=None).run_s == IDLE_S


def test_nothing_in_hand() -> None:
    """Without payload and outputs only report and end are left; nobody waits for the deadline."""
    plan = make_plan(NOTHING, PACE, left_s=3600.0)
    assert (plan.run_s, plan.stop_s) == (0.0, 0.0)
    assert plan.total_s < 10.0
    assert (plan.safe, plan.back, plan.kept, plan.lost) == (0, 0, 0, 0)


def test_idle_payload_is_not_waited_for() -> None:
    """A payload without a range in hand is stopped soon, however far the deadline."""
    plan = make_plan(replace(STOCK, running=0), PACE, left_s=3600.0)
    assert plan.run_s == IDLE_S


def test_spare_copies_get_their_time() -> None:
    """With a recovery directory the end includes the time to copy what cannot be shipped."""
    stock = replace(STOCK, spared=True, storage_ok=False, packed_bytes=2e9)
    with_copy = make_plan(stock, PACE, left_s=3600.0).steps[-1].budget_s
    without = make_plan(replace(stock, spared=False), PACE, left_s=3600.0).steps[-1].budget_s
    assert with_copy > without + 2e9 / PACE.pack_rate


def test_drain_begins_when_a_new_range_could_not_be_saved() -> None:
    """A drain for a known deadline begins a range, a stop and the shipping before it."""
    lead = lead_s(STOCK, PACE)
    assert lead > 40.0 + 10.0
    plan = make_plan(STOCK, PACE, left_s=lead)
    assert plan.run_s == pytest.approx(40.0, abs=5.0)
    assert plan.back == STOCK.ready
    assert lead_s(NOTHING, Pace()) < 10.0


def test_final_update_waits_while_there_is_time_for_it() -> None:
    """For what is not planned it waits until it needs the time itself; without a deadline no end
    is known."""
    stock, pace = Stock(payload_alive=False), Pace(update_s=1.0)
    plan = make_plan(stock, pace, left_s=20.0)
    assert plan.final_in_s == pytest.approx(20.0 - plan.exit_s - 2 * 1.5)
    assert make_plan(stock, pace, left_s=1.0).final_in_s == pytest.approx(0.0, abs=0.5)
    assert make_plan(stock, pace, left_s=None).final_in_s is None
