"""What holds for every test: it leaves no descriptor, thread, child, or socket file behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import zmq
from belongings import belongings, leaks


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
    found = leaks(before)
    if found:
        pytest.fail("left behind: " + "; ".join(found), pytrace=False)


def _close_logs() -> None:
    """A role's log stays open as long as its process: the tests' own end here."""
    for name, logger in logging.Logger.manager.loggerDict.items():
        if name.startswith("espilot.") and isinstance(logger, logging.Logger):
            for handler in logger.handlers[:]:
                logger.removeHandler(handler)
                handler.close()
