"""A program of one's own, without a job file: run, ended half-way, gone on with, unpacked."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pilot_run import END_S, ESPILOT, end_processes_of, eventually

SIMULATION = f"""#!{sys.executable}
import sys, time
first, last, out = int(sys.argv[2]), int(sys.argv[4]), sys.argv[6]
time.sleep(0.05)
open(out, "w").write("".join(f"{{n}}\\n" for n in range(first, last + 1)))
"""
WORDS = ["./my-sim", "--first", "{startEvent}", "--last", "{lastEvent}", "--out", "{output}"]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A directory with the program `my-sim`; what runs there is ended."""
    program = tmp_path / "my-sim"
    program.write_text(SIMULATION)
    program.chmod(0o755)
    yield tmp_path
    end_processes_of(tmp_path)


def start(here: Path, *options: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    argv = [*ESPILOT, "run", "--local", "--events", "1000", "--per-range", "10", "--cores", "2"]
    return subprocess.Popen(
        [*argv, *options, "--", *WORDS],
        cwd=here, stdout=stdout, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def require_outputs(here: Path) -> None:
    """Every event is in exactly one of the unpacked outputs."""
    files = list((here / "espilot-work" / "outputs").iterdir())
    events = [int(line) for path in files for line in path.read_text().splitlines()]
    assert len(files) == 100 and sorted(events) == list(range(1, 1001))


def wait_outputs(here: Path, n: int) -> None:
    """Wait until n outputs were made; they wait some seconds to be packed."""
    made = here / "espilot-work" / "payload-1"
    eventually(lambda: len(list(made.glob("output.*"))) >= n, what="outputs")


@pytest.mark.parametrize("how", ["same command", "recover"])
def test_interrupted_and_gone_on_with(here: Path, how: str) -> None:
    """Ctrl-C drains with exit code 3 and says how to go on; either way brings all outputs."""
    process = start(here, "--unpack")
    wait_outputs(here, 10)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=END_S)[0].decode()
    assert process.returncode == 3, said
    assert f"espilot recover {here}/espilot-work" in said and "same command" in said
    assert not (here / "espilot-work" / "outputs").exists()
    if how == "recover":
        again = subprocess.run([*ESPILOT, "recover"], cwd=here, capture_output=True, timeout=END_S)
        assert again.returncode == 0, again.stderr.decode()
        assert b"unpacked: 100 files" in again.stdout
    else:
        process = start(here, "--unpack")
        said = process.communicate(timeout=END_S)[0].decode()
        assert process.returncode == 0, said
        assert "going on with the unfinished run" in said and "unpacked: 100 files" in said
        assert "\x1b" not in said and "ranges safe" in said
    require_outputs(here)


def test_progress_on_a_terminal(here: Path) -> None:
    """On a terminal progress renews itself, with rate and rest; NO_COLOR keeps colours away."""
    master, slave = pty.openpty()
    process = start(here, "--json", stdout=slave)
    os.close(slave)
    said = b""
    try:
        while piece := os.read(master, 65536):
            said += piece
    except OSError:  # the other end is closed
        assert process.wait(END_S) == 0, said.decode()
    finally:
        os.close(master)
    text = said.decode()
    assert "events/s" in text and " left" in text and "at risk" in text
    assert "\x1b[2K" in text, "it renews itself"
    assert (
        json.loads(text.strip().splitlines()[-1].rpartition("\x1b[?25h")[2])["state"] == "finished"
    )
