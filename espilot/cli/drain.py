"""`espilot drain`: end a running pilot early, in good order."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espilot.cli import exit_codes
from espilot.supervisor.drain_call import how_it_ended, request_drain, wait_for_end
from espilot.supervisor.statedir import find_state

ASK_S = 5.0
LATE_S = 10.0
"""With --wait: so long after the deadline the pilot is no longer waited for."""

EXAMPLES = """\
examples:
  espilot drain
      no more ranges are begun; the pilot of ./espilot-work ends when all is shipped
  espilot drain /scratch/me --deadline 25s --wait
      be gone in 25 s, and tell how it ended (for a preStop hook, for example)
  espilot drain --plan --deadline 30s
      only show what would happen; also of what a dead pilot has left

A drained run is gone on with by `espilot recover DIR`, or by the same `espilot run`.

exit codes: 0 the pilot drains (or --plan); with --wait those of `espilot run` (3 drained);
64 wrong usage, 73 no pilot runs there, 75 it does not answer, or it is late
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "drain",
        help="end a running pilot early, losing nothing",
        description="Hand out no more ranges, ship and report what is done, give back the rest.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "dir",
        type=Path,
        nargs="?",
        default=Path("espilot-work"),
        metavar="DIR",
        help="work or state directory of the run (default: ./espilot-work)",
    )
    parser.add_argument(
        "--deadline",
        default="",
        metavar="TIME",
        help="when the pilot must be gone: a duration such as 30s or 5min, or a Unix time",
    )
    parser.add_argument("--wait", action="store_true", help="wait for the end of the pilot")
    parser.add_argument("--plan", action="store_true", help="show the plan, do nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: argparse.Namespace) -> int:
    """Ask the pilot; the exit code."""
    state = find_state(args.dir)
    answer = request_drain(state, deadline=args.deadline, plan_only=args.plan, timeout_s=ASK_S)
    if answer is None:
        sys.stderr.write(f"espilot drain: the pilot of {state} does not answer\n")
        return exit_codes.UNAVAILABLE
    document = {"schema": "espilot.drain/1", "planned": args.plan, **answer}
    sys.stdout.write(json.dumps(document) + "\n" if args.json else describe(document))
    sys.stdout.flush()
    if args.plan or not args.wait:
        return exit_codes.FINISHED
    return wait(state, document)


def wait(state: Path, document: Mapping[str, Any]) -> int:
    """Wait for the pilot's end; the exit code that it had, by what it wrote down."""
    left_s = document["left_s"]
    if not wait_for_end(document["pid"], None if left_s is None else left_s + LATE_S):
        sys.stderr.write(f"espilot drain: the pilot (process {document['pid']}) is late\n")
        return exit_codes.UNAVAILABLE
    how = how_it_ended(state)
    sys.stderr.write(f"the pilot has ended: {how}\n")
    return exit_codes.BY_STATE.get(how, exit_codes.FAILED)


def describe(document: Mapping[str, Any]) -> str:
    """The plan in words: the steps with their budgets, and what becomes of the ranges."""
    left_s, source = document["left_s"], document["deadline_source"]
    verb = "would drain" if document["planned"] and not document["draining"] else "drains"
    when = "no deadline is known" if left_s is None else f"{left_s:.1f} s are left"
    by = f" ({source})" if source else ""
    who = f"the pilot (process {document['pid']}) {verb}"
    if document["pid"] is None:
        who = "no pilot runs; espilot recover would ship and report what one has left"
    lines = [f"{who}; {when}{by}", ""]
    lines.append(f"  {'from':>8}  {'budget':>8}  step")
    for step in document["steps"]:
        lines.append(
            f"  {step['begin_s']:7.1f}s  {step['budget_s']:7.1f}s  {step['name']}: {step['what']}"
        )
    lines += ["", f"  safe and reported: {document['safe']} ranges"]
    lines.append(f"  given back:        {document['back']} ranges")
    for name, text in (("kept", "kept for recover: "), ("lost", "to be done again:  ")):
        if document[name]:
            lines.append(f"  {text} {document[name]} ranges")
    return "\n".join(lines) + "\n"
