"""Stacks and pictures of real processes, hung ones included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import eventually

from espilot.adapters import stacks
from espilot.supervisor import dump

Starting = Callable[[str], subprocess.Popen[bytes]]

READY = """
import sys, threading, time
from pathlib import Path
from espilot.adapters.stacks import StackFile
ready = StackFile(Path(sys.argv[1]))
def turn_for_ever():
    while True:
        pass
def sleep_for_ever():
    time.sleep(3600)
print("ready", flush=True)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starting]:
    """Starts a Python program that says something when it is ready; ends it afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", program, str(tmp_path)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("hung", ["turn_for_ever", "sleep_for_ever"])
def test_stacks_of_a_hung_process(start: Starting, tmp_path: Path, hung: str) -> None:
    """A process shows where all its threads are, though no code of its own can run; twice too."""
    process = start(READY + f"threading.Thread(target=sleep_for_ever).start()\n{hung}()\n")

    def ask() -> str:
        return stacks.ask_for_stacks(tmp_path, process.pid, timeout_s=10.0)

    eventually(lambda: f"in {hung}" in ask() and "in sleep_for_ever" in ask(), "both are there")
    assert ask().count("most recent call first") == 2, "each asking gets its own answer"
    assert process.poll() is None


def test_stopped_process(start: Starting, tmp_path: Path) -> None:
    """A stopped process costs the time-out, and lives on."""
    process = start(READY + "sleep_for_ever()\n")
    process.send_signal(signal.SIGSTOP)
    assert stacks.ask_for_stacks(tmp_path, process.pid, timeout_s=0.2) == ""
    process.send_signal(signal.SIGCONT)
    path = stacks.stack_path(tmp_path, process.pid)
    eventually(
        lambda: "most recent call first" in path.read_text(), "the stacks come when it goes on"
    )
    assert process.poll() is None


def test_process_that_is_not_ready(start: Starting, tmp_path: Path) -> None:
    """A process without a handler gets no signal, even where a file stands for it."""
    process = start("import time\nprint('ready', flush=True)\ntime.sleep(3600)\n")
    assert stacks.ask_for_stacks(tmp_path, process.pid, timeout_s=5.0) == ""
    stacks.stack_path(tmp_path, process.pid).touch()
    assert stacks.ask_for_stacks(tmp_path, process.pid, timeout_s=5.0) == ""
    assert process.poll() is None


def test_closed_stack_file_is_harmless(start: Starting, tmp_path: Path) -> None:
    """A signal that comes after the end of readiness does not kill."""
    process = start(READY + "ready.close()\nprint('closed', flush=True)\nsleep_for_ever()\n")
    assert process.stdout is not None and process.stdout.readline() == b"closed\n"
    process.send_signal(stacks.DUMP_SIGNAL)
    assert stacks.ask_for_stacks(tmp_path, process.pid, timeout_s=5.0) == ""
    assert process.poll() is None


def test_process_that_is_gone(tmp_path: Path) -> None:
    """What is gone has no stacks, no threads, and a picture without lines."""
    process = subprocess.Popen(["true"])
    process.wait()
    stacks.stack_path(tmp_path, process.pid).touch()
    assert stacks.ask_for_stacks(tmp_path, process.pid, timeout_s=5.0) == ""
    assert stacks.kernel_view(process.pid) == ()
    assert dump.tree_of(process.pid) == []


def test_kernel_view(start: Starting) -> None:
    """Each thread is told with its state; the command line has no control characters."""
    process = start(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(3600,)).start()\n"
        "print('ready', flush=True)\n# \x1b[31m\ntime.sleep(3600)\n"
    )
    eventually(
        lambda: [view.state[:1] for view in stacks.kernel_view(process.pid)] == ["S", "S"],
        "both threads sleep",
    )
    assert "\x1b" not in stacks.command_of(process.pid)
    assert "?[31m" in stacks.command_of(process.pid)


def test_picture_of_a_tree(start: Starting) -> None:
    """The picture of a payload has every process, indented below its parent, and its threads."""
    mark = f"3600.{os.getpid()}"
    process = start(
        f"import subprocess, time\np = subprocess.Popen(['sleep', '{mark}'])\n"
        "print('ready', flush=True)\ntime.sleep(3600)\n"
    )
    rows: list[str] = []

    def look() -> bool:
        """The child may still be on its way through exec."""
        picture = dump.picture_of(process.pid)
        rows[:] = [line for line in picture.splitlines() if line.endswith(f"    sleep {mark}")]
        return bool(rows)

    eventually(look, "the child is in the picture")
    picture = dump.picture_of(process.pid)
    sleeper = int(rows[0].split()[0])
    assert f"process {sleeper}: sleep" in picture
    assert f"process {process.pid}: " in picture
    os.kill(sleeper, signal.SIGKILL)


def test_picture_goes_to_the_log_in_one_piece(tmp_path: Path) -> None:
    """A picture is marked at both ends, behind what the log holds already."""
    log_file = tmp_path / "pilot.log"
    log_file.write_text("before\n")
    dump.append_to(log_file, "payload 7", "a\nb\n")
    lines = log_file.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[1].endswith("payload 7") and lines[1].startswith("---- ")
    assert lines[2:] == ["a", "b", "---- end of payload 7"]
