"""`espilot server`: the built-in event server in the foreground."""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espilot.cli import exit_codes
from espilot.cli.address import address_document
from espilot.cli.server_watch import ServerWatch
from espilot.errors import ConfigError, UsageError
from espilot.server.options import ServerOptions
from espilot.server.queue_file import read_queues
from espilot.server.quirk_text import describe_quirks, read_quirks
from espilot.server.store import Store
from espilot.server.tasks import NewTask, read_new_task
from espilot.supervisor import preflight
from espilot.supervisor.page import serving

_EXAMPLES = """\
examples:
  espilot server --task etc/jobs/zmumu.toml
      serve one task on 127.0.0.1:25080, state in ./espilot-server.db
  espilot server --db /var/tmp/es.db --port 0 --json
      take a free port and print it as {"url": ...}
  espilot server --quirk dialects=v1 --quirk drop_answer=update_event_ranges:3
      only one dialect, and three lost answers
  espilot server --page 25088
      with a live page of all its tasks and jobs
  espilot server --sent-timeout 10 --heartbeat-timeout 600
      give up lost jobs sooner than real servers do

The server ends on SIGTERM or SIGINT; its state survives whatever ends it.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `espilot`'s parser."""
    defaults = ServerOptions()
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "server",
        help="run the built-in event server",
        description="Run the built-in event server (both dialects) until it is told to stop.",
        epilog=_EXAMPLES + "\nquirks:\n" + describe_quirks().replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--db",
        type=Path,
        default=Path("espilot-server.db"),
        metavar="FILE",
        help="database file, made when missing (default: espilot-server.db)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=_port, default=25080, help="port; 0 takes a free one (default: 25080)"
    )
    parser.add_argument(
        "--task",
        type=Path,
        action="append",
        default=[],
        metavar="JOB.toml",
        help="make the task of the [task] table; may be repeated",
    )
    parser.add_argument(
        "--sent-timeout",
        type=_seconds,
        default=defaults.sent_timeout_s,
        metavar="S",
        help="a job without its first heartbeat is lost after S seconds (default: 1800)",
    )
    parser.add_argument(
        "--heartbeat-timeout",
        type=_seconds,
        default=defaults.heartbeat_timeout_s,
        metavar="S",
        help="a running job without heartbeat is lost after S seconds (default: 7200)",
    )
    parser.add_argument(
        "--queues",
        type=Path,
        metavar="FILE.toml",
        help="queues ([[queue]]) and storage endpoints ([[storage]]), for who may run what",
    )
    parser.add_argument(
        "--quirk",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="behave as a real server does, or fail like one; may be repeated, see below",
    )
    parser.add_argument(
        "--page",
        type=_port,
        metavar="PORT",
        help="serve a live page of all tasks and jobs on this port of loopback; 0 takes a free one",
    )
    parser.add_argument("--json", action="store_true", help="print url and tasks as a JSON object")
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"not a port: {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}") from error
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"not a usable number of seconds: {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop; the exit code."""
    preflight.require_framework()
    from espilot.server.app import serve

    queues, endpoints = read_queues(args.queues) if args.queues else ({}, {})
    options = ServerOptions(
        queues=queues,
        endpoints=endpoints,
        sent_timeout_s=args.sent_timeout,
        heartbeat_timeout_s=args.heartbeat_timeout,
        quirks=read_quirks(args.quirk),
    )
    tasks = create_tasks(args.db, args.task, options)

    def tell(url: str) -> None:
        told = address_document(url, tasks=tasks)
        if watch is not None:
            watch.page.url = url
            told["page"] = page_url
        plain = f"{url}   page: {page_url}" if page_url else url
        sys.stdout.write((json.dumps(told) if args.json else plain) + "\n")
        sys.stdout.flush()

    with page_of(args.db, args.page, options) as (watch, page_url):
        serve(db=args.db, host=args.host, port=args.port, options=options, on_listening=tell)
    return exit_codes.FINISHED


@contextmanager
def page_of(
    db: Path, port: int | None, options: ServerOptions
) -> Iterator[tuple[ServerWatch | None, str]]:
    """The live page of this server, if it is wanted, and where it is."""
    if port is None:
        yield None, ""
        return
    watch = ServerWatch(db, lost_after_s=options.heartbeat_timeout_s)
    with serving(watch, port=port) as url:
        yield watch, url


def create_tasks(db: Path, job_files: list[Path], options: ServerOptions) -> list[int]:
    """Make the tasks of some job files in the database; their ids.

    All files are read before anything is made.
    """
    new_tasks = [read_task_file(path) for path in job_files]
    now = time.time()
    store = Store(db, options, now=now)
    try:
        return [store.create_task(task, now) for task in new_tasks]
    finally:
        store.close()


def read_task_file(path: Path) -> NewTask:
    """The `[task]` table of a job file. Errors: `UsageError` that names the file."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    table = document.get("task")
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: there is no [task] table")
    try:
        return read_new_task(table)
    except UsageError as error:
        raise ConfigError(f"{path}: {error}") from error
