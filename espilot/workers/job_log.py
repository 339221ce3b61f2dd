"""The log archive of a job: packed, cleaned of secrets, and shipped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from espilot.adapters.archive.logs import pack_logs
from espilot.config import dump_settings
from espilot.logs import Log
from espilot.model import Job, JobRecord
from espilot.view.redaction import redact
from espilot.wire.jobfiles import read_endpoints_out
from espilot.workers.access_point import access_point
from espilot.workers.context import Context
from espilot.workers.known_secrets import secrets_of
from espilot.workers.shipping import CheckedOutput, shipping_of

AT_END, MEANWHILE = "pl", "pls"
"""Activities of the endpoints that take the log archive of a job, and those made while it runs."""


def log_wanted(context: Context, job: Job) -> bool:
    """Whether this event job has a log archive that we make; beside Harvester it makes its own."""
    return bool(job.event_service and job.log_lfn) and access_point(context.server_url) is None


def pack_job_log(
    context: Context, job: Job, directories: Sequence[Path], *, name: str, limit_bytes: int
) -> CheckedOutput:
    """Pack the pilot's log and those in the payload's directories as `name`; `LocalError`.

    The file is the caller's to remove.
    """
    target = context.workdir / f".{name}"
    known = secrets_of(
        {"settings": dump_settings(context.settings), "jobdir": str(context.jobdir)}, os.environ
    )
    size_bytes, adler32 = pack_logs(
        target,
        f"job-{job.panda_id}",
        [context.log_file, *directories],
        leave_out={*job.output_lfns, *job.input_lfns},
        clean=partial(redact, known=known),
        limit_bytes=limit_bytes,
    )
    return CheckedOutput(name, target, size_bytes, adler32)


def ship_job_log(
    context: Context, job: Job, directories: Sequence[Path], log: Log, *, limit_bytes: int
) -> dict[str, Any]:
    """Pack and ship the log archive; its entry in the output report.

    It goes to the storage that the job asks for, else to one for log archives. `StorageError`,
    `LocalError`, `ConfigError`.
    """
    packed = pack_job_log(context, job, directories, name=job.log_lfn, limit_bytes=limit_bytes)
    try:
        endpoint = read_endpoints_out(job.definition).get(job.log_lfn, "")
        entry = shipping_of(context, AT_END, log).ship(packed, endpoint=endpoint)
    finally:
        packed.path.unlink(missing_ok=True)
    guid = job.definition.get("logGUID")
    return entry | ({"guid": guid} if isinstance(guid, str) and guid else {})


def epoch_before(record: JobRecord) -> int:
    """The last start of a payload before the job; of an older pilot's job all count."""
    epoch = record.facts.get("epoch", 0)
    return epoch if isinstance(epoch, int) else 0


def payload_directories(context: Context, after: int) -> list[Path]:
    """The directories of the payload's starts after this epoch, the newest first."""
    found = []
    for path in context.workdir.glob("payload-*"):
        number = path.name.removeprefix("payload-")
        if number.isdecimal() and int(number) > after and path.is_dir():
            found.append((int(number), path))
    return [path for _, path in sorted(found, reverse=True)]
