"""sd_notify over real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from espilot.adapters.sdnotify import open_notifier


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        sock.settimeout(5.0)
        yield sock


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_fields_in_one_datagram(tmp_path: Path, kind: str) -> None:
    """Words and fields arrive in one datagram, at a path and at an abstract address."""
    address = str(tmp_path / "n") if kind == "path" else f"@espilot-test-{os.getpid()}"
    with manager(address) as sock, closing(open_notifier({"NOTIFY_SOCKET": address})) as notifier:
        assert notifier.tell("ready", status="two\nlines", main_pid=5)
        assert sock.recv(4096) == b"READY=1\nSTATUS=two lines\nMAIN_PID=5"


def test_text_of_odd_bytes(tmp_path: Path) -> None:
    """A text with the name of a file that is not UTF-8 arrives, with a mark in its place."""
    address = str(tmp_path / "n")
    with manager(address) as sock, closing(open_notifier({"NOTIFY_SOCKET": address})) as notifier:
        assert notifier.tell(status=f"no room for {os.fsdecode(bytes([0xFF]))}.dat")
        assert sock.recv(4096) == b"STATUS=no room for ?.dat"


def test_reload_has_its_time(tmp_path: Path) -> None:
    """Newer managers wait for ever without the time in the same datagram (lesson 60)."""
    address = str(tmp_path / "n")
    with manager(address) as sock, closing(open_notifier({"NOTIFY_SOCKET": address})) as notifier:
        notifier.tell_reloading()
        first, second = sock.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


def test_silence_without_a_manager(tmp_path: Path) -> None:
    """Nobody there, a dead address and an odd one: no error, no watchdog."""
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "none")}, {"NOTIFY_SOCKET": "vsock:1"}):
        with closing(open_notifier(environ)) as notifier:
            assert not notifier.tell("ready")


@pytest.mark.parametrize(
    ("pid", "usec", "expected"),
    [("", "3000000", 3.0), ("ours", "3000000", 3.0), ("1", "3000000", None),
     ("", "", None), ("", "x", None), ("", "0", None)],
)  # fmt: skip
def test_whose_watchdog(tmp_path: Path, pid: str, usec: str, expected: float | None) -> None:
    """A watchdog that is meant for another process is none of ours."""
    pid = str(os.getpid()) if pid == "ours" else pid
    environ = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_PID": pid, "WATCHDOG_USEC": usec}
    with closing(open_notifier(environ)) as notifier:
        assert notifier.watchdog_s == expected
