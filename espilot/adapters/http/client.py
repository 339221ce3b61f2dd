"""An event server behind the verbs of `ports.EventServer`, in whichever dialect it speaks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from espilot.adapters.http.connection import Body, Connection
from espilot.errors import ConfigError, ServerRefused, ServerUnavailable
from espilot.model import (
    ANY_ROOM,
    EventRange,
    Job,
    JobUpdate,
    ReportAnswer,
    ReportBatch,
    Room,
    TaskStatus,
)
from espilot.wire import panda_v1, panda_v1_answers
from espilot.wire.panda_answers import is_forbidden
from espilot.wire.panda_dialects import DIALECTS, Dialect, Exchange, v1_request
from espilot.wire.panda_v1 import Pilot

AUTO = "auto"
METADATA = "meta_data"
_SMALL_BYTES = 2**16
T = TypeVar("T")


class DialectChoice:
    """Which dialect a server speaks, shared by all connections to it.

    With `forced` the others are never tried. Two threads that find out at once find the same.
    """

    def __init__(self, forced: str = AUTO) -> None:
        if forced not in (AUTO, *DIALECTS):
            raise ConfigError(
                f"server.dialect: one of {', '.join((AUTO, *DIALECTS))}, not {forced!r:.40}"
            )
        self.is_forced = forced != AUTO
        self.known: Dialect | None = DIALECTS[forced] if self.is_forced else None

    def others(self, dialect: Dialect) -> list[Dialect]:
        """What can be tried when the server does not have `dialect`."""
        return [] if self.is_forced else [d for d in DIALECTS.values() if d is not dialect]


class PandaServer:
    """An event server (`ports.EventServer`).

    The dialect is probed at the first call. A server that forbids a method has been changed under
    us: its other dialect is used from then on. Not for use by two threads at once.
    """

    def __init__(
        self, connection: Connection, *, pilot: Pilot, choice: DialectChoice | None = None
    ) -> None:
        self._connection = connection
        self._pilot = pilot
        self._choice = choice or DialectChoice()

    @property
    def dialect(self) -> str:
        """Name of the dialect in use; empty before the first call."""
        return self._choice.known.name if self._choice.known is not None else ""

    def acquire_job(self, room: Room = ANY_ROOM) -> Job | None:
        """One job that fits; None when the server has none or says so."""
        return self._say(lambda dialect: dialect.acquire_job(self._pilot, room))

    def acquire_ranges(self, job: Job, n: int, known: str = "") -> tuple[EventRange, ...]:
        """Up to `n` ranges; empty means none for this job now."""
        return self._say(lambda dialect: dialect.acquire_ranges(job, n))

    def stop_asking(self, job: Job) -> None:
        """Nothing is under way between two calls."""

    def report(self, job: Job, batches: Sequence[ReportBatch]) -> ReportAnswer:
        """One bulk update with all batches; `accepted` follows the order of their ranges."""
        if not any(batch.ranges for batch in batches):
            return ReportAnswer(())
        return self._say(lambda dialect: dialect.report(job, batches))

    def range_statuses(self, job: Job, wanted: Collection[str] | None = None) -> Mapping[str, str]:
        """Status of the wanted ranges (None: all) that the job holds, by id without its attempt.

        The answer grows with the job, so a large one is not kept but read as it comes.
        """
        return self._say(lambda dialect: dialect.range_statuses(job, wanted))

    def update_job(self, job: Job, update: JobUpdate) -> str:
        """A heartbeat or the final update; the command, "" when there is none.

        An update whose metadata the server cannot store is sent again without it.
        """
        command = self._say(lambda dialect: dialect.update_job(job, update, self._pilot))
        if command is None and METADATA in update.more:
            more = {name: value for name, value in update.more.items() if name != METADATA}
            bare = replace(update, more=more)
            command = self._say(lambda dialect: dialect.update_job(job, bare, self._pilot))
        if command is None and self.dialect == "v1":
            raise ServerUnavailable("server could not take the job update")
        return command or ""

    def update_worker(self, state: str) -> None:
        """Tell that this worker of a Harvester has `started` or `finished`."""
        self._say(lambda dialect: dialect.update_worker(self._pilot, state))

    def task_status(self, task_id: int) -> TaskStatus:
        """The state of a task; only the built-in server has it."""
        request = v1_request(panda_v1.TASK_STATUS, {"task_id": task_id})
        return self._carry_out(Exchange(request, panda_v1_answers.read_task_status))

    def create_task(self, definition: Mapping[str, Any]) -> int:
        """Create a task and return its id; only the built-in server can.

        `definition` has the names of `panda_v1.CREATE_TASK`.
        """
        request = v1_request(panda_v1.CREATE_TASK, definition)
        return self._carry_out(Exchange(request, panda_v1_answers.read_task_id))

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _say(self, make: Callable[[Dialect], Exchange[T]]) -> T:
        """One call in the server's dialect; a forbidden method is tried in the other one.

        Servers look at the method's name before anything else, so nothing has been done by then.
        """
        dialect = self._choice.known or self._detect()
        for candidate in (dialect, *self._choice.others(dialect)):
            try:
                answer = self._carry_out(make(candidate))
            except MethodForbidden:
                continue
            self._choice.known = candidate
            return answer
        raise ServerRefused(
            f"{self._connection.url} does not have the methods of the dialect {dialect.name!r}"
            + ("" if self._choice.is_forced else ", nor of another one")
        )

    def _detect(self) -> Dialect:
        """The preferred dialect among those whose probe is answered.

        Any other answer than the right one means: absent. Without any answer nothing is known, and
        the next call asks again.
        """
        for dialect in DIALECTS.values():
            if self._probe(dialect):
                self._choice.known = dialect
                return dialect
        raise ServerUnavailable(
            f"{self._connection.url} is no event server, or a sick one: it answers no probe"
        )

    def _probe(self, dialect: Dialect) -> bool:
        exchange = dialect.probe()
        with self._connection.send(exchange.request) as (status, body):
            return exchange.read(status, body.read_up_to(_SMALL_BYTES))

    def _carry_out(self, exchange: Exchange[T]) -> T:
        with self._connection.send(exchange.request) as (status, body):
            return _read(exchange, status, body)


class MethodForbidden(ServerRefused):
    """The server does not have this method."""


def _read(exchange: Exchange[T], status: int, body: Body) -> T:
    head = body.read_up_to(_SMALL_BYTES)
    if is_forbidden(status, head, exchange.request.function):
        raise MethodForbidden(f"server does not have the method {exchange.request.function}")
    if len(head) < _SMALL_BYTES or status != 200:
        return exchange.read(status, head)
    body.put_back(head)
    if exchange.stream is not None:
        return exchange.stream(body)
    return exchange.read(status, body.read_all())
