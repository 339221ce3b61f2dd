"""A run of the pilot as its users start it, with hands to reach its processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import run_oracle

ROOT = Path(__file__).resolve().parents[2]
ESPILOT = [sys.executable, str(ROOT / "bin" / "espilot")]
FAKE = f"{sys.executable} {ROOT / 'bin' / 'fake-payload'}"
END_S = 60.0

ROLE_WORDS = {
    "dispatcher": "espilot.workers dispatcher",
    "event-server": "espilot.workers event-server",
    "stageout": "espilot.workers stageout",
    "builtin-server": "espilot.workers builtin-server",
    "launcher": "espilot.supervisor.launcher",
}


def eventually(condition: Callable[[], Any], timeout_s: float = 30.0, what: str = "") -> Any:
    """Wait until the condition holds; returns its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not come within {timeout_s} s: {what}"
        time.sleep(0.01)
    return value


def job_text(
    command: str, *, events: int = 200, extra: str = "", **sections: dict[str, Any]
) -> str:
    """A job file for the fake payload with small archives; `sections` override settings."""
    tables: dict[str, dict[str, Any]] = {
        "task": {"name": "faults", "events": events},
        "payload": {"command": command, "cores": 2, "term_grace_s": 2.0},
        "packing": {"max_ranges": 20, "max_age_s": 0.5},
        "stageout": {"retry_min_s": 0.1, "retry_max_s": 0.3},
        "server": {"retry_min_s": 0.1, "retry_max_s": 0.5},
        # Tests run on small disks too; those of the free space say otherwise.
        "limits": {"free_start_bytes": 0, "free_bytes": 0},
    }
    for name, values in sections.items():
        tables.setdefault(name, {}).update(values)
    lines = [extra]
    for name, values in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class Run:
    """One process of the pilot and its directories."""

    process: subprocess.Popen[bytes]
    workdir: Path
    state: Path
    storage: Path
    stdout_path: Path
    stderr_path: Path
    database: Path
    runtimes: set[str] = field(default_factory=set)

    @property
    def log(self) -> str:
        """The pilot's log of all roles."""
        path = self.workdir / "logs" / "pilot.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def stdout(self) -> str:
        return self.stdout_path.read_text()

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text()

    @property
    def summary(self) -> dict[str, Any]:
        """The summary object."""
        return run_oracle.summary_of(self.stdout)

    @property
    def booked(self) -> int:
        """Ranges that the server has booked as finished."""
        return run_oracle.booked(self.database)

    def pid_of(self, role: str) -> int | None:
        """The process of a role: a worker, `launcher`, `payload`, `client`, or `supervisor`."""
        if role == "supervisor":
            return self.process.pid
        if role in ("payload", "client"):
            parent = self.pid_of("launcher" if role == "payload" else "payload")
            return next(iter(run_oracle.children_of(parent)), None) if parent else None
        for pid, command in run_oracle.children_of(self.process.pid).items():
            if ROLE_WORDS[role] in command:
                return pid
        return None

    def wait_booked(self, n: int) -> None:
        """Wait until the server has booked n ranges."""
        eventually(lambda: self.booked >= n or self.ended, what=f"{n} ranges\n{self.log[-3000:]}")
        self.note_runtime()

    @property
    def ended(self) -> bool:
        """Whether the pilot has ended."""
        return self.process.poll() is not None

    def note_runtime(self) -> None:
        """Remember the runtime directory, to see that it goes away."""
        try:
            self.runtimes.add(json.loads((self.state / "pilot.json").read_text())["runtime"])
        except (OSError, ValueError):
            return

    def kill(self, role: str, number: int = signal.SIGKILL) -> int:
        """Signal the process of a role; returns its pid."""
        self.note_runtime()
        pid = eventually(lambda: self.pid_of(role), what=f"{role} runs")
        os.kill(pid, number)
        return int(pid)

    def wait_replaced(self, role: str, pid: int, timeout_s: float = 20.0) -> int:
        """Wait until another process has the role; returns its pid."""
        return int(
            eventually(
                lambda: (new := self.pid_of(role)) and new != pid and new,
                timeout_s,
                f"{role} replaced",
            )
        )

    def end(self, timeout_s: float = END_S) -> int:
        """Wait for the pilot's end; its exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the pilot does not end:\n{self.log[-6000:]}") from None

    def account(self) -> run_oracle.Account:
        """The accounting after the end; nothing may be left behind but archives of the queue."""
        account = run_oracle.take_account(self.database, self.storage)
        run_oracle.require_nothing_left(self.workdir, self.state, self.runtimes)
        return account

    def require_finished(
        self, total: int, *, lfns: tuple[str, ...] = ("output",), size_bytes: int = 100
    ) -> None:
        """Exit code 0, and every range is finished with the right outputs."""
        code = self.end()
        assert code == 0, f"exit {code}: {self.stderr[-2000:]}\n{self.log[-6000:]}"
        account = self.account()
        assert len(account.with_fate("finished")) == total
        run_oracle.require_contents(account, lfns=lfns, size_bytes=size_bytes)
        assert self.summary["state"] == "finished"
        assert self.summary["ranges"]["finished"] == total


class Runner:
    """Starts runs below one directory and ends whatever is left of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.workdir = directory / "w"
        self.runs: list[Run] = []

    def start(
        self,
        job: str,
        *arguments: str,
        env: dict[str, str] | None = None,
        program: list[str] | None = None,
        cwd: Path | None = None,
    ) -> Run:
        """Start the pilot with this job in the one work directory."""
        number = len(self.runs)
        job_file = self.directory / "job.toml"
        job_file.write_text(job)
        files = self.directory / f"stdout-{number}", self.directory / f"stderr-{number}"
        argv = [
            *(program or ESPILOT),
            "run",
            "--local",
            str(job_file),
            "--workdir",
            str(self.workdir),
            "--json",
        ]
        with files[0].open("wb") as stdout, files[1].open("wb") as stderr:
            process = subprocess.Popen(
                [*argv, *arguments],
                stdout=stdout,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        state = self.workdir / "state"
        run = Run(
            process,
            self.workdir,
            state,
            self.workdir / "storage",
            *files,
            database=state / "server.sqlite",
        )
        self.runs.append(run)
        return run

    def finish(self, job: str, total: int, *arguments: str, **wanted: Any) -> Run:
        """Run undisturbed and require that every range is finished."""
        run = self.start(job, *arguments)
        run.require_finished(total, **wanted)
        return run

    def close(self) -> None:
        """End what still runs, the pilots first."""
        for run in self.runs:
            if not run.ended:
                run.process.kill()
                run.process.wait()
        end_processes_of(self.workdir)
        for name in set(re.findall(r"EventService_EventRanges-[0-9a-f]{32}", self._logs())):
            Path("/tmp", f"zmq_{name}").unlink(missing_ok=True)

    def _logs(self) -> str:
        return "".join(run.log for run in self.runs[-1:])


def end_processes_of(workdir: Path) -> None:
    """KILL every process that names the work directory, by pid, until none is left."""
    deadline = time.monotonic() + 10.0
    while (left := run_oracle.processes_of(workdir)) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


@contextmanager
def runner_in(directory: Path) -> Iterator[Runner]:
    """A runner that leaves nothing behind."""
    runner = Runner(directory)
    try:
        yield runner
    finally:
        runner.close()
