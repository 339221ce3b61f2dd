"""What holds for every test: it leaves no descriptor, thread, child, or socket file behind."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from abandoned import clean_up
from belongings import Belongings, belongings, leaks
from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine's other work than of us.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
HERE = Path(__file__).resolve().parent
BEFORE = pytest.StashKey[Belongings]()
FOLDERS = ("faults", "acceptance", "storage", "systemd", "integration", "contract", "unit")
"""In the order of their tests: the long files first, so that the workers end together."""


@pytest.fixture(scope="session", autouse=True)
def _shared_context() -> None:
    """ZeroMQ's one global context, whose threads and descriptors stay, exists before any test."""
    socket = zmq.Context.instance().socket(zmq.PAIR)
    socket.bind("inproc://warm")
    socket.close(linger=0)


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Fail a test that leaves something behind."""
    before = belongings()
    yield
    _close_logs()
    _stop_file_reader()
    found = leaks(before)
    if found:
        pytest.fail("left behind: " + "; ".join(found), pytrace=False)


@pytest.fixture(autouse=True)
def _no_abandoned_pilots(request: pytest.FixtureRequest) -> Iterator[None]:
    """What killed pilots of a test have left goes when its fixtures have ended them."""
    own = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if own is not None:
        clean_up(own)


@pytest.fixture(scope="session", autouse=True)
def _none_of_shared_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same for pilots that several tests have shared."""
    yield
    clean_up(tmp_path_factory.getbasetemp())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where tests run side by side, each sees the others' sockets; at the end there are none."""
    if not hasattr(session.config, "workerinput"):
        before: Belongings = session.config.stash[BEFORE]
        found = [name for name in leaks(before) if name.startswith("socket file")]
        if found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            sys.stderr.write("\nleft behind by some test: " + "; ".join(found) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """What was here before all tests. A shell's background job begins with two signals ignored;
    what tests start must not inherit that, and a shell below could not even undo it."""
    config.stash[BEFORE] = belongings()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # Below nohup: a handler keeps us as safe, and what we start does not inherit it.
        signal.signal(signal.SIGHUP, lambda number, frame: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by folder."""
    items.sort(key=lambda item: FOLDERS.index(item.path.relative_to(HERE).parts[0]))


def _close_logs() -> None:
    """A role's log stays open as long as its process: the tests' own end here."""
    for name, logger in logging.Logger.manager.loggerDict.items():
        if name.startswith("espilot.") and isinstance(logger, logging.Logger):
            for handler in logger.handlers[:]:
                logger.removeHandler(handler)
                handler.close()


def _stop_file_reader() -> None:
    """The library under uproot starts a loop in a thread, once per process, and never ends it."""
    library = sys.modules.get("fsspec.asyn")
    loop = library.loop[0] if library else None
    if library is None or loop is None:
        return
    asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    library.iothread[0].join(10)
    loop.close()
    library.loop[0] = library.iothread[0] = None
