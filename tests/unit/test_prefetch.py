"""How many ranges to ask for."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from espilot.core.prefetch import GROWTH, LARGEST_REQUEST, Prefetch, Request


def test_the_first_request() -> None:
    """At first two ranges for each core."""
    prefetch = Prefetch(cores=8, work_ahead_s=2.0, bound=1000)
    assert prefetch.wanted(ready=0, live=0, taken=0, now=0.0) == 16


def test_nothing_while_half_is_left() -> None:
    """No request while more than half of the target is ready; one that fills it up after."""
    prefetch = Prefetch(cores=8, work_ahead_s=2.0, bound=1000)
    assert prefetch.wanted(ready=9, live=9, taken=7, now=1.0) == 0
    assert prefetch.wanted(ready=8, live=16, taken=8, now=1.0) == 8


def test_grows_with_the_payload() -> None:
    """A quick payload gets as many as it takes in the time ahead, growing by bounded steps."""
    prefetch = Prefetch(cores=1, work_ahead_s=2.0, bound=100_000)
    asked = [prefetch.wanted(ready=0, live=0, taken=100 * n, now=float(n)) for n in range(6)]
    assert asked[0] == 2
    assert all(after <= before * GROWTH for before, after in itertools.pairwise(asked))
    assert asked[-1] == 200


def test_shrinks_with_the_payload() -> None:
    """A slow payload gets the least again."""
    prefetch = Prefetch(cores=2, work_ahead_s=2.0, bound=100_000)
    for n in range(6):
        prefetch.wanted(ready=0, live=0, taken=1000 * n, now=float(n))
    assert prefetch.wanted(ready=0, live=0, taken=5001, now=1000.0) == 4


def test_a_clock_that_stands_still() -> None:
    """Two looks at the same instant are no division by zero."""
    prefetch = Prefetch(cores=2, work_ahead_s=2.0, bound=100)
    assert prefetch.wanted(ready=0, live=0, taken=0, now=1.0) == 4
    assert prefetch.wanted(ready=0, live=0, taken=50, now=1.0) == 4


@given(
    cores=st.integers(1, 256),
    bound=st.integers(1, 20_000),
    looks=st.lists(
        st.tuples(st.integers(0, 20_000), st.integers(0, 20_000), st.integers(0, 10_000)),
        max_size=20,
    ),
)
def test_never_beyond_the_bounds(cores: int, bound: int, looks: list[tuple[int, int, int]]) -> None:
    """Whatever is taken when, no request exceeds the bound on live ranges or the largest one."""
    prefetch = Prefetch(cores=cores, work_ahead_s=2.0, bound=bound)
    taken, now = 0, 0.0
    for ready, others, more in looks:
        taken, now = taken + more, now + 0.5
        wanted = prefetch.wanted(ready=ready, live=ready + others, taken=taken, now=now)
        assert 0 <= wanted <= LARGEST_REQUEST
        assert not wanted or ready + others + wanted <= bound


def test_never_starves() -> None:
    """With nothing ready and room there is always something to ask for."""
    prefetch = Prefetch(cores=1, work_ahead_s=0.0, bound=10)
    for n in range(10):
        assert prefetch.wanted(ready=0, live=9, taken=0, now=float(n)) == 1


def test_long_answers_are_asked_for_early() -> None:
    """With answers that take 100 s there is work for 150 s left when more is asked for."""
    prefetch = Prefetch(cores=2, work_ahead_s=2.0, bound=10**6, largest=10**6)
    taken, now = 0, 0.0
    for _ in range(6):
        asked = prefetch.wanted(ready=0, live=0, taken=taken, now=now, round_trip_s=100.0)
        taken, now = taken + 1000, now + 100.0  # ten a second
    assert asked == 10 * 302
    assert prefetch.wanted(ready=1511, live=0, taken=taken, now=now, round_trip_s=100.0) == 0
    assert prefetch.wanted(ready=1510, live=0, taken=taken, now=now, round_trip_s=100.0) > 0


def test_request_lasts_until_its_answer() -> None:
    """Asked again, a request stays the same one, and its duration is that of all calls together."""
    request = Request()
    assert (request.n, request.round_trip_s) == (0, 0.0)
    request.begin(5, 10.0)
    request.begin(9, 20.0)
    assert request.n == 5
    request.end(40.0)
    assert (request.n, request.round_trip_s) == (0, 30.0)
