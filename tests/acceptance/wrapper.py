"""Plays the wrapper of a factory: how it starts its pilot, forwards signals and maps exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot_run import FAKE, ROOT, end_processes_of, eventually
from tarball import PILOT_PY

WRAPPER = """\
#!/bin/bash
# In the background of a shell without job control: SIGINT and SIGQUIT arrive ignored.
for s in INT QUIT BUS USR1 SEGV USR2 TERM CONT XCPU; do trap "kill -s $s \\$pilot" $s; done
"$PYTHON" pilot3/pilot.py "$@" &
pilot=$!
echo $pilot > pilot-pid
while kill -0 $pilot 2> /dev/null; do wait $pilot; code=$?; done
echo $code > pilot-code
case $code in 82) exit 0;; 130) exit 2;; 143|137) exit 1;; *) exit $code;; esac
"""
FIRST = [
    "-q", "QUEUE", "-i", "PR", "-j", "managed", "-t", "-w", "generic", "--pilot-user", "ATLAS",
    "-d", "--newest-option", "5",
]  # fmt: skip
NODE = {
    "ESPILOT_LIMITS_FREE_START_BYTES": "0",
    "ESPILOT_LIMITS_FREE_BYTES": "0",
    "ESPILOT_PACKING_MAX_RANGES": "20",
    "ESPILOT_PACKING_MAX_AGE_S": "0.5",
    "ESPILOT_PAYLOAD_TERM_GRACE_S": "2",
    "ESPILOT_PAYLOAD_CORES": "2",
    "ESPILOT_SERVER_RETRY_MIN_S": "0.1",
    "ESPILOT_SERVER_RETRY_MAX_S": "0.5",
    "ESPILOT_JOBS_PAUSE_MIN_S": "0.1",
    "ESPILOT_JOBS_PAUSE_MAX_S": "0.2",
}


@dataclass(slots=True)
class Play:
    """One wrapper and the pilot below it, in a directory of their own."""

    process: subprocess.Popen[bytes]
    here: Path

    @property
    def pilot_pid(self) -> int:
        """The pilot's process."""
        path = self.here / "pilot-pid"
        return int(eventually(lambda: path.exists() and path.read_text().strip(), what="pilot"))

    def forward(self, number: signal.Signals) -> None:
        """The batch system signals the wrapper."""
        self.process.send_signal(number)

    def end(self, timeout_s: float = 60.0) -> tuple[int, int]:
        """Exit codes of pilot and wrapper."""
        try:
            wrapper = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end:\n{self.stderr[-4000:]}\n{self.log}") from None
        return int((self.here / "pilot-code").read_text()), wrapper

    @property
    def report(self) -> dict[str, Any]:
        """The exit report."""
        report: dict[str, Any] = json.loads((self.here / "espilot-exit.json").read_text())
        return report

    @property
    def stderr(self) -> str:
        """What the pilot said."""
        return (self.here / "stderr").read_text()

    @property
    def log(self) -> str:
        """The wrapper's log file."""
        path = self.here / "pilotlog.txt"
        return path.read_text() if path.exists() else ""


@contextmanager
def play(
    directory: Path, *options: str, payload: str = FAKE, env: dict[str, str] | None = None
) -> Iterator[Play]:
    """Start a wrapper with these options for the pilot; nothing of it stays."""
    here = directory / "access"
    (here / "pilot3").mkdir(parents=True, exist_ok=True)
    (here / "pilot3" / "pilot.py").write_text(PILOT_PY)
    (here / "pilot3" / "bin").symlink_to(ROOT / "bin")
    (here / "wrapper.sh").write_text(WRAPPER)
    node = {key: os.environ[key] for key in ("PATH", "HOME", "PYTHONPATH") if key in os.environ}
    node |= {"PYTHON": sys.executable, "ESPILOT_PAYLOAD_COMMAND": payload, **NODE}
    node |= {"ESPILOT_STORAGE": str(directory / "storage"), **(env or {})}
    with (here / "stdout").open("wb") as stdout, (here / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            ["bash", "wrapper.sh", *FIRST, *options],
            cwd=here,
            env=node,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    running = Play(process, here)
    try:
        yield running
    finally:
        if process.poll() is None:
            os.kill(running.pilot_pid, signal.SIGKILL)
            process.wait(20)
        end_processes_of(here)
