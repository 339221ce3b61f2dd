"""Child processes of a bench: started with this Python, ended whatever happens."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
END_S = 10.0
RUN_S = 120.0
"""No bench child takes so long; one that does hangs."""


class BenchError(Exception):
    """A bench could not be carried out."""


class BenchChild:
    """A module of this package as a process. It says lines of JSON and ends when stdin does."""

    def __init__(self, module: str, *arguments: object) -> None:
        argv = [sys.executable, "-m", f"bench.{module}", *map(str, arguments)]
        self._process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    def hear(self) -> dict[str, Any]:
        """The next line that the child says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self._process.args!r:.200} ended too early")
        said: dict[str, Any] = json.loads(line)
        return said

    def close(self) -> None:
        """Let it end; kill it if it does not."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextmanager
def running(module: str, *arguments: object) -> Iterator[BenchChild]:
    """A bench child for the length of the block."""
    child = BenchChild(module, *arguments)
    try:
        yield child
    finally:
        child.close()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for the length of the block; its path is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="espilot-bench-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def new_channel() -> str:
    """A channel name that nobody else has."""
    return f"bench-{uuid.uuid4().hex}"


def payload_argv(*arguments: object) -> list[str]:
    """The command line of the fake payload."""
    return [sys.executable, str(ROOT / "bin" / "fake-payload"), *map(str, arguments)]


def run_payload(channel: str, outdir: Path, *arguments: object) -> dict[str, Any]:
    """Run the fake payload to its end; what it did, as it says itself."""
    argv = payload_argv("--channel", channel, "--outdir", outdir, "--json", *arguments)
    return last_json(run_to_end(argv))


def run_to_end(argv: Sequence[str]) -> str:
    """Run a command; its standard output. The whole tree is ended if it fails or hangs."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=RUN_S)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.kill()
            process.wait()
    if process.returncode:
        raise BenchError(f"{argv[:4]} ended with exit code {process.returncode}")
    return output


def last_json(output: str) -> dict[str, Any]:
    """The JSON object on the last line of an output."""
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def say(**fields: object) -> None:
    """Say a line to the bench that started us."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()
