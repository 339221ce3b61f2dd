"""`espilot check-payload`: does a payload speak the protocol right?"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

from espilot.check import report
from espilot.check.campaign import Campaign, chosen_cases, directory_of
from espilot.check.cases import CASES, IMAGINED, Input, untellable
from espilot.check.wishes import Result, Wishes
from espilot.cli import exit_codes
from espilot.cli.command_words import absolute_words, is_template
from espilot.config import split_input
from espilot.errors import LocalError, UsageError
from espilot.payload.template import parse_template

EXAMPLES = """\
examples:
  espilot check-payload -- ./my-payload --threads 2
      a payload that speaks a dialect of the channel
  espilot check-payload -- ./my-sim --first {startEvent} --last {lastEvent} --out {output}
      a command that is run once for each range: its template names {output}
  espilot check-payload --only plain --only sigterm --timeout 60 --junit check.xml -- ./my-payload
      two of the cases, for a payload that starts slowly; a report for a CI system

The payload is started once for each case, as the pilot starts it: without a shell, in a session and
a directory of its own, with its stdout in a file. What it does wrong is named, explained and
referred to docs/payload-protocol.md. The cases are: {cases}.

exit codes: 0 sound, 1 something was found, 64 wrong usage, 73 this node
""".replace("{cases}", ", ".join(case.name for case in CASES))
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "check-payload",
        help="check whether a payload speaks the protocol right",
        description="Play a pilot that is slow, fast, impatient, odd, stops early, goes away or "
        "sends SIGTERM, and check what the payload says and does.",
        usage="espilot check-payload [options] -- COMMAND [ARGUMENT ...]",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("words", nargs="+", metavar="COMMAND", help="the payload's command and its arguments")
    add("--json", action="store_true", help="print one JSON object (espilot.check/1)")
    add("--junit", type=Path, metavar="FILE", help="write a JUnit report too")
    add("--dialect", choices=("auto", "text", "native"), default="auto",
        help="the dialect that it must speak (default: auto)")  # fmt: skip
    add("--timeout", type=_seconds, default=20.0, metavar="S",
        help="longest silence without CPU use, for a range or the start, and longest time from "
        "SIGTERM to the end (default: 20)")  # fmt: skip
    add("--only", action="append", default=[], metavar="CASE", help="only this case; repeatable")
    add("--cores", type=_positive, default=2, metavar="N", help="ESPILOT_CORES (default: 2)")
    add("--input", action="append", default=[], metavar="PATH:EVENTS",
        help="a real input file and how many events it has; repeatable")  # fmt: skip
    add("--jobs", type=_positive, metavar="N", help="cases at the same time (default: by cores)")
    add("--workdir", type=Path, metavar="DIR", help="keep outputs and logs of the cases here")
    add("--log-limit", type=_size, default=2**20, metavar="BYTES",
        help="stdout and stderr of one case (default: 1M)")  # fmt: skip
    add("--memory-growth", type=_size, default=2**26, metavar="BYTES",
        help="growth of one process after its first range (default: 64M)")  # fmt: skip
    add("--stray-limit", type=_size, default=2**20, metavar="BYTES",
        help="files that are left behind unreported (default: 1M)")  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> int:
    """Check, report; the exit code."""
    wishes = wishes_of(args)
    cases = chosen_cases(args.only)
    jobs = args.jobs or max(2, (os.cpu_count() or 1) // args.cores)
    _check_junit(args.junit)
    with directory_of(args.workdir) as directory:
        show = _silent if args.json else _show
        verdict = Campaign(wishes, cases, directory, jobs=jobs, on_result=show).run()
    if args.junit is not None:
        _write(args.junit, report.junit(verdict))
    text = json.dumps(report.document(verdict)) + "\n" if args.json else report.describe(verdict)
    sys.stdout.write(text)
    sys.stdout.flush()
    return exit_codes.FINISHED if verdict.sound else exit_codes.FAILED


def wishes_of(args: argparse.Namespace) -> Wishes:
    """What shall be checked; `UsageError` names an argument that cannot be used."""
    words = absolute_words(args.words)
    template = is_template(words)
    if template:
        parse_template(words)
    return Wishes(
        words=words,
        exec=template,
        dialect=args.dialect,
        timeout_s=args.timeout,
        cores=args.cores,
        inputs=tuple(map(_input, args.input)) or (IMAGINED,),
        log_limit_bytes=args.log_limit,
        memory_growth_bytes=args.memory_growth,
        stray_limit_bytes=args.stray_limit,
    )


def _input(text: str) -> Input:
    try:
        path, events = split_input(text)
    except ValueError:  # thousands of digits
        path, events = text, None
    if not events or not os.path.isfile(path):
        raise UsageError(f"--input {text!r:.80}: give an existing file and its events: PATH:EVENTS")
    source = Input(str(Path(path).absolute()), events)
    if why := untellable(source):
        raise UsageError(
            f"--input {text!r:.80}: {why}; name it by a link without commas, quotes, backslashes, "
            "braces and brackets, and its real number of events"
        )
    return source


def _check_junit(path: Path | None) -> None:
    """Say now, not after the check, that the report cannot be written."""
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"--junit {path}: there is no directory {path.parent}")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from None


def _show(result: Result) -> None:
    sys.stdout.write(report.line_of(result) + "\n")
    sys.stdout.flush()


def _silent(result: Result) -> None:
    """With --json there is only the object."""


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.5 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of seconds from 0.5 on")
    return value


def _positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,3}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 1 on")
    return int(text)


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15})([kKmMgG]?)", text, re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a size such as 500k or 64M")
    return int(match[1]) * _UNITS[match[2].lower()]
