"""When the next job is asked for, at a server that has jobs of many tasks.

Rules:
* After a request without a job the next one comes after a pause, which doubles up to a limit.
* A job that failed counts like no job: a node on which every job fails must not eat up the queue's.
* A job that was finished ends the pauses.
* After a number of jobs, of requests in a row without one, or a time, no more are wanted.
"""

from __future__ import annotations

from espilot.config import JobsConfig
from espilot.core.retry import Backoff


class JobRequests:
    """Counts jobs and requests; `over` says why no more are wanted."""

    def __init__(self, config: JobsConfig) -> None:
        self.over = ""
        self._config = config
        # The back-off's first pause is between its shortest and twice that.
        self._backoff = Backoff.between(config.pause_min_s, config.pause_max_s)
        self._jobs = 0
        self._empty = 0
        self._vain = 0

    def had(self, jobs: int, lasted_s: float) -> None:
        """No job is here; the run has had so many, in whatever process, and began so long ago."""
        jobs = max(jobs, self._jobs)
        if jobs and self._config.floor_s and lasted_s >= self._config.floor_s:
            self.over = f"jobs were taken for {lasted_s:.0f} s"
        if self._config.at_most and jobs >= self._config.at_most:
            self.over = f"{jobs} jobs are done, as many as were wanted"

    def no_job(self, chance: float) -> float:
        """The server had none; the pause in seconds."""
        self._empty += 1
        if self._config.requests and self._empty >= self._config.requests:
            self.over = f"{self._empty} requests in a row brought no job"
        return self._pause(chance)

    def job_begun(self) -> None:
        """The server had one."""
        self._empty = 0
        self._jobs += 1

    def job_ended(self, *, good: bool, chance: float) -> float:
        """A job ended, a good one with something made; the pause in seconds, 0 for none."""
        if good:
            self._vain = 0
            return 0.0
        return self._pause(chance)

    def _pause(self, chance: float) -> float:
        self._vain += 1
        return self._backoff.next_delay(self._vain, chance) or self._config.pause_max_s
