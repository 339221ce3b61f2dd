"""The runner for payloads that read a file of ranges: one command for many ranges, speechless.

    python -m espilot.payload.file_runner [--ranges N] -- ./sim --ranges {ranges} --out {outdir}

Up to N ranges are written into a file, one JSON object per line (the keys of the text dialect, and
`outputs`, the paths that are to be made), and the command is started with its path; after its end
the next ranges are asked for. Outputs are noticed by the pilot as they come where it watches the
directory; what it has not noticed at the command's end is reported: done when the outputs are there
and the exit code is 0, else failed. SIGTERM ends the command.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import zmq

from espilot.errors import EspilotError, UsageError
from espilot.model import EventRange
from espilot.payload.client import (
    FLUSH_S,
    TERM_FLUSH_S,
    Client,
    channel_address,
    is_readable,
)
from espilot.payload.ranges import EXIT_TERMINATED, output_dir, output_path
from espilot.wire import payload_native as native
from espilot.wire.payload import CODE_EXECUTION, Welcome, printable

EXIT_USAGE, EXIT_FAILURE = 64, 1
GATHER_S = 0.3
"""So long after the last range the file waits for further ones."""
TERM_GRACE_S = 10.0
FILE_VARIABLE = "ESPILOT_RANGES_FILE"


class FileRunner:
    """Runs the command for one file of ranges after the other, until no more ranges come."""

    def __init__(
        self, client: Client, command: Sequence[str], stop_fd: int, *, notice_s: float
    ) -> None:
        self._client = client
        self._command = command
        self._stop_fd = stop_fd
        self._notice_s = notice_s
        self._open: dict[str, EventRange] = {}
        self._poller = zmq.Poller()
        self._poller.register(client.socket, zmq.POLLIN)
        self._poller.register(stop_fd, zmq.POLLIN)
        client.on_ack = lambda range_id: self._open.pop(range_id, None)

    def run(self, most: int) -> int:
        """Run until the end; the exit code."""
        lacking = most
        for number in itertools.count(1):
            if not self._client.ended:
                self._client.send(native.ready(lacking))
            found = self._gather(most)
            if not found:
                return EXIT_TERMINATED if found is None else 0
            if not self._process(number, found):
                break
            lacking = len(found)
        return EXIT_TERMINATED

    def _gather(self, most: int) -> list[EventRange] | None:
        """The next ranges; none when there are no more, None when we are told to end."""
        client = self._client
        while not client.waiting and not client.ended:
            if self._stopped(None):
                return None
        while len(client.waiting) < most and not client.ended:
            before = len(client.waiting)
            if self._stopped(GATHER_S):
                return None
            if len(client.waiting) == before:
                break
        return [client.waiting.popleft() for _ in range(len(client.waiting))]

    def _process(self, number: int, ranges: list[EventRange]) -> bool:
        """Run the command for these ranges and settle them; False when we are told to end."""
        welcome = self._client.await_welcome()
        path = Path(output_dir(welcome), f".ranges-{number}.jsonl")
        lines = [line_of(each, _outputs(welcome, each), self._client) for each in ranges]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(lines))
        temporary.replace(path)
        self._open = {each.id: each for each in ranges}
        code = self._run_command(path, welcome)
        if code is None:
            return False
        self._settle(code, welcome)
        path.unlink(missing_ok=True)
        return True

    def _run_command(self, path: Path, welcome: Welcome) -> int | str | None:
        """Its exit code, or why there is none; None when we are told to end."""
        values = {"{ranges}": str(path), "{outdir}": output_dir(welcome)}
        words = []
        for word in self._command:
            for name, value in values.items():
                word = word.replace(name, value)
            words.append(word)
        env = os.environ | {FILE_VARIABLE: str(path)}
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, env=env, process_group=0)
        except (OSError, ValueError) as error:
            return f"cannot run {words[0]!r:.80}: {error}"
        pidfd = os.pidfd_open(process.pid)
        self._poller.register(pidfd, zmq.POLLIN)
        try:
            ended = self._await_end(process, pidfd)
        finally:
            self._poller.unregister(pidfd)
            os.close(pidfd)
            # What it left in the background; it is not reaped, so its number still is the group's.
            _signal_group(process, signal.SIGKILL)
            process.wait()
        return process.returncode if ended else None

    def _await_end(self, process: subprocess.Popen[bytes], pidfd: int) -> bool:
        """Wait for the command's end; False when we are told to end, and it with us."""
        while True:
            ready = dict(self._poller.poll())
            self._client.drain()
            if pidfd in ready:
                return True
            if self._stop_fd in ready:
                _signal_group(process, signal.SIGTERM)
                select.select([pidfd], [], [], TERM_GRACE_S)
                return False

    def _settle(self, code: int | str, welcome: Welcome) -> None:
        """What the pilot does not notice in time is said to it."""
        deadline = time.monotonic() + self._notice_s
        while self._is_any_made(welcome) and time.monotonic() < deadline:
            if self._stopped(0.1):
                return
        self._client.drain()
        why = code if isinstance(code, str) else f"the command ended with {_named(code)}"
        for each in self._open.values():
            # Not Path.is_file(): that raises for a name too long to exist.
            made = all(os.path.isfile(path) for path in _outputs(welcome, each))
            if made and code == 0:
                paths = _outputs(welcome, each)
                message = native.done(each.id, paths, events=each.events)
            else:
                diag = f"{why}, and made no output of this range"
                message = native.failed(each.id, CODE_EXECUTION, printable(diag))
            self._client.send(message)
        self._open.clear()

    def _is_any_made(self, welcome: Welcome) -> bool:
        return any(
            os.path.exists(path)
            for each in self._open.values()
            for path in _outputs(welcome, each)[:1]
        )

    def _stopped(self, timeout_s: float | None) -> bool:
        """Wait for something to happen and take it in; whether we are told to end."""
        ready = dict(self._poller.poll(None if timeout_s is None else int(timeout_s * 1000)))
        self._client.drain()
        return self._stop_fd in ready


def line_of(event_range: EventRange, outputs: Sequence[str], client: Client) -> str:
    """One range as a line of the file."""
    r = event_range
    pfn = r.pfn or client.await_welcome().inputs.get(r.lfn, "")
    fields = {
        "eventRangeID": r.id,
        "startEvent": r.start_event,
        "lastEvent": r.last_event,
        "LFN": r.lfn,
        "GUID": r.guid,
        "scope": r.scope,
        "PFN": pfn,
        "outputs": list(outputs),
    }
    return json.dumps(fields) + "\n"


def _outputs(welcome: Welcome, event_range: EventRange) -> list[str]:
    count = max(1, len(welcome.job.get("outputs") or ()))
    return [output_path(welcome, event_range.id, stream) for stream in range(count)]


def _named(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {-code} ({signal.strsignal(-code)})"


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if not 1 <= options.ranges <= native.MAX_COUNT:
            raise UsageError(f"--ranges {options.ranges}: must be from 1 to {native.MAX_COUNT}")
        return _run(options, channel_address(options.channel))
    except UsageError as error:
        sys.stderr.write(f"file_runner: {error}\n")
        return EXIT_USAGE
    except (EspilotError, OSError) as error:
        sys.stderr.write(f"file_runner: {error}\n")
        return EXIT_FAILURE


def _run(options: argparse.Namespace, address: str) -> int:
    stop_fd, wake_fd = os.pipe()
    os.set_blocking(wake_fd, False)
    # The signal only writes into the pipe: an exception at any instant could lose a new child.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)
    client = Client(address, slots=options.ranges, name="file_runner")
    flush_s = TERM_FLUSH_S
    try:
        runner = FileRunner(client, options.command, stop_fd, notice_s=options.notice_s)
        code = runner.run(options.ranges)
        flush_s = TERM_FLUSH_S if code == EXIT_TERMINATED else FLUSH_S
        return code
    finally:
        client.close(flush_s, lambda: is_readable(stop_fd))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="file_runner", description="Run one command for a file of event ranges at a time."
    )
    parser.add_argument("--ranges", type=int, default=64, help="ranges in one file (default: 64)")
    notice = "time for the pilot to notice outputs, before they are reported (default: 0)"
    parser.add_argument("--notice-s", type=float, default=0.0, help=notice)
    parser.add_argument("--channel", help="channel name (default: from the environment)")
    parser.add_argument("command", nargs="+", help="the command with {ranges}, after --")
    return parser


if __name__ == "__main__":
    sys.exit(run())
