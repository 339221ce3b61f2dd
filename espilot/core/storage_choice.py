"""Which storage element an archive goes to, try by try.

Rules:
* Endpoints have activities. Outputs go to those of `es_events`, where there are none to those of
  `pw`; when these fail, within the same stage-out, to those of `es_failover`.
* One stage-out tries an endpoint up to `attempts` times, with pauses; a hopeless error ends that at
  once. Then comes the next endpoint, without a pause. When all are spent the stage-out has failed,
  and after a long pause the next one begins.
* An endpoint whose circuit is open is passed over while another one is left. With nowhere else to
  go its circuit does not matter: the pauses between tries are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from espilot.core.circuit import Circuit
from espilot.core.retry import Backoff


def order_endpoints(activities: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Put the names of endpoints in the order in which outputs go to them."""

    def serving(activity: str) -> list[str]:
        return [name for name, served in activities.items() if activity in served]

    primary = serving("es_events") or serving("pw")
    return tuple(dict.fromkeys([*primary, *serving("es_failover")]))


@dataclass(slots=True)
class Route:
    """How far one stage-out has come: failed tries by endpoint, and endpoints that are spent."""

    attempts: dict[str, int] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class NextTry:
    """What follows a failed try: a pause, and whether the whole stage-out has failed."""

    wait_s: float
    failed: bool


class StorageChoice:
    """Chooses among endpoints in their order; decides, does nothing."""

    __slots__ = ("_backoff", "_circuits", "_names")

    def __init__(
        self, names: Sequence[str], backoff: Backoff, *, limit: int, open_s: float
    ) -> None:
        if not names:
            raise ValueError("no endpoint to choose")
        self._names = tuple(names)
        self._backoff = backoff
        self._circuits = {name: Circuit(limit=limit, open_s=open_s) for name in names}

    @property
    def circuits(self) -> Mapping[str, Circuit]:
        """The circuit of each endpoint."""
        return self._circuits

    def choose(self, route: Route, now: float) -> str:
        """Name the endpoint of the next try, which begins now."""
        left = [name for name in self._names if name not in route.spent]
        chosen = next((name for name in left if self._circuits[name].allows(now)), left[0])
        self._circuits[chosen].begin(now)
        return chosen

    def succeeded(self, name: str) -> None:
        """Note that a transfer succeeded."""
        self._circuits[name].succeeded()

    def failed(
        self,
        route: Route,
        name: str,
        *,
        hopeless: bool,
        now: float,
        chance: float,
        wanted_s: float = 0.0,
    ) -> NextTry:
        """Note a failed try; `wanted_s` is the pause that the endpoint asked for."""
        self._circuits[name].failed(now)
        attempts = route.attempts[name] = route.attempts.get(name, 0) + 1
        delay_s = self._backoff.next_delay(attempts, chance)
        if delay_s is not None and not hopeless:
            return NextTry(max(delay_s, min(wanted_s, self._backoff.max_s)), failed=False)
        route.spent.add(name)
        if route.spent.issuperset(self._names):
            route.spent.clear()
            route.attempts.clear()
            return NextTry(self._backoff.max_s, failed=True)
        return NextTry(0.0, failed=False)
