"""The circuit breaker of an endpoint."""

from __future__ import annotations

import itertools

import pytest

from espilot.core.circuit import TRANSITIONS, Circuit, CircuitState, Finding


def failing(times: int, *, now: float = 0.0) -> Circuit:
    """A circuit with limit 3 and a pause of 100 s, after failures."""
    circuit = Circuit(limit=3, open_s=100.0)
    for _ in range(times):
        circuit.begin(now)
        circuit.failed(now)
    return circuit


def test_table_is_complete() -> None:
    """Every finding has its row in every state: nothing late or repeated can raise."""
    assert set(TRANSITIONS) == set(itertools.product(CircuitState, Finding))


@pytest.mark.parametrize(("failures", "allowed"), [(0, True), (2, True), (3, False), (5, False)])
def test_failures_in_a_row_open(failures: int, allowed: bool) -> None:
    """The limit of failures in a row opens the circuit, fewer do not."""
    assert failing(failures).allows(50.0) is allowed


def test_scattered_failures_do_not_open() -> None:
    """Only failures in a row count: a success between them begins anew."""
    circuit = failing(2)
    circuit.succeeded()
    circuit.failed(0.0)
    circuit.failed(0.0)
    assert circuit.allows(0.0)


def test_one_probe() -> None:
    """After the pause one try may begin, and no second one beside it."""
    circuit = failing(3)
    assert not circuit.allows(99.9)
    assert circuit.allows(100.0)
    circuit.begin(100.0)
    assert circuit.state is CircuitState.PROBING
    assert not circuit.allows(100.0)


def test_probe_succeeds() -> None:
    """A probe that succeeds closes the circuit."""
    circuit = failing(3)
    circuit.begin(100.0)
    circuit.succeeded()
    assert circuit.allows(100.0)


def test_probe_fails() -> None:
    """A probe that fails opens the circuit for another pause."""
    circuit = failing(3)
    circuit.begin(100.0)
    circuit.failed(130.0)
    assert not circuit.allows(229.0)
    assert circuit.allows(230.0)


def test_tries_within_the_pause_do_not_prolong_it() -> None:
    """Who has nowhere else to go may try early; the pause ends when it was to end."""
    circuit = failing(3)
    circuit.begin(50.0)
    circuit.failed(60.0)
    assert circuit.state is CircuitState.OPEN
    assert circuit.allows(100.0)


@pytest.mark.parametrize(("limit", "open_s"), [(0, 1.0), (1, -1.0)])
def test_refuses_nonsense(limit: int, open_s: float) -> None:
    """A circuit that could never work is refused."""
    with pytest.raises(ValueError, match="too small"):
        Circuit(limit=limit, open_s=open_s)
