"""`espilot doctor`: could a pilot work here? Each thing is tried for itself."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from espilot import config
from espilot.cli import exit_codes
from espilot.config_files import read_layered
from espilot.diagnosis.examination import CHECKS, examine
from espilot.diagnosis.subject import Finding, State, Subject
from espilot.view.colour import painted, wants_colour
from espilot.view.wording import printable
from espilot.workers.storages import absolute_location

EXAMPLES = """\
examples:
  espilot doctor etc/jobs/zmumu.toml
      could this job run here?
  espilot doctor --workdir /scratch/me --storage s3://bucket/outputs
      with the settings of this machine's pilots, but these places
  espilot doctor --json
      one JSON object, espilot.doctor/1

A small file is written to each storage, read back and deleted; the payload gets one range.
Nothing is left behind. The checks are: {checks}.

exit codes: 0 all is well, 1 something must be done
""".replace("{checks}", ", ".join(CHECKS))
_WIDTH = 12


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="check credentials, server, storage, disk, payload",
        description="Try everything that a run needs; for each thing: ok, or what to do.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "job",
        type=Path,
        nargs="?",
        metavar="JOB.toml",
        help="job file or settings (default: those of this machine's pilots)",
    )
    parser.add_argument(
        "--workdir", type=Path, default=Path("espilot-work"), metavar="DIR",
        help="where the payload would work (default: ./espilot-work)",
    )  # fmt: skip
    parser.add_argument(
        "--storage", default="", metavar="URL",
        help="storage element: directory or URL (default: WORKDIR/storage)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: argparse.Namespace) -> int:
    """Make all checks, print what came of them; the exit code."""
    findings = []
    colour = wants_colour(os.environ, terminal=sys.stdout.isatty())
    for finding in examine(subject_of(args)):
        findings.append(finding)
        if not args.json:
            sys.stdout.write(describe(finding, colour=colour))
            sys.stdout.flush()
    sound = all(finding.state is not State.BAD for finding in findings)
    if args.json:
        rows = [
            {"name": each.name, "state": each.state.value, "text": each.text, "fix": each.fix}
            for each in findings
        ]
        document = {"schema": "espilot.doctor/1", "sound": sound, "checks": rows}
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    return exit_codes.FINISHED if sound else exit_codes.FAILED


def subject_of(args: argparse.Namespace) -> Subject:
    """What is to be checked; `ConfigError` when the settings cannot be read."""
    if args.job is None:
        settings, jobdir = read_layered(None, "", os.environ).settings, Path.cwd()
    else:
        settings, jobdir = config.read_file(args.job), args.job.resolve().parent
    workdir = args.workdir.absolute()
    storage = args.storage or settings.storage
    if not storage and not settings.endpoints:
        storage = str(workdir / "storage")
    storage = absolute_location(storage, Path.cwd())
    return Subject(settings, jobdir, workdir, storage, os.environ)


def describe(finding: Finding, *, colour: bool = False) -> str:
    """One line, and a second one with what to do."""
    state = painted(finding.state.value, f"{finding.state.value:<8}", colour=colour)
    line = f"{finding.name:<{_WIDTH}} {state} {printable(finding.text)}\n"
    return line + (f"{'':<{_WIDTH}} do:      {printable(finding.fix)}\n" if finding.fix else "")
