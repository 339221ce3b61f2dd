"""What the pipeline needs of the world, as Protocols; adapters and the queue fulfil them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from espilot.model import (
    ANY_ROOM,
    Archive,
    ArchiveState,
    Counts,
    DoneRange,
    EventRange,
    FailedRange,
    Job,
    JobRecord,
    JobUpdate,
    Output,
    RangeState,
    ReportAnswer,
    ReportBatch,
    Room,
    TaskStatus,
)


class EventServer(Protocol):
    """The event server, whatever its dialect.

    Each call ends within its time-out. `ServerUnavailable`: outcome unknown, try again or verify;
    `ServerRefused`: the server said no.
    """

    def acquire_job(self, room: Room = ANY_ROOM) -> Job | None:
        """Ask for one job that fits; None when the server has none (or says so)."""
        ...

    def acquire_ranges(self, job: Job, n: int, known: str = "") -> tuple[EventRange, ...] | None:
        """Ask for up to `n` ranges; empty means: none for this job now.

        None: asked, and not answered yet; call again. `known` is the `feed_mark` of the last ranges
        that are safe in the queue.
        """
        ...

    def stop_asking(self, job: Job) -> None:
        """Take back a request for ranges that is under way; what comes all the same is kept."""
        ...

    def report(self, job: Job, batches: Sequence[ReportBatch]) -> ReportAnswer:
        """Report ranges; repeating the same content is harmless, and wanted while it is pending."""
        ...

    def range_statuses(self, job: Job, wanted: Collection[str] | None = None) -> Mapping[str, str]:
        """The server's status of the wanted ranges (None: all) that this job holds.

        Keys are the first four parts of the id: a fatal report rewrites the fifth.
        """
        ...

    def update_job(self, job: Job, update: JobUpdate) -> str:
        """Send a heartbeat or the final update; returns the command (`""` when there is none)."""
        ...

    def update_worker(self, state: str) -> None:
        """Tell that this worker of a Harvester has `started` or `finished`."""
        ...

    def task_status(self, task_id: int) -> TaskStatus:
        """The state of a task; only the built-in server has it."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Storage(Protocol):
    """One storage element. Names are flat; a repeated put of the same name overwrites itself.

    Errors: `StorageRetryable` (may work later), `StorageFatal` (will not). May be used by several
    threads at once, for different names. What each kind must do is in
    `adapters/storage/contract.py`, as checks that run.
    """

    @property
    def url(self) -> str:
        """Where it is, without secrets."""
        ...

    @property
    def storage_id(self) -> int:
        """The id of the endpoint, for reports."""
        ...

    def put(
        self, source: Path, name: str, *, size_bytes: int, adler32: str, crc32: str = ""
    ) -> None:
        """Upload `source` as `name` and verify it there by size and adler32.

        Nothing partial is ever visible under `name`. The CRC32 spares storages that know it from
        reading the source before they send it; "" where nobody knows it.
        """
        ...

    def verify(self, name: str, *, size_bytes: int, adler32: str) -> None:
        """Require that `name` is there with this content; `StorageRetryable` if it is not."""
        ...

    def get(self, name: str, target: Path, *, size_bytes: int, adler32: str) -> None:
        """Download `name` to `target`, verified; nothing partial ever has that path.

        Also `LocalError`: this node cannot take it.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove `name`; a missing one is no error."""
        ...

    def url_of(self, name: str) -> str:
        """The address of `name`, without secrets, for programs that read it themselves."""
        ...

    def close(self) -> None:
        """Close the connections; the storage may be used again afterwards."""
        ...


class OutputTaker(Protocol):
    """Looks at an output that a payload named."""

    def inspect(self, path: str) -> Output:
        """The file's facts; `OutputError` says why it cannot be taken."""
        ...


class Moves(Protocol):
    """One write transaction on the queue; what each verb promises is in `queue/moves.py`."""

    def __enter__(self) -> Moves: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def put_ranges(self, ranges: Iterable[EventRange], *, now: float) -> int: ...

    def take(self, owners: Sequence[str], *, epoch: int, now: float) -> list[EventRange]: ...

    def take_suspect(self, owner: str, *, epoch: int, now: float) -> EventRange | None: ...

    def finish(
        self,
        range_id: str,
        *,
        epoch: int,
        outputs: tuple[Output, ...],
        now: float,
        facts: tuple[int | None, float | None, float | None] = ...,
    ) -> bool: ...

    def fail(self, failure: FailedRange, *, epoch: int, now: float) -> bool: ...

    def return_sent(
        self, *, epoch: int | None = ..., owner: str | None = ..., before: int | None = ...
    ) -> list[str]: ...

    def return_ranges(self, ids: Iterable[str], *, epoch: int, crashed: bool = ...) -> int: ...

    def crashes(self, range_id: str, *, epoch: int) -> int: ...

    @property
    def ready(self) -> int: ...

    def drop(self, range_id: str, failure: FailedRange | None, *, now: float) -> None: ...

    def forget_failures(self, ids: Iterable[str]) -> int: ...

    def give_back(self, state: RangeState) -> list[str]: ...

    def give_back_ranges(self, ids: Iterable[str]) -> int: ...

    def pack(self, archive: Archive) -> None: ...

    def staged(self, name: str, *, storage_id: int) -> None: ...

    def reported(self, name: str, *, refused: frozenset[str] = ...) -> None: ...

    def abandon_archive(self, name: str) -> None: ...

    def forget_archive(self, name: str) -> None: ...

    def note_feed(self, mark: str) -> None: ...

    def set_job(self, job: Job, phase: str, facts: Mapping[str, Any]) -> None: ...

    def set_phase(self, phase: str) -> None: ...

    def phase(self) -> str: ...

    def clear_job(self) -> None: ...

    def set_epoch(self, epoch: int) -> None: ...


class RangeQueue(Protocol):
    """The shared-memory queue; what each verb promises is in `queue/store.py`."""

    def moves(self) -> Moves: ...

    def sync(self) -> None: ...

    def counts(self) -> Counts: ...

    def job(self) -> JobRecord | None: ...

    def phase(self) -> str: ...

    def done(self, after: int = ...) -> tuple[list[DoneRange], int]: ...

    def failures(self) -> list[FailedRange]: ...

    def archives(self, state: ArchiveState | None = ..., limit: int = ...) -> list[Archive]: ...
