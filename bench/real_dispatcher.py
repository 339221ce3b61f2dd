"""The real dispatcher process, with this process in the place of the supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.children import END_S, ROOT, BenchChild, BenchError, running
from espilot.adapters.control import ControlRouter
from espilot.adapters.process import DeathPipe
from espilot.config import Settings
from espilot.wire import envelope
from espilot.wire.messages import Bound, Hello, Serve, Stop
from espilot.workers.context import Context

START_MS = 30_000


class Supervision:
    """Starts the dispatcher, opens its channel, stops it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._death = DeathPipe()
        self._control = ControlRouter(context.runtime)
        context_file = context.runtime / "context.json"
        context.write(context_file)
        argv = [sys.executable, "-m", "espilot.workers", "dispatcher", str(context_file)]
        argv += [str(os.getpid()), str(self._death.read_fd)]
        self.process = subprocess.Popen(
            argv, cwd=ROOT, pass_fds=(self._death.read_fd,), start_new_session=True
        )

    def open_channel(self, channel: str) -> None:
        """Have it serve a channel; returns when it does."""
        self._await(Hello)
        self._send(Serve(1, channel, "serve"))
        self._await(Bound)

    def close(self) -> None:
        """Stop it; kill it if it does not end."""
        self._send(Stop())
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._control.close()
        self._death.close()

    def _send(self, message: Serve | Stop) -> None:
        self._control.send("dispatcher", envelope.encode(message))

    def _await(self, kind: type) -> None:
        while self._control.socket.poll(START_MS):
            for _, data in self._control.receive():
                if isinstance(envelope.decode(data), kind):
                    return
        raise BenchError(f"the dispatcher does not say {kind.__name__}")


@contextmanager
def real_dispatcher(root: Path, channel: str, ranges: int) -> Iterator[BenchChild]:
    """The dispatcher on a filled queue, and the process that takes what is done."""
    context = make_context(root)
    with running("rest_of_pilot", context.queue, context.runtime, ranges) as rest:
        rest.hear()
        supervision = Supervision(context)
        try:
            supervision.open_channel(channel)
            yield rest
        finally:
            supervision.close()


def make_context(root: Path) -> Context:
    """Directories of a run below `root`."""
    context = Context(root, root / "state", root / "run", str(root / "storage"), Settings())
    for path in (context.state, context.runtime, context.logs):
        path.mkdir(mode=0o700)
    return context
