"""The command line of the fake payload."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espilot.errors import UsageError
from espilot.payload.client import channel_address
from espilot.payload.ranges import OUTPUT_DIR_VARIABLE

EVERY: Mapping[str, str] = {
    "fail": "report it failed instead of making an output",
    "parse-error": "claim not to understand it",
    "report-twice": "report its output twice",
    "report-unknown": "report, besides, an output for a range that nobody handed out",
    "path-outside": "report a file outside the work directory: absolute, by .., by symlink in turn",
    "missing-file": "report an output that does not exist",
    "empty-file": "make an output of 0 bytes",
    "change-after-report": "append to its output after reporting it",
    "garbage": "send bytes that are no message before its report",
    "oversize": "send a message of 2 MiB after its report (it cuts the connection)",
}
"""Faults that happen at every K-th range, and what they do."""

_COUNTS = (
    ("--outsize", "BYTES", 100, "size of each output file"),
    ("--nfiles", "N", 1, "output files per range"),
    ("--delay-ms", "MS", 0, "time spent on each range"),
    ("--jitter-ms", "MS", 0, "up to so much more, at random"),
    ("--outstanding", "N", 1, "requests in flight per client"),
    ("--clients", "N", 1, "client processes"),
    ("--start-ms", "MS", 0, "time before the channel is opened, as a slow start"),
    ("--max-ranges", "N", None, "take at most N ranges per client, then end in good order"),
    ("--exit-delay-ms", "MS", 0, "time between the last report and the exit"),
    ("--hang-after", "K", None, "after K ranges stop for ever, with the next one in hand"),
    ("--crash-after", "K", None, "after K ranges crash, with the next one in hand"),
    ("--exit-early", "K", None, "after K ranges exit 0 without having been told to"),
    ("--orphans", "N", 0, "leave N processes in sessions of their own that ignore SIGTERM"),
    ("--spawn", "N", 0, "start N ordinary child processes that live long"),
    ("--flood-stdout", "BYTES", 0, "write so much to stdout after the first range"),
    ("--eat-memory", "BYTES", 0, "take so much memory after the first range"),
    ("--eat-disk", "BYTES", 0, "write so much into OUTDIR/eaten after the first range"),
)
_POSITIVE = ("--nfiles", "--outstanding", "--clients")
_SWITCHES = (
    ("--no-request", "open the channel and never ask"),
    ("--flood-ready", "ask 10,000 times at once before reading any answer"),
    ("--ignore-term", "ignore SIGTERM"),
    ("--replay-timing", "with --replay: keep the recorded distances in time"),
    ("--json", "print one JSON object about what was done as the last line of stdout"),
)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_EPILOG = """\
K counts the ranges of each client. Faults combine. What is started or eaten is done by the first
client only. BYTES may end in k, M or G. A client that crashes or hangs delivers no more of what it
has queued; every other end does.
--replay says what `espilot run --record FILE` has written down: the same messages in the same
order, with the ids that the pilot hands out now. Exit code 64: wrong usage.

examples:
  fake-payload --channel NAME --outdir out --clients 4 --json
  fake-payload --dialect native --outstanding 8 --delay-ms 20 --jitter-ms 5
  fake-payload --fail-every 10 --garbage 7 --report-twice 3
  fake-payload --crash-after 25 --crash-how segv --orphans 2
  fake-payload --replay channel.record
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the fake payload shall do. Counts that are None mean never."""

    dialect: str
    address: str
    outdir: str
    prefix: str
    name: str
    crash_how: str
    every: Mapping[str, int]
    outsize: int
    nfiles: int
    delay_ms: int
    jitter_ms: int
    outstanding: int
    clients: int
    start_ms: int
    max_ranges: int | None
    exit_delay_ms: int
    hang_after: int | None
    crash_after: int | None
    exit_early: int | None
    orphans: int
    spawn: int
    flood_stdout: int
    eat_memory: int
    eat_disk: int
    no_request: bool
    flood_ready: bool
    ignore_term: bool
    replay: str
    replay_epoch: int | None
    replay_timing: bool
    json: bool

    @property
    def is_plain(self) -> bool:
        """Whether the lean loop can do it: text, one file, no delay, no fault."""
        special = (
            self.every,
            self.delay_ms,
            self.jitter_ms,
            self.flood_stdout,
            self.eat_memory,
            self.eat_disk,
            self.no_request,
            self.flood_ready,
        )
        limits = (self.max_ranges, self.hang_after, self.crash_after, self.exit_early)
        plain = self.dialect == "text" and self.nfiles == 1
        return plain and not any(special) and all(limit is None for limit in limits)


def parse_options(arguments: Sequence[str] | None) -> Options:
    """Return the options; `UsageError` when there is no usable channel or output directory."""
    found = vars(_parser().parse_args(arguments))
    every = {name: found.pop(name.replace("-", "_") + "_every") for name in EVERY}
    outdir = Path(found.pop("outdir") or os.environ.get(OUTPUT_DIR_VARIABLE) or ".").absolute()
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--outdir {str(outdir)!r}: {error.strerror}") from None
    return Options(
        address=channel_address(found.pop("channel")),
        outdir=str(outdir),
        every={name: k for name, k in every.items() if k is not None},
        **found,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fake-payload",
        description="A payload for protocol tests. It makes small files instead of physics.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--dialect", choices=("text", "native"), default="text", help="default: text")
    add("--channel", metavar="NAME", help="default: $PILOT_EVENTRANGECHANNEL")
    add("--outdir", metavar="DIR", help=f"default: ${OUTPUT_DIR_VARIABLE}, else here")
    add("--prefix", metavar="NAME", default="output", help="outputs are named NAME.<range id>")
    add("--name", metavar="ID", default="", help="name of the client, as the identity it keeps")
    for flag, metavar, default, text in _COUNTS:
        shown = text if default is None else f"{text} (default: {default})"
        kind = _positive if flag in _POSITIVE else _count
        add(flag, metavar=metavar, type=kind, default=default, help=shown)
    add("--replay", metavar="FILE", default="", help="play the payload's side of a record again")
    epoch = "which start of the payload (default: N of an output directory payload-N, or the first)"
    add("--replay-epoch", metavar="N", type=_count, help=epoch)
    add("--crash-how", metavar="HOW", type=_crash, default="kill", help="segv abort kill exitN")
    for flag, text in _SWITCHES:
        add(flag, action="store_true", help=text)
    for name, text in EVERY.items():
        flags = _every_flags(name)
        dest = name.replace("-", "_") + "_every"
        add(*flags, dest=dest, metavar="K", type=_positive, help=f"every K-th range: {text}")
    return parser


def _every_flags(name: str) -> tuple[str, ...]:
    return (f"--{name}-every",) if name in ("fail", "parse-error") else (f"--{name}",)


def _count(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15})([kKmMgG]?)", text, re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 0")
    return int(match[1]) * _UNITS[match[2].lower()]


def _positive(text: str) -> int:
    value = _count(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1")
    return value


def _crash(text: str) -> str:
    if text in ("segv", "abort", "kill") or re.fullmatch(r"exit\d{1,3}", text, re.ASCII):
        return text
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is not segv, abort, kill or exitN")
