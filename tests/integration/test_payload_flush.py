"""The end of a payload's client: what was sent is delivered, whatever signals come meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from payload_stub import DEADLINE_S, PilotStub, end, make_ranges

from espilot.payload import client as module
from espilot.payload.client import Client
from espilot.wire import payload_native as native
from espilot.wire.payload import Failed

ROOT = Path(__file__).resolve().parents[2]
LAST_WORDS = native.failed("1-2-3-4-1", 1305, "last words")

ALARMED = """
import os, signal, sys
from espilot.payload.client import Client, channel_address
from espilot.wire import payload_native as native

alarms = []

def on_alarm(number, frame):
    alarms.append(number)
    if len(alarms) == 10:
        os.write(1, b"now\\n")

signal.signal(signal.SIGALRM, on_alarm)
client = Client(channel_address(None), slots=1, name="")
client.send(native.failed("1-2-3-4-1", 1305, "last words"))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
client.close()
signal.setitimer(signal.ITIMER_REAL, 0)
"""

RAISING = """
import os, signal
from espilot.payload.client import Client, channel_address
from espilot.wire import payload_native as native

def on_alarm(number, frame):
    raise TimeoutError

signal.signal(signal.SIGALRM, on_alarm)
client = Client(channel_address(None), slots=1, name="")
client.send(native.failed("1-2-3-4-1", 1305, "last words"))
try:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    client.close()
except TimeoutError:
    os.write(1, b"now\\n")
client.close()
"""

TERMINATED = """
import os, signal
from espilot.payload import EventRanges
from espilot.wire import payload_native as native

ranges = EventRanges()
ranges._client.send(native.failed("1-2-3-4-1", 1305, "last words"))
handle_term = signal.getsignal(signal.SIGTERM)

def on_term(number, frame):
    os.write(1, b"now\\n")
    handle_term(number, frame)

signal.signal(signal.SIGTERM, on_term)
signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
signal.setitimer(signal.ITIMER_REAL, 0.2)
"""


def start(name: str, code: str) -> subprocess.Popen[bytes]:
    """Start a payload whose pilot is not there yet."""
    mine = {"PILOT_EVENTRANGECHANNEL": name, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | mine,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def heard_late(name: str, process: subprocess.Popen[bytes]) -> list[bytes]:
    """Be there from the payload's sign on, to its end; what was heard."""
    assert process.stdout is not None
    assert process.stdout.readline() == b"now\n"
    path = Path(f"/tmp/zmq_{name}")
    pidfd = os.pidfd_open(process.pid)
    heard = []
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        router.bind(f"ipc://{path}")
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        poller.register(pidfd, zmq.POLLIN)
        deadline = time.monotonic() + DEADLINE_S
        while (left_s := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(int(left_s * 1000) + 1))
            if router in ready:
                heard.append(router.recv_multipart()[1])
            elif not router.poll(50):
                break
    os.close(pidfd)
    path.unlink(missing_ok=True)
    return heard


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        pytest.param(ALARMED, 0, id="handlers return"),
        pytest.param(RAISING, 0, id="handler raises"),
        pytest.param(TERMINATED + "ranges.close()", 143, id="term at close"),
        pytest.param(TERMINATED, 0, id="term at exit"),
    ],
)
def test_signals_cut_no_flush_short(code: str, exit_code: int) -> None:
    """The pilot comes after the signal, and still hears the last outcome."""
    name = f"t-{uuid.uuid4().hex}"
    process = start(name, code)
    try:
        heard = heard_late(name, process)
    finally:
        _, err = end(process)
    assert (process.returncode, err) == (exit_code, b"")
    assert heard[-1:] == [LAST_WORDS]


HURRIED = """
import signal
from espilot.payload import client as module

signal.alarm(50)
module.TERM_FLUSH_S = 0.1
client = module.Client("ipc:///tmp/zmq_nobody-is-here", slots=1, name="")
client.close(3600, lambda: True)
"""


def test_who_is_told_to_end_waits_no_longer() -> None:
    """Without a pilot the time after SIGTERM is short, however long it was to be before."""
    process = start("", HURRIED)
    try:
        process.wait(DEADLINE_S)
    finally:
        _, err = end(process)
    assert (process.returncode, err) == (0, b"")


def no_thread(*arguments: object) -> int:
    """What an interpreter at its very end says."""
    raise RuntimeError("can't create new thread at interpreter shutdown")


@pytest.mark.parametrize("refusal", [None, no_thread])
def test_the_flush_needs_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., int] | None
) -> None:
    """Where none can be started it is done without; no signal stays blocked. Twice is no harm."""
    if refusal:
        monkeypatch.setattr(module._thread, "start_new_thread", refusal)
    stub = PilotStub(make_ranges(1), tmp_path)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        client = Client(f"ipc:///tmp/zmq_{stub.name}", slots=1, name="")
        client.send(LAST_WORDS)
        client.close()
        client.close()
        assert client.closed
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        assert stub.socket.poll(DEADLINE_S * 1000)
        stub.socket.recv_multipart()
        assert native.parse(stub.socket.recv_multipart()[1]) == Failed(
            "1-2-3-4-1", 1305, "last words", False
        )
    finally:
        stub.close()
