"""The check that runs after each test can fail: it sees each kind of leak."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
from belongings import belongings, leaks


def test_nothing_is_no_leak() -> None:
    """Nothing new is nothing."""
    assert leaks(belongings()) == []


def test_descriptor() -> None:
    """An open descriptor is named with what it leads to."""
    before = belongings()
    fd = os.open("/dev/zero", os.O_RDONLY)
    assert leaks(before, patience_s=0) == [f"descriptor {fd} -> /dev/zero"]
    os.close(fd)


def test_thread() -> None:
    """A thread that does not end is named."""
    before, gate = belongings(), threading.Event()
    thread = threading.Thread(target=gate.wait, name="lingerer")
    thread.start()
    (found,) = leaks(before, patience_s=0)
    gate.set()
    thread.join()
    assert found.startswith("thread lingerer")


def test_child() -> None:
    """A living child and a zombie are named; a reaped one is not."""
    before = belongings()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert any(str(child.pid) in found for found in leaks(before, patience_s=0))
    child.communicate()
    assert leaks(before) == []


def test_socket_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket file is named while it is ours or nobody's."""
    monkeypatch.setattr("belongings._others_run", lambda: False)
    before, path = belongings(), Path(f"/tmp/zmq_{uuid.uuid4().hex}")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    assert f"socket file {path}" in leaks(before, patience_s=0)
    server.close()
    assert leaks(before, patience_s=0) == [f"socket file {path}"]
    path.unlink()
