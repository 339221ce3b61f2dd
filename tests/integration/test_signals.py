"""Signals as a readable descriptor, also those that a wrapper forwards and a fault would raise."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from espilot.supervisor.signals import Signals

HEAR = """\
import os, select, sys
from espilot.supervisor.signals import Signals
signals = Signals()
os.kill(os.getpid(), int(sys.argv[1]))
select.select([signals.fd], [], [], 20.0)
print(signals.take())
signals.close()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGBUS, signal.SIGSEGV])
def test_a_signal_is_heard(number: signal.Signals) -> None:
    """A signal that was sent becomes readable, and the process lives on."""
    # In a process of its own: threads of a test runner would take it first.
    heard = subprocess.run(
        [sys.executable, "-c", HEAR, str(int(number))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (heard.returncode, heard.stdout.strip()) == (0, f"[{int(number)}]"), heard.stderr


def test_former_handling_comes_back() -> None:
    """After the end handlers and mask are as before."""
    before = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    Signals().close()
    assert before == (
        signal.getsignal(signal.SIGTERM),
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    )


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGSEGV])
def test_a_fault_of_our_own_ends_the_process(number: signal.Signals) -> None:
    """A real fault is not taken for a message: it ends the process at once."""
    fault = {
        signal.SIGSEGV: "ctypes.string_at(8)",
        signal.SIGBUS: (
            "f = tempfile.TemporaryFile(); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); "
            "f.truncate(0); m[5000]"
        ),
    }[number]
    code = (
        "import ctypes, mmap, tempfile; from espilot.supervisor.signals import Signals; "
        f"s = Signals(); {fault}"
    )
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert ended.returncode == -number
