"""The control messages. Directives carry the whole wanted state, so a lost or repeated one is
harmless: the supervisor sends the newest to a role whenever it changes or the role says hello.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

# -- worker -> supervisor -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The role is up and its socket is open."""

    TYPE: ClassVar[str] = "hello"
    role: str
    pid: int


@dataclass(frozen=True, slots=True)
class Alive:
    """The role's loop turns. `moves` is the queue's move number (progress), `facts` its figures."""

    TYPE: ClassVar[str] = "alive"
    role: str
    moves: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listening:
    """The built-in server accepts connections at `url`; `task_id` is what it serves."""

    TYPE: ClassVar[str] = "listening"
    url: str
    task_id: int


@dataclass(frozen=True, slots=True)
class JobPhase:
    """The event-server worker's job is in this phase (`panda_id` 0: it has none).

    `command` is what the server ordered: `tobekilled`, `softkill` or nothing. `kind` is `event`,
    or for a job with an executor of its own `normal` or `merge`; `executed`: that one has ended.
    """

    TYPE: ClassVar[str] = "job-phase"
    panda_id: int
    task_id: int
    phase: str
    command: str = ""
    kind: str = "event"
    executed: bool = False


@dataclass(frozen=True, slots=True)
class Resumed:
    """The server was asked about the job that an earlier pilot left, before any hand-out.

    Ranges that it still holds open for us, has booked, and no longer holds (given back); archives
    that nobody wants. `gone`: the server has given the job up.
    """

    TYPE: ClassVar[str] = "resumed"
    panda_id: int
    held: int
    booked: int
    given_back: int
    orphans: int
    gone: bool


@dataclass(frozen=True, slots=True)
class TaskOver:
    """The task needs no more jobs; `status` holds the fields of `model.TaskStatus`."""

    TYPE: ClassVar[str] = "task-over"
    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bound:
    """The dispatcher listens on the channel of this epoch."""

    TYPE: ClassVar[str] = "bound"
    epoch: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The channel of an ended payload is drained; `returned` sent ranges became ready."""

    TYPE: ClassVar[str] = "settled"
    epoch: int
    returned: int
    ready: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """The client `pid` (0: not known) has held this range too long; said again until it has not."""

    TYPE: ClassVar[str] = "overdue"
    epoch: int
    pid: int
    range_id: str
    held_s: float
    limit_s: float


@dataclass(frozen=True, slots=True)
class StorageHealth:
    """The state of the storage, and why.

    It is `ok`; `behind`: it takes outputs too slowly, or `trouble`: it takes none (take no more
    ranges); or `given-up` (tell the clients).
    """

    TYPE: ClassVar[str] = "storage-health"
    state: str
    reason: str = ""


# -- supervisor -> worker -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Serve:
    """What the dispatcher shall do with the channel of this epoch.

    `mode`: `serve` hand out and take outcomes; `outcomes` take outcomes, answer no request;
    `no-more` take outcomes, answer every request with *no more* (`reason`); `settle` the payload
    is reaped: drain until silent, then its sent ranges become ready (suspects with reason `crash`;
    `killed` is any other end that was not by exit code 0).
    """

    TYPE: ClassVar[str] = "serve"
    epoch: int
    channel: str
    mode: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What the event-server worker shall do.

    `fetch`: ask for ranges; `jobs`: take a further job after this one; `payload_over`: the payload
    of the current job will not run again, settle the job; `code` and `diag`: why the job ends, if
    it is not its natural end; `drained`: only if no range was finished; `hurry_s`: no call may take
    longer, 0 as usual; `over`, `late`: why never again a job is taken (the run drains; too little
    time is left for one), or nothing; `final_by`: monotonic time at which the final update waits
    for no log archive any more, 0 for none; `end_mono`: about when this run must be over, 0 when
    nobody says; `jobs_taken`: jobs of this run so far, which began at `since_mono`.
    """

    TYPE: ClassVar[str] = "work"
    panda_id: int
    fetch: bool
    jobs: bool
    payload_over: bool
    code: int = 0
    diag: str = ""
    over: str = ""
    late: str = ""
    drained: bool = False
    hurry_s: float = 0.0
    final_by: float = 0.0
    end_mono: float = 0.0
    jobs_taken: int = 0
    since_mono: float = 0.0


@dataclass(frozen=True, slots=True)
class Used:
    """What the payload has used so far, by the names of `core.usage.Totals`."""

    TYPE: ClassVar[str] = "used"
    totals: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ship:
    """What the stage-out worker shall do: no output waits longer than this to be packed."""

    TYPE: ClassVar[str] = "ship"
    max_age_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """End in good order, now."""

    TYPE: ClassVar[str] = "stop"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Bell:
    """Something of interest is in the queue; read it. May be lost."""

    TYPE: ClassVar[str] = "bell"
    role: str


# -- people -> supervisor, and the answers ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """How does the pilot stand? Answered with `StatusAnswer`."""

    TYPE: ClassVar[str] = "status-request"


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """What only the living supervisor knows; the figures of ranges are in the queue."""

    TYPE: ClassVar[str] = "status-answer"
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DrainRequest:
    """Drain, within `deadline` if it says one; with `plan_only` just tell the plan."""

    TYPE: ClassVar[str] = "drain-request"
    deadline: str
    plan_only: bool


@dataclass(frozen=True, slots=True)
class DrainAnswer:
    """The plan of the drain; the fields of `core.drain.Plan`, its steps as maps."""

    TYPE: ClassVar[str] = "drain-answer"
    pid: int
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is not carried out; `reason` is one line for people."""

    TYPE: ClassVar[str] = "refused"
    reason: str


TYPES: dict[str, type[Any]] = {
    kind.TYPE: kind
    for kind in (
        Hello,
        Alive,
        Listening,
        JobPhase,
        TaskOver,
        Bound,
        Settled,
        Overdue,
        StorageHealth,
    )
} | {kind.TYPE: kind for kind in (Serve, Work, Ship, Used, Stop, Bell, Resumed)}
TYPES |= {kind.TYPE: kind for kind in (StatusRequest, StatusAnswer, Refused)}
TYPES |= {kind.TYPE: kind for kind in (DrainRequest, DrainAnswer)}
