"""Figures for metrics that are read from files: free space, the present job, the story's sums."""

from __future__ import annotations

import os
import time
from typing import Any

from espilot.adapters.disk import free_bytes
from espilot.adapters.state_files import read_job
from espilot.adapters.story import NAME, StoryReader
from espilot.view.story_figures import StoryFigures
from espilot.workers.context import Context

TOLD_S = 1.0
"""So long after a move all roles have told of it."""
MOST_BYTES = 16 << 20
"""Of the story at one time: a long one that is found is read in pieces."""


class NodeFigures:
    """Measures in a thread of the exporter, since a disk may hang. Errors: `OSError` and ours."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._story = StoryReader(context.state / NAME)
        self._figures = StoryFigures()

    def measure(self) -> dict[str, Any]:
        """All of them, as a copy that nobody changes any more."""
        self._figures.take(self._story.read(MOST_BYTES), time.time() - TOLD_S)
        return {
            "free_bytes": free_bytes(self._context.workdir),
            "job": self._job(),
            "story": self._figures.facts(),
        }

    def close(self) -> None:
        """Let go of the story."""
        self._story.close()

    def _job(self) -> dict[str, str]:
        job, environ = read_job(self._context.job_file), os.environ
        return {
            "jobset_id": str(job.jobset_id) if job is not None else "",
            "queue": self._context.settings.server.site,
            "harvester_id": environ.get("HARVESTER_ID", ""),
            "worker_id": environ.get("HARVESTER_WORKER_ID", ""),
        }
