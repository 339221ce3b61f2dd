"""`espilot bundle`: one archive for support, secrets removed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from espilot.cli import exit_codes
from espilot.cli.status import add_directory
from espilot.supervisor.bundle import write_bundle
from espilot.supervisor.statedir import find_state

EXAMPLES = """\
examples:
  espilot bundle
      of the run in ./espilot-work, into a file here
  espilot bundle /scratch/me --output /tmp/for-support.tar.gz

It holds status, settings, logs, queue and story of the ranges, what the payload printed, figures of
the control group and the journal of a service; no event data.
Passwords, tokens, keys, proxies and what is secret in URLs are replaced by [removed]; look through
it all the same before you pass it on.

exit codes: 0 written, 64 there is no run, 73 it cannot be written
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bundle",
        help="one archive for support, secrets removed",
        description="Put what tells about a run into one archive, without its secrets.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_directory(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write it (default: ./espilot-bundle-TIME.tar.gz)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the bundle and say where it is; the exit code."""
    now = time.time()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    target = (args.output or Path(f"espilot-bundle-{stamp}.tar.gz")).absolute()
    names = write_bundle(find_state(args.dir), target, os.environ, now=now)
    if args.json:
        document = {"schema": "espilot.bundle/1", "file": str(target), "members": names}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.write(f"{target}: {len(names)} files, secrets removed\n")
        sys.stdout.write(f"try next: tar -tzf {target}   # look before you pass it on\n")
    sys.stdout.flush()
    return exit_codes.FINISHED
