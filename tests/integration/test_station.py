"""The dispatcher's station: real sockets, clients in processes of their own, real files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from queue_oracle import JOB, make_ranges, range_id

from espilot.adapters.loop import Loop
from espilot.adapters.story import Story
from espilot.check import session
from espilot.config import PayloadConfig, Settings, TaskConfig
from espilot.errors import LocalError
from espilot.model import RangeState
from espilot.queue.store import Queue
from espilot.wire import payload_native as native
from espilot.wire.messages import Serve, Settled
from espilot.workers import dispatcher as module
from espilot.workers.context import Context
from espilot.workers.dispatcher import Dispatcher, Station
from espilot.workers.output_watch import HOLD_S, OutputWatch

LFN = JOB.output_lfns[0]
CLIENT = """
import os, sys, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.linger = 0
socket.connect("ipc:///tmp/zmq_" + sys.argv[1])
def ask():
    socket.send(b"Ready for events")
    print(socket.recv().decode(), flush=True)
for line in sys.stdin:
    exec(line)
"""


class Notes:
    """A log that keeps what it is told."""

    job = None

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def info(self, what: str, text: str, **facts: Any) -> None:
        """Nothing of interest."""

    def warning(self, what: str, text: str, **facts: Any) -> None:
        """One more warning."""
        self.warnings.append(f"{text}: {facts}")


class House:
    """A process with a dispatcher and nothing else, and its clients."""

    def __init__(self, directory: Path, **payload: Any) -> None:
        self.settings = Settings(
            task=TaskConfig(name="x", events=1), payload=PayloadConfig(command="x", **payload)
        )
        self.context = Context(
            workdir=directory,
            state=directory / "state",
            runtime=directory / "runtime",
            storage="",
            settings=self.settings,
        )
        for path in (self.context.state, self.context.runtime):
            path.mkdir()
        self.queue = Queue(directory / "queue", map_bytes=4 << 20)
        self.loop, self.log = Loop(), Notes()
        self.story = Story(directory / "story", "dispatcher")
        self.facts: dict[str, Any] = {}
        self.told: list[Any] = []
        self.channel = f"t-{uuid.uuid4().hex}"
        self.dispatcher = Dispatcher(self)  # type: ignore[arg-type]
        self.clients: list[subprocess.Popen[str]] = []

    @property
    def station(self) -> Station:
        """The one of now."""
        assert self.dispatcher.station is not None
        return self.dispatcher.station

    def send(self, message: Any) -> None:
        """What the supervisor would hear."""
        self.told.append(message)

    def ring(self, role: str) -> None:
        """Nobody else is here."""

    def put(self, n: int, phase: str = "exhausted") -> None:
        """The server gives n ranges, and has no more unless it says so."""
        with self.queue.moves() as moves:
            moves.set_job(JOB, phase, {})
            moves.put_ranges(make_ranges(1, n), now=1.0)

    def serve(self, mode: str = "serve", reason: str = "", epoch: int = 1) -> None:
        """A directive of the supervisor."""
        channel = self.channel if epoch == 1 else f"{self.channel}-{epoch}"
        self.dispatcher.serve(Serve(epoch, channel, mode, reason))

    def settle(self, reason: str = "") -> None:
        """The payload has ended."""
        self.serve("settle", reason)
        self.turn_until(lambda: any(isinstance(each, Settled) for each in self.told))

    def start(self) -> subprocess.Popen[str]:
        """A client that does what it is told, line by line."""
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, self.channel],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.clients.append(client)
        return client

    def tell(self, client: subprocess.Popen[str], *lines: str) -> None:
        """Let a client do this."""
        assert client.stdin is not None
        client.stdin.writelines(f"{line}\n" for line in lines)
        client.stdin.flush()

    def write(self, number: int) -> str:
        """What a client does to write half a file, and leave it open."""
        path = self.context.payload_dir(1) / f"{LFN}.{range_id(number)}"
        return f"file = open({str(path)!r}, 'w'); file.write('data'); file.flush(); print('wrote')"

    def state(self, number: int) -> RangeState | None:
        """Where a range is."""
        return self.queue.state(range_id(number))

    def turn_until(self, condition: Callable[[], object], within_s: float = 20.0) -> None:
        """Turn the loop until the condition holds."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, "did not come"
            self.loop.call_later(0.01, lambda: None)
            self.loop.turn()

    def turn_for(self, duration_s: float) -> None:
        """Turn the loop for so long."""
        end = time.monotonic() + duration_s
        self.turn_until(lambda: time.monotonic() >= end)

    def turn_until_gone(self, client: subprocess.Popen[str]) -> None:
        """Turn until a client's process has ended and the dispatcher is done with it."""
        self.turn_until(lambda: client.poll() is not None)
        self.turn_until(lambda: not self.station.dispatch.clients)

    def close(self) -> None:
        """Nothing is left."""
        for client in self.clients:
            client.kill()
            client.communicate()
        self.dispatcher.close()
        self.queue.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Makes houses that end with the test."""
    houses: list[House] = []

    def build(**payload: Any) -> House:
        houses.append(House(tmp_path, **payload))
        return houses[-1]

    yield build
    for house in houses:
        house.close()


# -- a station that is closed -----------------------------------------------------------------


def test_nothing_is_done_on_a_closed_channel(make: Callable[..., House]) -> None:
    """What was due when the epoch was over, the commit of what was read, a client's death and the
    drain, does not touch the channel any more."""
    house = make()
    house.put(1)
    house.serve()
    client = house.start()
    house.tell(client, "ask()")
    house.turn_until(lambda: house.state(1) is RangeState.SENT)
    closed = house.station
    house.tell(client, f"socket.send({native.failed('unknown', 1, 'x')!r})", "print('sent')")
    house.turn_until(lambda: closed._settling is not None)
    house.serve("settle")
    assert closed.settled is None
    house.loop.call_later(0.0, partial(closed._client_died, client.pid))
    closed._settling = house.loop.call_later(0.0, closed._settle)
    house.serve(epoch=2)
    house.turn_for(3 * module.SILENCE_S)
    assert house.station.epoch == 2 and closed.channel.socket.closed
    assert not any(isinstance(each, Settled) for each in house.told)


def test_who_is_closed_serves_nobody(make: Callable[..., House]) -> None:
    """Closing twice, and a bell that rings after it, do nothing."""
    house = make()
    house.put(1)
    house.serve()
    station = house.station
    house.dispatcher.close()
    station.close()
    house.dispatcher.look()
    assert house.dispatcher.station is None


# -- clients that cannot be watched -----------------------------------------------------------


def test_a_client_that_cannot_be_watched_is_served(
    make: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor for it the client is served all the same; that is said once, and what it
    holds comes back at the payload's end."""

    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    house = make()
    house.put(2)
    house.serve()
    client = house.start()
    monkeypatch.setattr(os, "pidfd_open", refuse)
    house.tell(client, "ask()")
    house.turn_until(lambda: house.state(1) is RangeState.SENT)
    house.station._watch(client.pid)
    house.station._watch(client.pid)
    (warning,) = house.log.warnings
    assert "client is not watched" in warning and "Too many open files" in warning
    client.kill()
    house.settle("crash")
    assert house.state(1) is RangeState.READY


def test_a_client_in_another_pid_namespace_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`espilot check-payload` goes on without a watch as well."""

    def refuse(pid: int) -> int:
        raise LocalError("cannot watch")

    monkeypatch.setattr(session, "pidfd_open", refuse)
    watching = SimpleNamespace(_pidfds={})
    session.Session._watch(watching, 4711)  # type: ignore[arg-type]
    assert watching._pidfds == {}


# -- files of clients that end ----------------------------------------------------------------


@pytest.fixture(params=["known", "not known"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kernel that tells how processes ended, and one that does not."""
    if request.param != "known":
        monkeypatch.setattr(module, "ended_well", lambda pid, pidfd: None)
    return str(request.param)


def refused_in_work(house: House) -> subprocess.Popen[str]:
    """A client that has one range in hand, half a file of it, and heard that there are no more."""
    house.put(1)
    house.serve()
    client = house.start()
    house.tell(client, "ask()", house.write(1), "ask()")
    house.turn_until(lambda: any(c.refused for c, _ in house.station.dispatch.hands()))
    return client


@pytest.mark.parametrize("reason", ["", "crash"])
def test_half_a_file_of_a_refused_client_that_was_killed(
    make: Callable[..., House], kernel: str, reason: str
) -> None:
    """Who heard *no more* and is killed while it writes has closed half a file: it does not count,
    at the latest when the payload has ended badly."""
    house = make(outputs="closed")
    client = refused_in_work(house)
    client.kill()
    house.turn_until_gone(client)
    house.turn_for(3 * HOLD_S)
    assert house.state(1) is (RangeState.READY if kernel == "known" else RangeState.SENT)
    if kernel == "known" or reason:
        house.settle(reason)
        assert house.state(1) is RangeState.READY


@pytest.mark.parametrize("reason", ["", "crash"])
def test_the_last_file_of_a_refused_client_that_ended_well(
    make: Callable[..., House], kernel: str, reason: str
) -> None:
    """Its last file counts, however shortly before the end it was closed: at once, or where nobody
    knows how the client ended, with the good end of the payload."""
    house = make(outputs="closed")
    client = refused_in_work(house)
    house.tell(client, "file.close(); sys.exit(0)")
    house.turn_until_gone(client)
    assert house.state(1) is (RangeState.DONE if kernel == "known" else RangeState.SENT)
    house.settle(reason)
    counts = kernel == "known" or not reason
    assert house.state(1) is (RangeState.DONE if counts else RangeState.READY)


def test_a_refused_client_without_a_file(make: Callable[..., House], kernel: str) -> None:
    """A range that a refused client had not begun to write is ready again at once."""
    house = make(outputs="closed")
    house.put(1)
    house.serve()
    client = house.start()
    house.tell(client, "ask()", "ask()")
    house.turn_until(lambda: any(c.refused for c, _ in house.station.dispatch.hands()))
    client.kill()
    house.turn_until(lambda: house.state(1) is RangeState.READY)


def test_half_a_file_of_a_client_that_cannot_be_told(make: Callable[..., House]) -> None:
    """A client is killed, and a reply that it does not get says so first: its range is another
    one's, its half file is not."""
    house = make(outputs="closed")
    house.put(1)
    house.serve()
    client = house.start()
    house.tell(client, "ask()", house.write(1))
    assert client.stdout is not None
    told: list[str] = []
    house.turn_until(lambda: house.state(1) is RangeState.SENT)
    told += [client.stdout.readline(), client.stdout.readline()]
    assert told[1] == "wrote\n"
    ((holder, _),) = house.station.dispatch.hands()
    house.loop.forget(house.station._pidfds[client.pid])
    client.kill()
    client.wait()
    other = house.start()
    house.turn_until(lambda: house.station.channel.send(holder.identity, b"?").value == "gone")
    house.station._send([(holder.identity, b"?")])
    assert house.state(1) is RangeState.READY
    house.tell(other, "ask()")
    house.turn_until(lambda: house.state(1) is RangeState.SENT)
    house.turn_for(3 * HOLD_S)
    assert house.state(1) is RangeState.SENT
    house.tell(other, house.write(1), "file.close()")
    house.turn_until(lambda: house.state(1) is RangeState.DONE)


def test_nobody_is_waited_for_without_a_range(make: Callable[..., House]) -> None:
    """A client that ended with empty hands is done with at once."""
    house = make(outputs="closed")
    watch = OutputWatch(house.context.payload_dir(1), "closed", house.loop, _NoOwner())
    assert watch.doubt(set()) == watch.expect(set()) == 0.0
    assert watch.await_end(set()) == set()
    watch.close()


class _NoOwner:
    """Has no job."""

    def output_lfns(self) -> tuple[str, ...]:
        return ()

    def is_in_hand(self, range_id: str) -> bool:
        return False

    def found(self, outcomes: list[Any]) -> None:
        raise AssertionError(outcomes)

    def complain(self, text: str, what: str = "") -> None:
        raise AssertionError(text)
