"""The runner for payloads that speak no protocol: a command per range, several at once.

    python -m espilot.payload.exec_runner [--processes N] -- ./sim --first {startEvent} ... {output}

Each command gets its own process group. Exit code 0 and existing outputs make the range done; all
else makes it failed, with the exit code and the last line of its stderr. SIGTERM ends the commands.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from espilot.payload.pool import cores
from espilot.payload.ranges import EXIT_TERMINATED, output_path
from espilot.payload.template import Template, parse_template
from espilot.wire import payload_native as native
from espilot.wire.payload import CODE_EXECUTION, printable

EXIT_USAGE = 64
EXIT_FAILURE = 1
TAIL_BYTES = 4096
DIAG_CHARS = 200
TERM_GRACE_S = 10.0


@dataclass(slots=True)
class Command:
    """One running command. `tail` is the end of its stderr; `stderr` is -1 once that is closed."""

    event_range: EventRange
    outputs: dict[int, str]
    process: subprocess.Popen[bytes]
    pidfd: int
    stderr: int
    started: float
    tail: bytearray = field(default_factory=bytearray)


class Runner:
    """Keeps as many commands running as there are processes, until no more ranges come."""

    def __init__(self, client: Client, template: Template, processes: int) -> None:
        self._client = client
        self._template = template
        self._processes = processes
        self._commands: dict[int, Command] = {}  # by pidfd
        self._by_stderr: dict[int, Command] = {}
        self._checked = False
        self._poller = zmq.Poller()
        self._poller.register(client.socket, zmq.POLLIN)

    def run(self, stop_fd: int) -> int:
        """Run until the end; `stop_fd` becomes readable when the process is told to end."""
        self._poller.register(stop_fd, zmq.POLLIN)
        while not self._is_finished():
            ready = dict(self._poller.poll())
            if stop_fd in ready:
                self.stop()
                return EXIT_TERMINATED
            self._handle(ready)
        return 0

    def stop(self) -> None:
        """End every command: TERM to its group, and KILL to what is left after a while."""
        for command in self._commands.values():
            _signal_group(command, signal.SIGTERM)
        deadline = time.monotonic() + TERM_GRACE_S
        poller = zmq.Poller()
        for pidfd in self._commands:
            poller.register(pidfd, zmq.POLLIN)
        while self._commands and (left_s := deadline - time.monotonic()) > 0:
            for pidfd, _ in poller.poll(int(left_s * 1000) + 1):
                poller.unregister(pidfd)
                self._end_stopped(self._commands[pidfd])
        for command in list(self._commands.values()):
            self._end_stopped(command)

    def _end_stopped(self, command: Command) -> None:
        _signal_group(command, signal.SIGKILL)
        self._reap(command)

    def _check_outputs(self) -> None:
        """Raise before any range is taken when the job has fewer outputs than the template."""
        if not self._checked:
            output_path(self._client.await_welcome(), "", max(self._template.streams))
            self._checked = True

    def _is_finished(self) -> bool:
        """Take in what has come and start what can start; tell whether nothing is left."""
        self._client.drain()
        if self._client.welcome is None:
            return False
        self._check_outputs()
        self._client.ask()
        for command in list(self._commands.values()):
            if command.event_range.id in self._client.cancelled:
                self._client.cancelled.discard(command.event_range.id)
                self._end_stopped(command)
                self._client.ask(1)
        while self._client.waiting and len(self._commands) < self._processes:
            self._start(self._client.waiting.popleft())
        return self._client.ended and not self._commands and not self._client.waiting

    def _handle(self, ready: dict[object, int]) -> None:
        for fd in ready:
            if isinstance(fd, int) and fd in self._by_stderr:
                self._read_stderr(self._by_stderr[fd])
        for fd in ready:
            if isinstance(fd, int) and fd in self._commands:
                self._finish(self._commands[fd])

    def _start(self, event_range: EventRange) -> None:
        welcome = self._client.await_welcome()
        outputs = {s: output_path(welcome, event_range.id, s) for s in self._template.streams}
        arguments = self._template.fill(_values(event_range, self._client), outputs)
        _remove(outputs)
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        try:
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stderr=write_end, process_group=0
            )
        except (OSError, ValueError) as error:
            os.close(read_end)
            self._fail(event_range, f"cannot run {arguments[0]!r}: {error}")
            return
        finally:
            os.close(write_end)
        pidfd = os.pidfd_open(process.pid)
        command = Command(event_range, outputs, process, pidfd, read_end, time.monotonic())
        self._commands[pidfd] = self._by_stderr[read_end] = command
        self._poller.register(pidfd, zmq.POLLIN)
        self._poller.register(read_end, zmq.POLLIN)
        self._client.send(native.started(event_range.id))

    def _finish(self, command: Command) -> None:
        _signal_group(command, signal.SIGKILL)  # what the command left in the background
        cpu_s = self._reap(command)
        problem = _problem(command)
        if problem:
            _remove(command.outputs)
            self._fail(command.event_range, problem)
            return
        self._client.send(
            native.done(
                command.event_range.id,
                list(command.outputs.values()),
                cpu_s=cpu_s,
                wall_s=time.monotonic() - command.started,
                events=command.event_range.events,
            )
        )
        self._client.ask(1)

    def _fail(self, event_range: EventRange, diag: str) -> None:
        self._client.send(
            native.failed(event_range.id, CODE_EXECUTION, printable(diag, DIAG_CHARS))
        )
        self._client.ask(1)

    def _reap(self, command: Command) -> float:
        """Forget an ended command and return the CPU seconds of it and its children."""
        if command.stderr >= 0:
            self._read_stderr(command)
        self._close_stderr(command)
        self._poller.unregister(command.pidfd)
        os.close(command.pidfd)
        del self._commands[command.pidfd]
        _, status, usage = os.wait4(command.process.pid, 0)
        command.process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime

    def _read_stderr(self, command: Command) -> None:
        """Pass on what the command wrote and keep its end; at most a bounded amount each time."""
        try:
            chunk = os.read(command.stderr, 65536)
        except BlockingIOError:
            return
        if not chunk:
            self._close_stderr(command)
            return
        _write_stderr(chunk)
        command.tail += chunk
        del command.tail[:-TAIL_BYTES]

    def _close_stderr(self, command: Command) -> None:
        if command.stderr >= 0:
            del self._by_stderr[command.stderr]
            self._poller.unregister(command.stderr)
            os.close(command.stderr)
            command.stderr = -1  # the number is free for the next command's pipe


def _write_stderr(data: bytes) -> None:
    """Write as much as there is room for: a full disk is no reason to end the commands."""
    # Without a buffer: what stays in one makes the exit code 120.
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(sys.stderr.fileno(), data) :]


def _values(event_range: EventRange, client: Client) -> dict[str, str]:
    r = event_range
    pfn = r.pfn or client.await_welcome().inputs.get(r.lfn, "")
    return {
        "startEvent": str(r.start_event),
        "lastEvent": str(r.last_event),
        "events": str(r.events),
        "eventRangeID": r.id,
        "LFN": r.lfn,
        "GUID": r.guid,
        "scope": r.scope,
        "PFN": pfn,
        "input": pfn or r.lfn,
    }


def _problem(command: Command) -> str:
    """Say why a command made no output; empty when it did."""
    code = command.process.returncode
    if code == 0:
        # Not Path.is_file(): that raises for a name too long to exist.
        missing = [path for path in command.outputs.values() if not os.path.isfile(path)]
        return f"exit code 0, but no output {missing[0]}" if missing else ""
    how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
    lines = command.tail.decode(errors="replace").strip().splitlines()
    return f"{how}: {lines[-1]}" if lines else how


def _remove(outputs: dict[int, str]) -> None:
    """Remove outputs that an earlier or failed try left behind."""
    for path in outputs.values():
        with contextlib.suppress(OSError, ValueError):
            Path(path).unlink()


def _signal_group(command: Command, number: int) -> None:
    # The leader is not reaped yet, so its number still is this group's.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(command.process.pid, number)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        template = parse_template(options.template)
        processes = cores() if options.processes is None else options.processes
        if not 1 <= processes <= native.MAX_COUNT:
            raise UsageError(f"--processes {processes}: must be from 1 to {native.MAX_COUNT}")
        return _run(template, processes, channel_address(options.channel))
    except UsageError as error:
        _write_stderr(f"exec_runner: {error}\n".encode(errors="replace"))
        return EXIT_USAGE
    except (EspilotError, OSError) as error:
        _write_stderr(f"exec_runner: {error}\n".encode(errors="replace"))
        return EXIT_FAILURE


def _run(template: Template, processes: int, address: str) -> int:
    stop_fd, wake_fd = os.pipe()
    os.set_blocking(wake_fd, False)
    # The signal only writes into the pipe: an exception at any instant could lose a new child.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)
    client = Client(address, slots=processes, name="exec_runner")
    runner = Runner(client, template, processes)
    flush_s = FLUSH_S
    try:
        code = runner.run(stop_fd)
        flush_s = TERM_FLUSH_S if code == EXIT_TERMINATED else FLUSH_S
        return code
    finally:
        runner.stop()
        client.close(flush_s, lambda: is_readable(stop_fd))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="exec_runner", description="Run one command per event range, several at once."
    )
    parser.add_argument("--processes", type=int, help="commands at once (default: ESPILOT_CORES)")
    parser.add_argument("--channel", help="channel name (default: from the environment)")
    parser.add_argument("template", nargs="+", help="the command with placeholders, after --")
    return parser


if __name__ == "__main__":
    sys.exit(run())
