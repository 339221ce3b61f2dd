"""`espilot page`: the live page of a pilot."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from espilot.cli import exit_codes
from espilot.cli.address import address_document
from espilot.cli.status import add_directory
from espilot.supervisor.page import serving
from espilot.supervisor.statedir import find_state
from espilot.supervisor.watch import PilotWatch

PORT = 25088
EXAMPLES = """\
examples:
  espilot page
      the pilot of ./espilot-work on http://127.0.0.1:25088/
  espilot page /scratch/me --port 0 --json
      take a free port and print it as one JSON object
  espilot page --socket page.sock
      on a UNIX socket that only you can open; from elsewhere:
      ssh -L 25088:/path/of/page.sock node   and then http://localhost:25088/

Nobody but this machine is served, and nothing can be changed by it. On a machine with other users
take --socket: a port of loopback is open to all of them.

exit codes: 0 ended by SIGTERM or SIGINT, 64 there is no run, 70 the address cannot be had
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "page",
        help="a live page for a browser",
        description="Serve the live page of a pilot, alive or dead, until told to stop.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_directory(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--port", type=read_port, default=PORT, help=f"port; 0 takes a free one (default: {PORT})"
    )
    where.add_argument("--socket", type=Path, metavar="PATH", help="serve on a UNIX socket")
    parser.add_argument("--json", action="store_true", help="print the url as a JSON object")
    return parser


def read_port(text: str) -> int:
    """A port number."""
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"not a port: {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop; the exit code."""
    state = find_state(args.dir)
    with (
        until_told() as told,
        closing(PilotWatch(state)) as watch,
        serving(watch, port=args.port, path=args.socket) as url,
    ):
        line = json.dumps(address_document(url)) if args.json else f"{url}   (Ctrl-C ends it)"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        told.wait()
    return exit_codes.FINISHED


@contextmanager
def until_told() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set."""
    told = threading.Event()

    def tell(number: int, frame: FrameType | None) -> None:
        told.set()

    former = {each: signal.signal(each, tell) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
