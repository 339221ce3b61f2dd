"""Control plane, doorbells and loop on real sockets: what may be lost, and what may not stall."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from patience import eventually

from espilot.adapters.control import MAX_BYTES, ROLES, ControlLink, ControlRouter, Doorbells, ask
from espilot.adapters.loop import Loop, Wakeup
from espilot.errors import LocalError
from espilot.supervisor.statedir import StateDir

Closing = Callable[[object], None]


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A runtime directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="espilot-t", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def router(runtime: Path) -> Iterator[ControlRouter]:
    """The supervisor's end."""
    router = ControlRouter(runtime)
    yield router
    router.close()


@pytest.fixture
def link(runtime: Path, router: ControlRouter) -> Iterator[ControlLink]:
    """A worker's end."""
    link = ControlLink(runtime, "dispatcher")
    yield link
    link.close()


def hear(router: ControlRouter, n: int = 1) -> list[tuple[str, bytes]]:
    """The next n messages at the supervisor."""
    heard: list[tuple[str, bytes]] = []
    while len(heard) < n:
        assert router.socket.poll(10_000), f"{len(heard)} of {n} messages came"
        heard += router.receive()
    return heard


def answers(link: ControlLink) -> list[bytes]:
    """What the worker hears next."""
    assert link.socket.poll(10_000), "no directive came"
    return list(link.receive())


def test_both_ways(router: ControlRouter, link: ControlLink) -> None:
    """A worker is known by its role; its directives reach it, in order."""
    link.send(b"hello")
    assert hear(router) == [("dispatcher", b"hello")]
    for word in (b"one", b"two"):
        assert router.send("dispatcher", word)
    heard = answers(link)
    heard += answers(link) if len(heard) < 2 else []
    assert heard == [b"one", b"two"]
    assert list(link.receive()) == []
    assert list(router.receive()) == []


def test_lesson_28_a_large_message_arrives_whole(router: ControlRouter, link: ControlLink) -> None:
    """Messages have frames: one of 10 kB is one message, and one of nearly the limit too."""
    for size in (10_000, MAX_BYTES):
        message = os.urandom(size)
        link.send(message)
        assert hear(router) == [("dispatcher", message)]
        router.send("dispatcher", message)
        assert answers(link) == [message]


def test_lesson_28_other_users_cannot_connect(tmp_path: Path) -> None:
    """Neither with the supervisor's socket, nor can they answer in its place."""
    state = StateDir(tmp_path / "state")
    router = ControlRouter(state.runtime)
    person = socket.socket(socket.AF_UNIX)
    try:
        if os.geteuid() == 0:
            os.seteuid(65534)
            try:
                with pytest.raises(PermissionError):
                    person.connect(f"{state.runtime}/control")
            finally:
                os.seteuid(0)
        person.connect(f"{state.runtime}/control")
        state.runtime.chmod(0o755)
        with pytest.raises(LocalError, match="not private to its owner"):
            ask(state.runtime, b"?", timeout_s=0.1)
    finally:
        state.runtime.chmod(0o700)
        person.close()
        router.close()
        state.close()


def test_role_that_is_not_there(router: ControlRouter) -> None:
    """A directive to a role that is not connected is dropped: it says hello when it comes."""
    router.send("stageout", b"serve")
    assert list(router.receive()) == []


def test_restarted_worker_takes_over(
    runtime: Path, router: ControlRouter, link: ControlLink
) -> None:
    """A new worker under its predecessor's name gets the directives, though the old one lives."""
    link.send(b"old")
    hear(router)
    new = ControlLink(runtime, "dispatcher")
    new.send(b"new")
    assert hear(router) == [("dispatcher", b"new")]
    router.send("dispatcher", b"serve")
    assert answers(new) == [b"serve"]
    new.close()


def test_supervisor_that_is_gone(runtime: Path) -> None:
    """A worker without a supervisor does not block, however much it says, and closes in time."""
    link = ControlLink(runtime, "dispatcher")
    for _ in range(5000):
        link.send(b"alive" * 100)
    started = time.monotonic()
    link.close()
    assert time.monotonic() - started < 5


def test_worker_that_does_not_read(router: ControlRouter, link: ControlLink) -> None:
    """Directives to a stopped worker never block the supervisor."""
    link.send(b"hello")
    hear(router)
    for _ in range(20_000):
        router.send("dispatcher", b"x" * 500)
    link.send(b"still here")
    assert hear(router) == [("dispatcher", b"still here")]


def test_oversize_and_odd_frames(runtime: Path, router: ControlRouter, link: ControlLink) -> None:
    """An oversize message cuts its sender only; odd frames and names are read as something."""
    link.send(b"hello")
    hear(router)
    with zmq.Context() as context:
        odd = context.socket(zmq.DEALER)
        odd.setsockopt(zmq.IDENTITY, b"\xff\xfe")
        odd.connect(f"ipc://{runtime}/control")
        odd.send_multipart([b"", b"a", b"b"])
        ((name, message),) = hear(router)
        assert name.isprintable() or name
        assert message == b"b"
        odd.send(b"x" * (MAX_BYTES + 1))
        link.send(b"served on")
        assert hear(router) == [("dispatcher", b"served on")]
        odd.close(linger=0)


def test_doorbells(runtime: Path) -> None:
    """A ring reaches the other role once it is there, and many rings are few wake-ups."""
    bells = {role: Doorbells(runtime, role) for role in ROLES}
    bells["dispatcher"].ring_all(b"ring")
    for role in ("event-server", "stageout"):
        assert bells[role].socket.poll(10_000), f"{role} hears nothing"
        assert bells[role].clear() == 1
        assert bells[role].clear() == 0
    for _ in range(1000):
        bells["stageout"].ring("dispatcher", b"ring")
    assert bells["dispatcher"].socket.poll(10_000)
    for each in bells.values():
        each.close()


def test_bell_of_a_dead_role(runtime: Path) -> None:
    """Ringing for a role that is not there neither blocks nor fails."""
    bells = Doorbells(runtime, "dispatcher")
    for _ in range(1000):
        bells.ring("stageout", b"ring")
    late = Doorbells(runtime, "stageout")
    assert late.socket.poll(10_000), "the last ring was kept"
    late.close()
    bells.close()


# -- the loop ---------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Read and write end."""
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_timers_in_order() -> None:
    """Deadlines are called in order of time, equal ones in order of registration, none early."""
    loop, called = Loop(), []
    start = time.monotonic()
    for delay, name in ((0.03, "c"), (0.01, "a"), (0.02, "b")):
        loop.call_at(start + delay, lambda name=name: called.append((name, time.monotonic())))
    loop.call_at(start + 0.03, loop.stop)
    loop.run()
    assert [name for name, _ in called] == ["a", "b", "c"]
    assert all(at >= start + d for (_, at), d in zip(called, (0.01, 0.02, 0.03), strict=True))


def test_cancelled_timer() -> None:
    """A cancelled deadline is not called, and does not wake the loop."""
    loop, called = Loop(), []
    loop.call_later(0.0, lambda: called.append("cancelled")).cancel()
    timer = loop.call_later(3600.0, lambda: None)
    timer.cancel()
    loop.call_later(0.01, loop.stop)
    loop.run()
    assert called == []


def test_readable_descriptor(pipe: tuple[int, int]) -> None:
    """A readable descriptor calls back each turn until it is read or forgotten."""
    read, write = pipe
    loop, called = Loop(), []
    loop.on_readable(read, lambda: called.append(os.read(read, 1)))
    os.write(write, b"ab")
    loop.turn()
    loop.turn()
    assert called == [b"a", b"b"]
    os.write(write, b"c")
    loop.forget(read)
    loop.forget(read)
    loop.call_later(0.0, lambda: called.append(b"timer"))
    loop.turn()
    assert called == [b"a", b"b", b"timer"]


def test_closed_descriptor_is_forgotten_in_its_callback() -> None:
    """A callback may forget and close its own source, as for the death of a process."""
    loop, called = Loop(), []
    read, write = os.pipe()

    def ended() -> None:
        loop.forget(read)
        os.close(read)
        called.append("ended")

    loop.on_readable(read, ended)
    os.close(write)
    loop.turn()
    loop.call_later(0.0, loop.stop)
    loop.run()
    assert called == ["ended"]


def ready_pipe() -> tuple[int, int]:
    """Both ends of a pipe that holds a byte."""
    ends = os.pipe()
    os.write(ends[1], b"x")
    return ends


def test_a_number_that_was_given_anew_is_another_source() -> None:
    """One source's callback closes the other, and what it opens gets that number: it was not
    readable, so it is not called."""
    loop = Loop()
    pipes = [ready_pipe(), ready_pipe()]
    called: list[str] = []
    extra: list[int] = []

    def first_of(own: int) -> Callable[[], None]:
        def callback() -> None:
            called.append("first")
            other = pipes[1 - own][0]
            loop.forget(other)
            os.close(other)
            read_end, write_end = os.pipe()
            extra.extend((read_end, write_end))
            assert other in (read_end, write_end)
            loop.on_readable(other, lambda: called.append("new"))

        return callback

    for own, pipe in enumerate(pipes):
        loop.on_readable(pipe[0], first_of(own))
    loop.turn()
    assert called == ["first"]
    served = next(own for own, pipe in enumerate(pipes) if pipe[0] not in extra)
    for fd in (pipes[served][0], pipes[0][1], pipes[1][1], *extra):
        os.close(fd)


def test_who_is_forgotten_in_the_same_turn_is_not_called() -> None:
    """A callback may forget a source that was readable too."""
    loop = Loop()
    pipes = [ready_pipe(), ready_pipe()]
    called: list[int] = []

    def callback(own: int) -> None:
        called.append(own)
        loop.forget(pipes[1 - own][0])

    loop.on_readable(pipes[0][0], lambda: callback(0))
    loop.on_readable(pipes[1][0], lambda: callback(1))
    loop.turn()
    assert len(called) == 1
    for fd in (*pipes[0], *pipes[1]):
        os.close(fd)


def test_a_source_does_not_starve_deadlines(pipe: tuple[int, int]) -> None:
    """A source that is always readable does not keep deadlines from being called."""
    read, write = pipe
    os.write(write, b"x")
    loop, turns = Loop(), []
    loop.on_readable(read, lambda: turns.append(1))
    loop.call_later(0.01, loop.stop)
    loop.run()
    assert turns


def test_every() -> None:
    """A repeated callback comes again and again."""
    loop, called = Loop(), []

    def beat() -> None:
        called.append(time.monotonic())
        if len(called) == 3:
            loop.stop()

    loop.every(0.005, beat)
    loop.run()
    assert len(called) == 3
    assert called[2] - called[0] >= 0.009


def test_an_idle_loop_does_not_turn(pipe: tuple[int, int]) -> None:
    """Without anything to do the loop sleeps: no timed polling."""
    loop = Loop()
    loop.on_readable(pipe[0], lambda: None)
    turns = 0
    loop.call_later(0.1, loop.stop)
    loop._running = True
    while loop._running:
        loop.turn()
        turns += 1
    assert turns <= 3


def test_wakeup_from_a_thread() -> None:
    """Another thread wakes the loop; rings are not counted, only seen; clearing twice is fine."""
    loop, wakeup = Loop(), Wakeup()

    def awake() -> None:
        wakeup.clear()
        loop.stop()

    loop.on_readable(wakeup.fd, awake)
    thread = threading.Thread(target=lambda: [wakeup.ring() for _ in range(5)])
    thread.start()
    loop.run()
    thread.join()
    wakeup.clear()
    wakeup.clear()
    wakeup.close()


def test_router_file_is_in_the_runtime_directory(runtime: Path, router: ControlRouter) -> None:
    """The control socket is where its owner only may enter."""
    eventually(lambda: (runtime / "control").is_socket(), "the control socket")
    assert runtime.stat().st_mode & 0o077 == 0
