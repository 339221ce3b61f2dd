"""Who gets the next range: turns, limits, and hands that are emptied by whoever reports."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from espilot.core.assignment import Assignment


def serve(assignment: Assignment, n: int, first: int = 1) -> list[str]:
    """Give up to n ranges to whom they belong; the owners."""
    owners = assignment.next_owners(n)
    for number, owner in enumerate(owners, first):
        assignment.give(owner, f"r{number}")
    assignment.check()
    return owners


def test_one_request_one_range() -> None:
    """A request is served once, whatever there is to give."""
    assignment = Assignment(10)
    assignment.ask("a")
    assert serve(assignment, 5) == ["a"]
    assert (assignment.waiting, assignment.held) == (0, 1)
    assert assignment.in_hand("a") == ["r1"]


def test_turns() -> None:
    """One range per client and round, in the order of asking."""
    assignment = Assignment(10)
    assignment.ask("a", 3)
    assignment.ask("b", 1)
    assignment.ask("c", 2)
    assert assignment.next_owners(100) == ["a", "b", "c", "a", "c", "a"]
    assert assignment.next_owners(4) == ["a", "b", "c", "a"]
    assert assignment.next_owners(0) == []


def test_the_served_go_to_the_end_of_the_line() -> None:
    """With one range at a time, clients are served in turn."""
    assignment = Assignment(10)
    assignment.ask("a", 3)
    assignment.ask("b", 3)
    served = [serve(assignment, 1, n)[0] for n in range(1, 7)]
    assert served == ["a", "b", "a", "b", "a", "b"]


def test_limit() -> None:
    """Beyond what a client may hold its requests wait, until an outcome makes room."""
    assignment = Assignment(2)
    assignment.ask("a", 5)
    assert serve(assignment, 9) == ["a", "a"]
    assert assignment.next_owners(9) == []
    assert assignment.waiting == 3
    assignment.end("r1")
    assert serve(assignment, 9, 3) == ["a"]


def test_end_of_what_is_not_held() -> None:
    """A late or repeated end changes nothing."""
    assignment = Assignment(2)
    assignment.ask("a")
    serve(assignment, 1)
    assignment.end("r1")
    assignment.end("r1")
    assignment.end("never")
    assignment.check()
    assert assignment.held == 0


def test_refuse_all() -> None:
    """*No more* ends all requests and tells how many each client had; hands stay as they are."""
    assignment = Assignment(1)
    assignment.ask("a", 3)
    assignment.ask("b")
    serve(assignment, 1)
    assert assignment.refuse_all() == {"b": 1, "a": 2}
    assert (assignment.waiting, assignment.held) == (0, 1)
    assert assignment.refuse_all() == {}


def test_leave() -> None:
    """A client that goes takes its requests and its hand with it; others keep theirs."""
    assignment = Assignment(3)
    assignment.ask("a", 3)
    assignment.ask("b", 1)
    serve(assignment, 3)
    assignment.leave("a")
    assignment.leave("never")
    assignment.check()
    assert (assignment.waiting, assignment.held) == (0, 1)
    assert assignment.in_hand("a") == ()


@settings(max_examples=200)
@given(st.dictionaries(st.text(max_size=3), st.integers(1, 50), max_size=8), st.integers(0, 120))
def test_fair_shares(asked: dict[str, int], limit: int) -> None:
    """Whatever is asked and there is: nobody gets more than asked or one more than another who
    still waits, and nothing is left over while somebody may have it."""
    max_held = 20
    assignment = Assignment(max_held)
    for client, n in asked.items():
        assignment.ask(client, n)
    shares = Counter(assignment.next_owners(limit))
    room = {client: min(n, max_held) for client, n in asked.items()}
    assert shares.total() == min(limit, sum(room.values()))
    assert all(shares[client] <= room[client] for client in asked)
    hungry = [shares[client] for client in asked if shares[client] < room[client]]
    assert not hungry or max(shares.values(), default=0) <= min(hungry) + 1


CLIENTS = st.sampled_from("abcd")


class Random(RuleBasedStateMachine):
    """Any course of requests, ranges, outcomes and departures, beside a simple model."""

    def __init__(self) -> None:
        super().__init__()
        self.assignment = Assignment(3)
        self.asked: Counter[str] = Counter()
        self.hands: dict[str, str] = {}
        self.numbers = 0

    @rule(client=CLIENTS, n=st.integers(1, 5))
    def ask(self, client: str, n: int) -> None:
        self.assignment.ask(client, n)
        self.asked[client] += n

    @rule(limit=st.integers(0, 6))
    def serve(self, limit: int) -> None:
        for owner in self.assignment.next_owners(limit):
            self.numbers += 1
            self.assignment.give(owner, str(self.numbers))
            self.hands[str(self.numbers)] = owner
            self.asked[owner] -= 1
            assert self.asked[owner] >= 0

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        range_id = data.draw(st.sampled_from(sorted(self.hands)))
        self.assignment.end(range_id)
        del self.hands[range_id]

    @rule(client=CLIENTS)
    def leave(self, client: str) -> None:
        self.assignment.leave(client)
        self.asked[client] = 0
        self.hands = {r: owner for r, owner in self.hands.items() if owner != client}

    @rule()
    def refuse(self) -> None:
        assert self.assignment.refuse_all() == dict(+self.asked)
        self.asked.clear()

    @invariant()
    def agrees(self) -> None:
        self.assignment.check()
        assert self.assignment.waiting == self.asked.total()
        assert self.assignment.held == len(self.hands)
        for client in "abcd":
            mine = [r for r, owner in self.hands.items() if owner == client]
            assert list(self.assignment.in_hand(client)) == mine
            assert self.assignment.hands("abcd")[client] == mine


Random.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRandom = Random.TestCase
