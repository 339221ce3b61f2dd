"""What the pipeline needs of the world, as Protocols; adapters and the queue fulfil them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from espilot.model import (
    EventRange,
    Job,
    JobUpdate,
    ReportAnswer,
    ReportBatch,
    TaskStatus,
)


class EventServer(Protocol):
    """The event server, whatever its dialect.

    Each call ends within its time-out. `ServerUnavailable`: outcome unknown, try again or verify;
    `ServerRefused`: the server said no.
    """

    def acquire_job(self) -> Job | None:
        """Ask for one job; None when the server has none (or says so)."""
        ...

    def acquire_ranges(self, job: Job, n: int) -> tuple[EventRange, ...]:
        """Ask for up to `n` ranges; empty means: none for this job now."""
        ...

    def report(self, job: Job, batches: Sequence[ReportBatch]) -> ReportAnswer:
        """Report ranges; repeating the same content is harmless."""
        ...

    def range_statuses(self, job: Job) -> Mapping[str, str]:
        """The server's status of each range this job holds, by range id without its attempt number.

        Keys are the first four parts of the id: a fatal report rewrites the fifth.
        """
        ...

    def update_job(self, job: Job, update: JobUpdate) -> str:
        """Send a heartbeat or the final update; returns the command (`""` when there is none)."""
        ...

    def task_status(self, task_id: int) -> TaskStatus:
        """The state of a task; only the built-in server has it."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Storage(Protocol):
    """One storage element. Names are flat; a repeated put of the same name overwrites itself.

    Errors: `StorageRetryable` (may work later), `StorageFatal` (will not).
    """

    @property
    def url(self) -> str:
        """Where it is, without secrets."""
        ...

    @property
    def storage_id(self) -> int:
        """The id of the endpoint, for reports."""
        ...

    def put(self, source: Path, name: str, *, size_bytes: int, adler32: str) -> None:
        """Upload `source` as `name` and verify it there by size and adler32.

        Nothing partial is ever visible under `name`.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove `name`; a missing one is no error."""
        ...
