"""The nouns of the event service. No behaviour beyond what a noun knows of itself.

States are named as in the life of a range: ready -> sent -> done -> packed -> staged -> reported.
Times are Unix seconds unless a name says `_ns` or `_mono`; sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple


class RangeState(Enum):
    """Where a range is. Each live range is in exactly one of these."""

    READY = "ready"
    """Fetched from the server, in nobody's hands. The dispatcher moves it on."""
    SENT = "sent"
    """In the hands of a payload client. The dispatcher moves it on."""
    DONE = "done"
    """Its outputs exist on this node. The stage-out worker packs it."""
    PACKED = "packed"
    """In a sealed archive. The stage-out worker ships it."""
    STAGED = "staged"
    """Safe on the storage element, the server not told. The event-server worker reports it."""
    FAILED = "failed"
    """The payload could not process it. The event-server worker reports it."""
    FATAL = "fatal"
    """It can never be processed. The event-server worker reports it."""


class ArchiveState(Enum):
    """Where an archive is."""

    PACKED = "packed"
    """Sealed on this node, to be shipped."""
    STAGED = "staged"
    """Verified on the storage element, to be reported."""
    REPORTED = "reported"
    """The server knows; the local files may be deleted."""


class EventRange(NamedTuple):
    """`start_event`..`last_event` (inclusive, counted from 1) of one input file."""

    id: str
    start_event: int
    last_event: int
    lfn: str
    guid: str
    scope: str
    pfn: str = ""

    @property
    def events(self) -> int:
        """Number of events in the range."""
        return self.last_event - self.start_event + 1


def feed_mark(ranges: Sequence[EventRange]) -> str:
    """What tells ranges that came together from all that came before; "" for none.

    No id is handed out twice to one job.
    """
    return f"{len(ranges)} {ranges[0].id} {ranges[-1].id}" if ranges else ""


class Output(NamedTuple):
    """One output file as it was when its range was reported done."""

    path: str
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int


class DoneRange(NamedTuple):
    """A range whose outputs wait to be packed."""

    id: str
    outputs: tuple[Output, ...]
    events: int
    done_at: float
    cpu_s: float | None = None
    wall_s: float | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of all its outputs."""
        return sum(output.size_bytes for output in self.outputs)

    @property
    def cost_s(self) -> float:
        """The CPU seconds that it took; the wall seconds where the payload did not tell."""
        return float(self.wall_s or 0.0) if self.cpu_s is None else float(self.cpu_s)


@dataclass(frozen=True, slots=True)
class FailedRange:
    """A range that ended without output, to be reported."""

    id: str
    fatal: bool
    code: int
    diag: str


@dataclass(frozen=True, slots=True)
class Archive:
    """A sealed tar of outputs. `ids` are its ranges in member order; the name never changes.

    The checksums are of the whole tar, 8 hex digits each; `crc32` is "" where nobody knows it.
    """

    name: str
    ids: tuple[str, ...]
    size_bytes: int
    adler32: str
    events: int
    state: ArchiveState = ArchiveState.PACKED
    storage_id: int | None = None
    crc32: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """What a job that is asked for may need here at most; 0: not known."""

    memory_mb: int = 0
    disk_mb: int = 0
    left_s: int = 0


ANY_ROOM = Room()


@dataclass(frozen=True, slots=True)
class Job:
    """One event job as the server handed it out (`PandaID` and what the pilot needs of the rest).

    `output_lfns` are the output names without the log, in stream order. `definition` is the job
    definition as received.
    """

    panda_id: int
    jobset_id: int
    task_id: int
    attempt_nr: int
    core_count: int
    output_lfns: tuple[str, ...]
    log_lfn: str
    input_lfns: tuple[str, ...] = ()
    event_service: bool = True
    definition: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def kind(self) -> str:
        """`event`, `merge` or `normal`; the definition decides."""
        if self.event_service:
            return "event"
        merges = self.definition.get("eventServiceMerge") in ("True", "true", True)
        return "merge" if merges else "normal"


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How the executor of a normal or merge job ended.

    `code` is a pilot error code, 0 when all is well; `exit_code` the payload's (None: it did not
    run to its end). `report` is the output report: facts by LFN. `corrupted` are inputs that must
    be made again.
    """

    panda_id: int
    attempt_nr: int
    code: int = 0
    diag: str = ""
    exit_code: int | None = None
    report: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    corrupted: tuple[str, ...] = ()
    stagein_s: float = 0.0
    payload_s: float = 0.0
    stageout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LogFate:
    """What became of the log archive of an event job.

    `entry` are its facts for the output report; empty with `lost`, the reason in words.
    """

    panda_id: int
    attempt_nr: int
    entry: Mapping[str, Any] = field(default_factory=dict)
    lost: str = ""


@dataclass(frozen=True, slots=True)
class RangeReport:
    """What is said to the server of one range; `status` is `finished`, `failed` or `fatal`."""

    id: str
    status: str
    code: int | None = None
    diag: str | None = None


PATH_CONVENTION = 1000
"""What pilots say of archives: their scope is `transient`."""


@dataclass(frozen=True, slots=True)
class ArchiveFacts:
    """What is said to the server of one archive. `storage_id` is the id of the storage endpoint,
    `path_convention` tells those who read it how the path there is made."""

    lfn: str
    size_bytes: int
    adler32: str
    storage_id: int
    events: int
    path_convention: int = PATH_CONVENTION


@dataclass(frozen=True, slots=True)
class ReportBatch:
    """Ranges reported together; with an archive, all of them are its members."""

    ranges: tuple[RangeReport, ...]
    archive: ArchiveFacts | None = None


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    """The server's answer to a list of batches.

    `accepted` has one entry per range in flattened order: True accepted (no proof that a row
    changed), None ignored, False refused. `accepted is None` means: executed or not, the answer
    does not tell; ask for the statuses. `commands` maps PandaID to `tobekilled`, `softkill`, ...
    """

    accepted: tuple[bool | None, ...] | None
    commands: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    pending: bool = False


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """One `updateJob` call: a heartbeat, or with state finished/failed the final update.

    `more` holds further fields under their v1 names (times as `YYYY-MM-DD hh:mm:ss` UTC). `ranges`
    are those finished, failed, fatal, and received in all; known at the end.
    """

    state: str
    events: int = 0
    ranges: tuple[int, int, int, int] = (0, 0, 0, 0)
    pilot_error_code: int = 0
    pilot_error_diag: str = ""
    sub_status: str = ""
    core_count: int | None = None
    cpu_s: int | None = None
    metrics: str = ""
    more: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What the built-in server knows of a task. `state` is `running`, `finished` or `failed`."""

    task_id: int
    state: str
    total: int
    finished: int
    failed: int
    fatal: int
    ready: int
    sent: int
    events_finished: int
    jobs: int
    jobs_active: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A rule's finding: what was measured, the limit it broke, and what to do about it.

    `action` is one of `end-client`, `end-payload`, `end-job`, `fail-range`, `cut` (a log), `note`;
    `code` a pilot error code; `text` one sentence that names number and limit.
    """

    rule: str
    value: float
    limit: float
    action: str
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many ranges are in each state, and the totals since the queue was made.

    `finished` ranges are reported and booked; `released` went back to the server.
    """

    ready: int
    sent: int
    done: int
    packed: int
    staged: int
    failed: int
    fatal: int
    finished: int
    failed_total: int
    fatal_total: int
    released: int
    events: int
    archives: int
    bytes: int
    moves: int

    @property
    def live(self) -> int:
        """Ranges on this node, whatever their state."""
        return (
            self.ready
            + self.sent
            + self.done
            + self.packed
            + self.staged
            + self.failed
            + self.fatal
        )


@dataclass(frozen=True, slots=True)
class AtRisk:
    """What would be lost if the node vanished now.

    `ranges` are those in hand and those made but not yet booked by the server, `cpu_s` their CPU
    seconds (of ranges in hand: the time since they were sent), `lag_s` the age of the oldest output
    among them.
    """

    ranges: int
    cpu_s: float
    lag_s: float


@dataclass(frozen=True, slots=True)
class RangeView:
    """All that the queue knows of one range; what its state does not tell is empty.

    `since` is the Unix time of its last move by payload or dispatcher.
    """

    range: EventRange
    state: RangeState
    owner: str
    epoch: int
    since: float
    outputs: tuple[Output, ...] = ()
    archive: str = ""
    code: int = 0
    diag: str = ""


UNASKED = "unasked"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The current job, its phase, and facts that must survive with it.

    With the fact `unasked` it was left by an earlier pilot, and the server was not asked about it
    yet: until then nothing of it is handed out, packed or shipped.
    """

    job: Job
    phase: str
    facts: dict[str, Any]

    @property
    def unasked(self) -> bool:
        """Whether the server is still to be asked about it."""
        return bool(self.facts.get(UNASKED))
