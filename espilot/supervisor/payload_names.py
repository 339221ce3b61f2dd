"""Variables by which payloads know a stock pilot, its job and its places."""

from __future__ import annotations

from espilot import __version__
from espilot.model import Job
from espilot.supervisor.roles import PACKAGE_ROOT
from espilot.workers.context import Context


def stock_names(context: Context, job: Job | None, channel: str) -> dict[str, str]:
    """Their names and values; without a job those of the job are left out."""
    cores = str(context.settings.payload.cores)
    names = {
        "PILOT_EVENTRANGECHANNEL": channel,
        "PILOT_HOME": str(context.workdir.parent),
        "PILOT_WORK_DIR": str(context.workdir),
        "PILOT_SOURCE_DIR": str(PACKAGE_ROOT),
        "PILOT_VERSION": __version__,
        "PILOT_USER": "generic",
        "PILOT_SITENAME": context.settings.server.site,
        "ATHENA_CORE_NUMBER": cores,
    }
    if job is not None:
        names |= {"PandaID": str(job.panda_id), "PANDAID": str(job.panda_id)}
        names |= {"PanDA_TaskID": str(job.task_id)}
    return names
