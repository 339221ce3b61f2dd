"""Which waiting client gets the next range.

Rules:

* Requests are served in turn: one range per client and round, so that no client starves.
* A client never holds more than `max_held` ranges; beyond that its requests wait.
* A request that cannot be served waits; only *no more* ends it.
* Who reports an outcome does not matter: the range leaves the hand of whoever held it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_NO_MORE = 64
"""Requests of one client that get a *no more* each; a flood need not be answered in full."""


class Assignment:
    """The requests that wait and the ranges in hand, by client key."""

    def __init__(self, max_held: int) -> None:
        self._max_held = max_held
        self._asked: dict[str, int] = {}
        self._waiting = 0
        self._held: dict[str, int] = {}
        self._holder: dict[str, str] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait, of all clients."""
        return self._waiting

    @property
    def held(self) -> int:
        """Ranges in hand, of all clients."""
        return len(self._holder)

    def ask(self, client: str, n: int = 1) -> None:
        """A client asks for `n` more ranges."""
        self._asked[client] = self._asked.get(client, 0) + n
        self._waiting += n

    def next_owners(self, limit: int) -> list[str]:
        """The clients that shall get the next ranges, one entry per range, at most `limit`."""
        owners: list[str] = []
        held, most = self._held, self._max_held
        room = [
            (client, min(asked, most - held.get(client, 0)))
            for client, asked in self._asked.items()
        ]
        turn = 0
        while room and len(owners) < limit:
            room = [(client, left) for client, left in room if left > turn]
            owners += [client for client, _ in room[: limit - len(owners)]]
            turn += 1
        return owners

    def give(self, client: str, range_id: str) -> None:
        """A range was given to a client that asked."""
        # Whoever was served goes to the end of the line.
        left = self._asked.pop(client) - 1
        self._waiting -= 1
        if left:
            self._asked[client] = left
        self._held[client] = self._held.get(client, 0) + 1
        self._holder[range_id] = client

    def end(self, range_id: str) -> None:
        """A range left its holder's hand: outcome, or taken back."""
        client = self._holder.pop(range_id, None)
        if client is None:
            return
        left = self._held[client] - 1
        if left:
            self._held[client] = left
        else:
            del self._held[client]

    def refuse_all(self) -> dict[str, int]:
        """All requests end with *no more*; returns how many each client had."""
        asked, self._asked, self._waiting = self._asked, {}, 0
        return asked

    def leave(self, client: str) -> None:
        """A client is gone, with its requests and what it held."""
        self._waiting -= self._asked.pop(client, 0)
        for range_id in self.in_hand(client):
            self.end(range_id)

    def in_hand(self, client: str) -> Sequence[str]:
        """The ranges that a client holds."""
        if client not in self._held:
            return ()
        return [range_id for range_id, holder in self._holder.items() if holder == client]

    def hands(self, clients: Iterable[str]) -> dict[str, list[str]]:
        """What each of these clients holds, in the order in which it was given."""
        hands: dict[str, list[str]] = {client: [] for client in clients}
        for range_id, holder in self._holder.items():
            hands.setdefault(holder, []).append(range_id)
        return hands

    def holder(self, range_id: str) -> str:
        """The client that holds a range; "" when it is in nobody's hand."""
        return self._holder.get(range_id, "")

    def holds(self, range_id: str) -> bool:
        """Whether a range is in some client's hand."""
        return range_id in self._holder

    def check(self) -> None:
        """The invariants."""
        assert all(n > 0 for n in self._asked.values()), self._asked
        assert self._waiting == sum(self._asked.values()), self._waiting
        assert all(0 < n <= self._max_held for n in self._held.values()), self._held
        assert sum(self._held.values()) == len(self._holder)
