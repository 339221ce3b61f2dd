"""Requests of people over a real control socket: one request, one answer, whatever is asked."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from espilot.adapters import control
from espilot.adapters.control import ControlRouter
from espilot.errors import LocalError, UsageError
from espilot.logs import open_log
from espilot.supervisor.people import People, ask
from espilot.wire.messages import Refused, StatusAnswer, StatusRequest, Stop


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A runtime directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="espilot-t", dir="/tmp") as directory:
        yield Path(directory)


class Pilot:
    """A supervisor's end that answers in a thread."""

    def __init__(self, runtime: Path, log_file: Path) -> None:
        self.router = ControlRouter(runtime)
        self.people = People(self.router, open_log("supervisor", log_file))
        self.others: list[tuple[str, bytes]] = []
        self._ended = threading.Event()

    def serve(self) -> None:
        """Answer until told to end."""
        while not self._ended.is_set():
            if self.router.socket.poll(20):
                for sender, data in self.router.receive():
                    if not self.people.heard(sender, data):
                        self.others.append((sender, data))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer meanwhile."""
        thread = threading.Thread(target=self.serve)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()


@pytest.fixture
def pilot(runtime: Path, tmp_path: Path) -> Iterator[Pilot]:
    """A pilot that can be asked for its status."""
    pilot = Pilot(runtime, tmp_path / "log")
    pilot.people.on(StatusRequest, lambda _: StatusAnswer({"phase": "running"}))
    yield pilot
    pilot.router.close()


def test_request_and_answer(runtime: Path, pilot: Pilot) -> None:
    """Each request gets its own answer, many times."""
    with pilot.serving():
        for _ in range(20):
            answer = ask(runtime, StatusRequest(), StatusAnswer)
            assert answer == StatusAnswer({"phase": "running"})


def test_refusals(runtime: Path, pilot: Pilot) -> None:
    """What cannot be answered is refused with its reason, at once, and the next one is served."""

    def refuse(request: Stop) -> Refused:
        raise UsageError("not while it drains")

    with pilot.serving():
        with pytest.raises(UsageError, match="cannot answer Stop"):
            ask(runtime, Stop(), StatusAnswer)
        pilot.people.on(Stop, refuse)
        with pytest.raises(UsageError, match="not while it drains"):
            ask(runtime, Stop(), StatusAnswer)
        data = control.ask(runtime, b"\xc1 no message", timeout_s=10.0)
        assert data is not None and b"not a control message" in data
        with pytest.raises(LocalError, match="another version"):
            ask(runtime, StatusRequest(), Stop)
        assert ask(runtime, StatusRequest(), StatusAnswer)


def test_roles_are_not_people(runtime: Path, pilot: Pilot) -> None:
    """What a worker says is not taken for a request."""
    link = control.ControlLink(runtime, "dispatcher")
    with pilot.serving():
        link.send(b"hello")
        assert ask(runtime, StatusRequest(), StatusAnswer)
    for sender, data in pilot.router.receive():
        pilot.others.append((sender, data))
    link.close()
    assert pilot.others == [("dispatcher", b"hello")]


def test_pilot_that_does_not_answer(runtime: Path, pilot: Pilot) -> None:
    """A stopped pilot costs its time-out, not more."""
    started = time.monotonic()
    assert ask(runtime, StatusRequest(), StatusAnswer, timeout_s=0.2) is None
    assert 0.2 <= time.monotonic() - started < 5.0


def test_nobody_there(tmp_path: Path) -> None:
    """A runtime directory that is gone is told at once."""
    with pytest.raises(LocalError, match="No such file"):
        ask(tmp_path / "gone", StatusRequest(), StatusAnswer)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701])
def test_others_cannot_answer(runtime: Path, pilot: Pilot, mode: int) -> None:
    """A directory that others may enter is not trusted, nor a link to one."""
    runtime.chmod(mode)
    with pytest.raises(LocalError, match="not private"):
        ask(runtime, StatusRequest(), StatusAnswer)
    runtime.chmod(0o700)


def test_link_is_not_followed(runtime: Path, pilot: Pilot, tmp_path: Path) -> None:
    """A symbolic link to a private directory is not one."""
    link = tmp_path / "link"
    link.symlink_to(runtime)
    with pytest.raises(LocalError, match="not private"):
        ask(link, StatusRequest(), StatusAnswer)
