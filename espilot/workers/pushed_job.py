"""A job that a factory has left in a file (`pandaJobData.out`), instead of one asked for.

The file is put away when the queue holds its job: until then a death of ours loses nothing, and
afterwards nobody runs it again.
"""

from __future__ import annotations

from pathlib import Path

from espilot.errors import MessageError, ServerUnavailable
from espilot.model import Job
from espilot.wire.jobdef import read_job
from espilot.wire.jobtext import read_definition

KEPT_AS = "job_definition.json"
MOST_BYTES = 64 * 2**20


class PushedJob:
    """The file, of which there may be none; the settings name it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> Job | None:
        """The job in the file; None while there is none. ServerUnavailable: it holds none yet."""
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                data = file.read(MOST_BYTES)
            return read_job(read_definition(data.decode("utf-8", "replace")))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ServerUnavailable(f"cannot read {self._path}: {error.strerror}") from error
        except MessageError as error:
            raise ServerUnavailable(f"{self._path} is no job definition: {error}") from error

    def taken(self, job: Job) -> None:
        """The queue holds this job: its file, if it is the file's, is put away.

        ServerUnavailable: it cannot be.
        """
        if self._path is None:
            return
        found = self.read()
        if found is not None and found.panda_id == job.panda_id:
            try:
                self._path.replace(self._path.with_name(KEPT_AS))
            except OSError as error:
                text = f"cannot put {self._path} away: {error.strerror}"
                raise ServerUnavailable(text) from error
