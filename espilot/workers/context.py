"""What a worker is told at its start: where things are, and the settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from espilot.config import Settings, dump_settings, read_settings
from espilot.errors import LocalError


@dataclass(frozen=True, slots=True)
class Context:
    """Paths and settings of one run; `server_url` and `task_id` once they are known.

    `origin` is the state directory with the built-in server's database, where it is another one;
    `jobs`: whether further jobs are taken after the one that was found; `at_server`: they are
    those of a foreign server, of whatever task. `journal` is our name in the machine's journal,
    "" when nothing is logged there.
    """

    workdir: Path
    state: Path
    runtime: Path
    storage: str
    settings: Settings
    server_url: str = ""
    task_id: int = 0
    jobdir: Path = Path()
    origin: Path | None = None
    jobs: bool = True
    at_server: bool = False
    journal: str = ""

    @property
    def queue(self) -> Path:
        """The queue's directory."""
        return self.state / "queue"

    @property
    def archives(self) -> Path:
        """Where sealed archives wait."""
        return self.state / "archives"

    @property
    def database(self) -> Path:
        """The built-in server's database."""
        return (self.origin or self.state) / "server.sqlite"

    @property
    def job_file(self) -> Path:
        """The present job, on disk for the case that the machine crashes."""
        return self.state / "job.json"

    @property
    def outcome_file(self) -> Path:
        """How the present job ended, if it is not of events."""
        return self.state / "outcome.json"

    @property
    def log_fate_file(self) -> Path:
        """What became of the log archive of the present job, if it is of events."""
        return self.state / "log.json"

    @property
    def logs(self) -> Path:
        """Where the pilot's own log is."""
        return self.workdir / "logs"

    @property
    def log_file(self) -> Path:
        """The pilot's log, of all roles."""
        return self.logs / "pilot.log"

    @property
    def private(self) -> tuple[Path, ...]:
        """Directories in which no payload output can lie."""
        storage = (Path(self.storage),) if self.storage.startswith("/") else ()
        return (self.state, self.runtime, self.logs, *storage)

    @property
    def inputs(self) -> Path:
        """Where the inputs of event jobs are brought to."""
        return self.workdir / "inputs"

    @property
    def outputs(self) -> Path:
        """Where outputs are unpacked to at the end, if that is wanted."""
        return self.workdir / "outputs"

    def payload_dir(self, epoch: int) -> Path:
        """The directory of one start of the payload."""
        return self.workdir / f"payload-{epoch}"

    def write(self, path: Path) -> None:
        """Store for a worker. `LocalError`: it cannot be stored; what was stored before stays."""
        fields = {
            "workdir": str(self.workdir),
            "state": str(self.state),
            "runtime": str(self.runtime),
            "storage": self.storage,
            "settings": dump_settings(self.settings),
            "server_url": self.server_url,
            "task_id": self.task_id,
            "jobdir": str(self.jobdir),
            "origin": str(self.origin) if self.origin else None,
            "jobs": self.jobs,
            "at_server": self.at_server,
            "journal": self.journal,
        }
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            temporary.write_text(json.dumps(fields))
            temporary.replace(path)
        except OSError as error:
            raise LocalError(
                f"cannot write {path}: {error.strerror}; make room on the disk of {path.parent}"
            ) from error


def read_context(path: Path) -> Context:
    """What `Context.write` stored."""
    fields = json.loads(path.read_text())
    fields["settings"] = read_settings(fields["settings"], str(path))
    for name in ("workdir", "state", "runtime", "jobdir"):
        fields[name] = Path(fields[name])
    if fields["origin"] is not None:
        fields["origin"] = Path(fields["origin"])
    return Context(**fields)
