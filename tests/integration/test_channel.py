"""The payload channel on real sockets: what yampl's ZeroMQ plug-in puts on the wire, and abuse."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from patience import eventually

from espilot.adapters.channel import (
    MAX_MESSAGE_BYTES,
    MAX_NAME,
    Incoming,
    PayloadChannel,
    Sending,
    peer_pid,
    socket_path,
)
from espilot.errors import LocalError, UsageError

BURST = 5000
CLIENT = """
import sys, zmq
address, identity, *words = sys.argv[1:]
context = zmq.Context()
client = context.socket(zmq.DEALER)
if identity:
    client.setsockopt(zmq.IDENTITY, identity.encode() + b"\\0")
client.connect(address)
"""
SAY_AND_STAY = "client.send(words[0].encode()); sys.stdin.read()"
PILOT_INSIDE = """
import sys
from espilot.adapters.channel import PayloadChannel
channel = PayloadChannel(sys.argv[1])
channel.socket.poll(20_000)
for came in channel.receive(1):
    print(came.message.decode(), came.pid)
channel.close()
"""
BURST_AND_EXIT = f"[client.send(b'%d' % n) for n in range({BURST})]; client.close(); context.term()"


def new_name() -> str:
    """An unguessable channel name."""
    return f"t-{uuid.uuid4().hex}"


@pytest.fixture
def channel() -> Iterator[PayloadChannel]:
    """A channel of the pilot."""
    channel = PayloadChannel(new_name())
    yield channel
    channel.close()


class Clients:
    """DEALERs as payloads make them."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.sockets: list[zmq.Socket[bytes]] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def connect(self, channel: PayloadChannel, **options: int | bytes) -> zmq.Socket[bytes]:
        """A DEALER of this process."""
        return self.dial(f"ipc://{channel.path}", **options)

    def dial(self, address: str, **options: int | bytes) -> zmq.Socket[bytes]:
        """A DEALER connected to any address."""
        dealer = self.context.socket(zmq.DEALER)
        self.sockets.append(dealer)
        for name, value in options.items():
            dealer.setsockopt(getattr(zmq, name), value)
        dealer.connect(address)
        return dealer

    def start(
        self, channel: PayloadChannel, act: str, *words: str, identity: str = ""
    ) -> subprocess.Popen[bytes]:
        """A client in a process of its own."""
        command = [sys.executable, "-c", CLIENT + act, f"ipc://{channel.path}", identity, *words]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        self.processes.append(process)
        return process

    def close(self) -> None:
        """Nothing is left."""
        for dealer in self.sockets:
            dealer.close(linger=0)
        self.context.term()
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Clients that end with the test."""
    clients = Clients()
    yield clients
    clients.close()


def hear(channel: PayloadChannel, n: int = 1, *, limit: int = 512) -> list[Incoming]:
    """The next n messages."""
    heard: list[Incoming] = []
    while len(heard) < n:
        assert channel.socket.poll(10_000), f"{len(heard)} of {n} messages came"
        heard += channel.receive(min(limit, n - len(heard)))
    return heard


def test_two_frames_and_no_delimiter(channel: PayloadChannel, clients: Clients) -> None:
    """A client's message is one frame after its identity, and so is the reply."""
    client = clients.connect(channel)
    client.send(b"Ready for events")
    (came,) = hear(channel)
    assert (came.message, came.extra_frames) == (b"Ready for events", 0)
    assert (len(came.identity), came.identity[0]) == (5, 0)
    assert channel.send(came.identity, b"No more events") is Sending.SENT
    assert client.poll(10_000)
    assert client.recv_multipart() == [b"No more events"]


def test_order_and_empty_messages(channel: PayloadChannel, clients: Clients) -> None:
    """Messages of one client arrive in order, empty ones included."""
    client = clients.connect(channel)
    sent = [b"", b"1", b"", b"2", b"\0" * 10]
    for message in sent:
        client.send(message)
    assert [m.message for m in hear(channel, len(sent))] == sent


def test_receive_takes_no_more_than_asked(channel: PayloadChannel, clients: Clients) -> None:
    """The limit of a batch holds; the rest waits; without messages nothing blocks."""
    assert channel.receive(10) == []
    client = clients.connect(channel)
    for n in range(7):
        client.send(b"%d" % n)
    first = hear(channel, 5)
    assert [m.message for m in first + hear(channel, 2)] == [b"%d" % n for n in range(7)]
    assert channel.receive(10) == []


def test_extra_frames_do_not_shift_messages(channel: PayloadChannel, clients: Clients) -> None:
    """Frames too many are counted and left out; the next message is read as it is."""
    client = clients.connect(channel)
    client.send_multipart([b"first", b"extra", b"more"])
    client.send(b"second")
    first, second = hear(channel, 2)
    assert (first.message, first.extra_frames) == (b"first", 2)
    assert (second.message, second.extra_frames) == (b"second", 0)


def test_any_identity(channel: PayloadChannel, clients: Clients) -> None:
    """Identities are opaque: long ones and odd bytes are answered like others."""
    for identity in (b"name\0", b"\xff" * 255, b"x"):
        client = clients.connect(channel, IDENTITY=identity)
        client.send(b"hello")
        (came,) = hear(channel)
        assert came.identity == identity
        assert channel.send(identity, identity) is Sending.SENT
        assert client.poll(10_000) and client.recv() == identity


def test_pid_of_the_peer(channel: PayloadChannel, clients: Clients) -> None:
    """The process of a client is known at its first message; a name is looked at each time."""
    first = clients.connect(channel)
    first.send(b"a")
    first.send(b"b")
    assert [m.pid for m in hear(channel, 2)] == [os.getpid(), None]
    process = clients.start(channel, SAY_AND_STAY, "hello")
    assert [m.pid for m in hear(channel)] == [process.pid]
    named = clients.connect(channel, IDENTITY=b"name\0")
    named.send(b"a")
    named.send(b"b")
    assert [m.pid for m in hear(channel, 2)] == [os.getpid()] * 2


@pytest.mark.parametrize("name", [b"\0", b"\0abc", b"\0abcde", b"abcde"])
def test_a_name_is_looked_at_each_time(
    channel: PayloadChannel, clients: Clients, name: bytes
) -> None:
    """Also one that begins like ZeroMQ's own identities may pass to another process."""
    client = clients.connect(channel, IDENTITY=name)
    client.send(b"a")
    client.send(b"b")
    assert [(m.identity, m.pid) for m in hear(channel, 2)] == [(name, os.getpid())] * 2


@pytest.mark.parametrize(
    ("address", "pid"),
    [("10:20:30", None), ("localhost:0:0:4711", 4711), ("localhost:0:0:0", None), ("", None)],
)
def test_a_process_that_the_kernel_does_not_name(address: str, pid: int | None) -> None:
    """A client in a PID namespace that we cannot see has the pid 0 here: nobody's."""

    class Frame:
        def get(self, what: str) -> str:
            return address

    assert peer_pid(Frame()) == pid


@pytest.mark.skipif(shutil.which("unshare") is None, reason="SKIPPED LOUDLY: no unshare(1)")
def test_a_client_of_another_pid_namespace(clients: Clients) -> None:
    """The pilot is in a namespace of its own, its client outside: the message is read all the
    same, and the client's process is not known."""
    name = new_name()
    unshare = ["unshare", "--fork", "--pid", sys.executable, "-c", PILOT_INSIDE, name]
    pilot = subprocess.Popen(unshare, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    clients.processes.append(pilot)
    clients.dial(f"ipc://{socket_path(name)}").send(b"hello")
    told, why = pilot.communicate(timeout=30)
    if b"unshare failed" in why:
        pytest.skip(f"SKIPPED LOUDLY: no PID namespace here: {why!r}")
    assert told.split() == [b"hello", b"None"], why


def test_a_name_is_handed_over(channel: PayloadChannel, clients: Clients) -> None:
    """A restarted client under its old name takes over while the old one still lives."""
    old = clients.start(channel, SAY_AND_STAY, "old", identity="worker")
    (came,) = hear(channel)
    new = clients.connect(channel, IDENTITY=b"worker\0")
    new.send(b"new")
    (again,) = hear(channel)
    assert (came.identity, came.pid) == (b"worker\0", old.pid)
    assert (again.identity, again.pid) == (b"worker\0", os.getpid())
    assert channel.send(b"worker\0", b"reply") is Sending.SENT
    assert new.poll(10_000) and new.recv() == b"reply"


def test_only_the_owner_may_connect(channel: PayloadChannel) -> None:
    """The socket file is a socket with mode 0600, whatever the umask; the umask is as before."""
    assert channel.path is not None
    status = channel.path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    umask = os.umask(0o022)
    os.umask(umask)
    assert umask != 0o177


def test_oversize_cuts_only_its_sender(channel: PayloadChannel, clients: Clients) -> None:
    """A message over the limit costs its sender the connection; others are served on, and the
    sender may come back."""
    good, bad = clients.connect(channel), clients.connect(channel, RECONNECT_IVL=10)
    good.send(b"good")
    bad.send(b"fits")
    first = {m.message: m.identity for m in hear(channel, 2)}
    bad.send(b"x" * (MAX_MESSAGE_BYTES + 1))
    eventually(
        lambda: channel.send(first[b"fits"], b"?") is Sending.GONE, "the sender is cut", within_s=5
    )
    good.send(b"x" * MAX_MESSAGE_BYTES)
    assert [len(m.message) for m in hear(channel)] == [MAX_MESSAGE_BYTES]
    assert channel.send(first[b"good"], b"reply") is Sending.SENT
    assert good.poll(10_000) and good.recv() == b"reply"
    bad.send(b"back")
    (back,) = hear(channel)
    assert back.message == b"back"
    assert back.identity != first[b"fits"]


def test_client_that_is_gone(channel: PayloadChannel, clients: Clients) -> None:
    """A reply to a client that is gone is told; so is one to a client that never was."""
    process = clients.start(channel, SAY_AND_STAY, "hello")
    (came,) = hear(channel)
    process.send_signal(signal.SIGKILL)
    process.wait()
    eventually(lambda: channel.send(came.identity, b"x") is Sending.GONE, "gone", within_s=5)
    assert channel.send(b"\0never", b"x") is Sending.GONE


def test_burst_of_a_client_that_exits(channel: PayloadChannel, clients: Clients) -> None:
    """A client that sends thousands of messages and exits well loses none, however slowly the
    pilot reads: nothing is read before the client is gone."""
    process = clients.start(channel, BURST_AND_EXIT)
    assert process.wait(30) == 0
    heard = hear(channel, BURST, limit=100)
    assert [m.message for m in heard] == [b"%d" % n for n in range(BURST)]
    assert len({m.identity for m in heard}) == 1


def test_client_that_never_reads(channel: PayloadChannel, clients: Clients) -> None:
    """Replies to a client that does not read end in *busy*, never in a stall; others get theirs,
    and the process of the silent one is looked at anew when it speaks again."""
    silent = clients.connect(channel, RCVHWM=1, RCVBUF=1)
    good = clients.connect(channel)
    silent.send(b"silent")
    good.send(b"good")
    identities = {m.message: m.identity for m in hear(channel, 2)}
    replies = (channel.send(identities[b"silent"], b"x" * 1000) for _ in range(100_000))
    assert next((s for s in replies if s is not Sending.SENT), None) is Sending.BUSY
    assert channel.send(identities[b"good"], b"reply") is Sending.SENT
    assert good.poll(10_000) and good.recv() == b"reply"
    silent.send(b"still here")
    assert [(m.message, m.pid) for m in hear(channel)] == [(b"still here", os.getpid())]


def test_client_that_comes_first(clients: Clients) -> None:
    """A client that starts before the channel is heard when the channel opens."""
    name = new_name()
    early = clients.dial(f"ipc://{socket_path(name)}")
    early.send(b"early")
    channel = PayloadChannel(name)
    assert [m.message for m in hear(channel)] == [b"early"]
    channel.close()


def test_stale_socket_file(clients: Clients) -> None:
    """A file left by a killed pilot is bound over."""
    name = new_name()
    path = socket_path(name)
    assert path is not None
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    channel = PayloadChannel(name)
    clients.connect(channel).send(b"hello")
    assert [m.message for m in hear(channel)] == [b"hello"]
    channel.close()
    assert not path.exists()


def test_socket_file_of_somebody_else() -> None:
    """At the end the file is removed only if it is still ours."""
    channel = PayloadChannel(new_name())
    path = channel.path
    assert path is not None
    path.unlink()
    path.write_text("somebody else's")
    channel.close()
    assert path.read_text() == "somebody else's"
    path.unlink()


def test_socket_file_that_is_gone() -> None:
    """A file that somebody removed is no trouble at the end."""
    channel = PayloadChannel(new_name())
    assert channel.path is not None
    channel.path.unlink()
    channel.close()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "x" * (MAX_NAME + 1)])
def test_bad_name(name: str) -> None:
    """A name that cannot be a file name within the limit is refused in words."""
    with pytest.raises(UsageError, match="channel name"):
        PayloadChannel(name)


def test_longest_name() -> None:
    """The longest name still fits a socket address."""
    name = (new_name() + "x" * MAX_NAME)[:MAX_NAME]
    channel = PayloadChannel(name)
    assert channel.path is not None and channel.path.exists()
    channel.close()


def test_tcp(clients: Clients) -> None:
    """`host:port` is a TCP channel; the process of a client is not known there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    channel = PayloadChannel(f"127.0.0.1:{port}")
    assert channel.path is None
    client = clients.dial(f"tcp://127.0.0.1:{port}")
    client.send(b"hello")
    (came,) = hear(channel)
    assert (came.message, came.pid) == (b"hello", None)
    with pytest.raises(LocalError, match="cannot bind the payload channel"):
        PayloadChannel(f"127.0.0.1:{port}")
    channel.close()


def test_nothing_is_left_in_tmp(channel: PayloadChannel) -> None:
    """The socket file is where yampl looks for it."""
    assert channel.path is not None
    assert channel.path.parent == Path("/tmp")
    assert channel.path.name.startswith("zmq_")
