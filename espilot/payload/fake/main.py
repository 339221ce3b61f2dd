"""The command `fake-payload`."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from types import FrameType

from espilot.errors import PayloadError, UsageError
from espilot.payload.fake.client import run_client
from espilot.payload.fake.counts import Counts, summary, unpacked
from espilot.payload.fake.options import Options, parse_options
from espilot.payload.fake.replay import Replay, read_epoch

EXIT_USAGE = 64


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        options = parse_options(arguments)
        if options.replay:
            return _replay(options)
    except UsageError as error:
        sys.stderr.write(f"fake-payload: {error}\n")
        return EXIT_USAGE
    if options.clients == 1:
        all_counts, code = [run_client(options, 0)], 0
    else:
        all_counts, code = _run_clients(options)
    if options.json:
        sys.stdout.write(json.dumps(summary(all_counts)) + "\n")
        sys.stdout.flush()
    return code


def _replay(options: Options) -> int:
    """Play a record again; exit code 1 when the pilot does not answer."""
    epoch = read_epoch(options.replay, options.replay_epoch, options.outdir)
    replay = Replay(*epoch, options.address, options.outdir)
    code = 0
    try:
        replay.run(timed=options.replay_timing)
    except PayloadError as error:
        sys.stderr.write(f"fake-payload: {error}\n")
        code = 1
    finally:
        replay.close()
    if options.json:
        sys.stdout.write(json.dumps(asdict(replay.tally)) + "\n")
    return code


def _run_clients(options: Options) -> tuple[list[Counts], int]:
    """Run each client in a process of its own; return their counts and the worst exit code."""
    children: dict[int, int] = {}  # pid: pipe with its counts

    def forward(number: int, frame: FrameType | None) -> None:
        for pid in children:
            os.kill(pid, number)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.ignore_term else forward)
    for index in range(options.clients):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _become_client(options, index, write_end)
        os.close(write_end)
        children[pid] = read_end
    all_counts, worst = [], 0
    for pid, read_end in list(children.items()):
        with os.fdopen(read_end, "rb") as pipe:
            data = pipe.read()
        if data:
            all_counts.append(unpacked(data))
        worst = max(worst, _exit_code(pid))
        del children[pid]
    return all_counts, worst


def _become_client(options: Options, index: int, write_end: int) -> None:
    code = 1
    try:
        counts = run_client(options, index)
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(counts.packed())
        code = 0
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001  (the top of a process)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_code(pid: int) -> int:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - code if code < 0 else code
