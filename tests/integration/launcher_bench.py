"""What the tests of the launcher share: payloads, and a stand-in for the supervisor."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from espilot.adapters import process, proctree
from espilot.supervisor import launcher

DEADLINE_S = 20.0
# Writes its pid to the file "up" when it is ready, then waits for ever.
UP = "import os\nopen('u', 'w').write(str(os.getpid()))\nos.rename('u', 'up')\n"
WAIT = UP + "import signal\nwhile True: signal.pause()\n"
IGNORE_TERM = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT
# A daemon in a session of its own that ignores TERM: only the run id and the subreaper know it.
DAEMON = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open('daemon.tmp', 'w').write(str(os.getpid()))
        os.rename('daemon.tmp', 'daemon')
        while True: signal.pause()
    os._exit(0)
os.wait()
"""


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Wait until the condition is true, at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        select.select([], [], [], 0.005)
    return value


class Bench:
    """Starts launchers in the role of the supervisor, and ends whatever a test leaves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.result_path = directory / "result.json"
        self.run_id = f"test-{uuid.uuid4().hex}"
        self.death = process.DeathPipe()
        self.children: list[process.Child] = []

    def argv(self, payload: list[str], *, grace_s: float = 5.0, **options: Any) -> list[str]:
        return launcher.command(
            payload,
            directory=self.directory,
            result=self.result_path,
            death_fd=options.pop("death_fd", self.death.read_fd),
            grace_s=grace_s,
            **options,
        )

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "ESPILOT_RUN_ID": self.run_id}

    def start(self, payload: list[str], **options: Any) -> process.Child:
        child = process.spawn(
            self.argv(payload, **options), env=self.env, pass_fds=[self.death.read_fd]
        )
        self.children.append(child)
        return child

    def python(self, code: str, **options: Any) -> process.Child:
        return self.start([sys.executable, "-S", "-c", code], **options)

    def wait(self, child: process.Child) -> int:
        """The exit code of the launcher."""
        ready, _, _ = select.select([child.pidfd], [], [], DEADLINE_S)
        assert ready, "the launcher does not end"
        return dict(process.reap())[child.pid]

    def result(self) -> dict[str, Any]:
        return json.loads(self.result_path.read_text())

    def file(self, name: str) -> str:
        path = self.directory / name
        eventually(path.exists, f"file {name}")
        return path.read_text()

    def main(self, child: process.Child) -> proctree.Process:
        """The payload's main process, once it says that it is up."""
        main = proctree.look_up(int(self.file("up")))
        assert main is not None
        assert main.ppid == child.pid
        return main

    def clean(self) -> None:
        for child in self.children:
            child.signal(signal.SIGKILL)
            select.select([child.pidfd], [], [], DEADLINE_S)
            child.close()
        _, left = proctree.kill_until_gone(lambda: proctree.carriers(self.run_id), 10)
        process.reap()
        self.death.close()
        assert not left


def gone(bench: Bench) -> bool:
    return not proctree.carriers(bench.run_id)


def benches(directory: Path) -> Iterator[Bench]:
    """One bench, cleaned up afterwards; no child and no file descriptor may be left behind."""
    before = set(os.listdir("/proc/self/fd"))
    bench = Bench(directory)
    try:
        yield bench
    finally:
        bench.clean()
    with suppress(ChildProcessError):
        assert not os.waitpid(-1, os.WNOHANG), "a child was left behind"
    assert set(os.listdir("/proc/self/fd")) <= before
