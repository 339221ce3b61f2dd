"""A small pilot for tests of payloads: a real ROUTER that speaks both dialects, and children."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import zmq

from espilot.errors import MessageError
from espilot.model import EventRange
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text
from espilot.wire.payload import Failed, Finished, Hello, Ready

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


def make_ranges(n: int, events: int = 1) -> list[EventRange]:
    """Ranges 1..n of `events` events each, as a server would name them."""
    return [
        EventRange(f"7-11-13-{i}-1", 1 + (i - 1) * events, i * events, "in.root", "AB-CD", "user")
        for i in range(1, n + 1)
    ]


class PilotStub:
    """Hands out ranges and remembers all it hears; `on_message` may answer first."""

    def __init__(self, ranges: Sequence[EventRange], output_dir: Path, **job: Any) -> None:
        self.name = f"t-{uuid.uuid4().hex}"
        self.left = deque(ranges)
        self.output_dir = output_dir
        self.job = {"PandaID": 5, "taskID": 7, "outputs": ["out.dat"]} | job
        self.heard: list[Any] = []
        self.unusable: list[bytes] = []
        self.identities: set[bytes] = set()
        self.on_message: Callable[[bytes, Any], bool] = lambda identity, said: False
        self.stdout: int | IO[bytes] = subprocess.PIPE  # a pipe holds 64 KiB until the end
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.router_mandatory = True
        self.socket.maxmsgsize = 2**20
        self.socket.rcvhwm = 0
        self.socket.bind(f"ipc:///tmp/zmq_{self.name}")
        self._natives: set[bytes] = set()

    def close(self) -> None:
        """Close the socket and remove its file."""
        self.socket.close()
        self._context.term()
        Path(f"/tmp/zmq_{self.name}").unlink(missing_ok=True)

    @property
    def finished(self) -> list[Finished]:
        """The outputs reported."""
        return [said for said in self.heard if isinstance(said, Finished)]

    @property
    def failed(self) -> list[Failed]:
        """The failures reported."""
        return [said for said in self.heard if isinstance(said, Failed)]

    def environment(self, **more: str) -> dict[str, str]:
        """What the pilot exports to a payload."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ESPILOT", "PILOT"))}
        mine = {"PILOT_EVENTRANGECHANNEL": self.name, "PYTHONPATH": str(ROOT)}
        return kept | mine | {"ESPILOT_OUTPUT_DIR": str(self.output_dir)} | more

    def start(self, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a payload in a session of its own."""
        return subprocess.Popen(
            [sys.executable, *command],
            env=self.environment(**more),
            stdout=self.stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd=self.output_dir,
        )

    def serve(
        self, process: subprocess.Popen[bytes], until: Callable[[], bool] = lambda: False
    ) -> None:
        """Serve until the process has ended and the socket is silent, or until the condition."""
        pidfd = os.pidfd_open(process.pid)
        poller = zmq.Poller()
        poller.register(self.socket, zmq.POLLIN)
        poller.register(pidfd, zmq.POLLIN)
        deadline = time.monotonic() + DEADLINE_S
        try:
            while not until():
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"deadline; heard {self.heard[-5:]}"
                ready = dict(poller.poll(int(left_s * 1000) + 1))
                if self.socket in ready:
                    self._hear()
                elif pidfd in ready and not self.socket.poll(50):
                    return
        finally:
            os.close(pidfd)

    def _hear(self) -> None:
        identity, message = self.socket.recv_multipart()
        self.identities.add(identity)
        if native.is_native(message) and identity not in self._natives:
            self._natives.add(identity)
        parse = native.parse if identity in self._natives else text.parse
        try:
            said = parse(message)
        except MessageError:
            self.unusable.append(message)
            return
        self.heard.append(said)
        if self.on_message(identity, said):
            return
        if isinstance(said, Hello):
            self.send(identity, native.welcome(self.job, str(self.output_dir), {}, 600.0))
        elif isinstance(said, Ready):
            self._hand_out(identity, said.n)

    def _hand_out(self, identity: bytes, n: int) -> None:
        granted = [self.left.popleft() for _ in range(min(n, len(self.left)))]
        if identity in self._natives:
            if granted:
                self.send(identity, native.ranges(granted))
            if len(granted) < n:
                self.send(identity, native.no_more("done"))
        else:
            self.send(identity, text.range_reply(granted[0]) if granted else text.NO_MORE)

    def send(self, identity: bytes, message: bytes) -> None:
        """Send to a client; one that has gone is no error."""
        with suppress(zmq.ZMQError):
            self.socket.send_multipart([identity, message], zmq.NOBLOCK)


def end(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """End a payload's process group, whatever it does; return what it wrote."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    return process.communicate()
