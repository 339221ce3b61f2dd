"""The choice among storage elements."""

from __future__ import annotations

import pytest

from espilot.core.retry import Backoff
from espilot.core.storage_choice import NextTry, Route, StorageChoice, order_endpoints


def make_choice(*names: str, attempts: int = 2) -> StorageChoice:
    """Pauses of 1 to 60 s, circuits that open for 300 s after 3 failures."""
    backoff = Backoff(1.0, 60.0, attempts=attempts)
    return StorageChoice(names, backoff, limit=3, open_s=300.0)


def fail(choice: StorageChoice, route: Route, now: float = 0.0, **facts: object) -> NextTry:
    """Fail one try at the endpoint that is chosen."""
    name = choice.choose(route, now)
    arguments = {"hopeless": False, "chance": 0.0, **facts}
    return choice.failed(route, name, now=now, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("activities", "order"),
    [
        ({"a": ["es_events"], "b": ["es_failover"]}, ("a", "b")),
        ({"b": ["es_failover"], "a": ["es_events", "pl"]}, ("a", "b")),
        ({"a": ["pw"], "b": ["es_failover"]}, ("a", "b")),
        ({"a": ["pw"], "c": ["es_events"]}, ("c",)),
        ({"a": ["es_events", "es_failover"]}, ("a",)),
        ({"a": ["pl"], "b": ["es_events_read"]}, ()),
        ({}, ()),
    ],
)
def test_order(activities: dict[str, list[str]], order: tuple[str, ...]) -> None:
    """Outputs go to es_events, else pw, and then to the endpoints that are for the fail-over."""
    assert order_endpoints(activities) == order


def test_lesson_20_failover_within_one_stageout() -> None:
    """When the primary's tries are spent the next endpoint comes at once; it is no failure yet."""
    choice, route = make_choice("a", "b"), Route()
    assert fail(choice, route).wait_s > 0
    assert fail(choice, route) == NextTry(0.0, failed=False)
    assert choice.choose(route, 0.0) == "b"


def test_all_spent_is_a_failed_stageout() -> None:
    """When all endpoints are spent the stage-out has failed, and the next begins with the first."""
    choice, route = make_choice("a", "b"), Route()
    assert [fail(choice, route).failed for _ in range(4)] == [False, False, False, True]
    assert choice.choose(Route(), 1000.0) == "a"
    assert route == Route()


def test_hopeless_error_goes_on_at_once() -> None:
    """An error that no retry mends spends its endpoint."""
    choice, route = make_choice("a", "b", attempts=5), Route()
    assert fail(choice, route, hopeless=True) == NextTry(0.0, failed=False)
    assert fail(choice, route, hopeless=True) == NextTry(60.0, failed=True)


def test_lesson_20_bad_endpoint_is_remembered() -> None:
    """An endpoint that failed for other archives is passed over until its probe is due."""
    choice = make_choice("a", "b", attempts=5)
    for _ in range(3):
        choice.choose(Route(), 0.0)
        choice.failed(Route(), "a", hopeless=False, now=0.0, chance=0.0)
    assert choice.choose(Route(), 10.0) == "b"
    assert choice.choose(Route(), 300.0) == "a"
    assert choice.choose(Route(), 300.0) == "b", "one probe at a time"
    choice.succeeded("a")
    assert choice.choose(Route(), 301.0) == "a"


def test_nowhere_else_to_go() -> None:
    """With one endpoint only, its circuit delays nothing beyond the pauses."""
    choice = make_choice("a")
    for _ in range(10):
        assert choice.choose(Route(), 0.0) == "a"
        choice.failed(Route(), "a", hopeless=False, now=0.0, chance=0.0)


@pytest.mark.parametrize(("wanted_s", "least_s"), [(30.0, 30.0), (0.5, 1.0), (1e9, 60.0)])
def test_wanted_pause(wanted_s: float, least_s: float) -> None:
    """A pause that the endpoint asks for is kept, within the longest one."""
    choice = make_choice("a", attempts=0)
    answer = fail(choice, Route(), wanted_s=wanted_s)
    assert answer.wait_s == least_s


def test_no_endpoint() -> None:
    """A choice of nothing is refused."""
    with pytest.raises(ValueError, match="no endpoint"):
        make_choice()
