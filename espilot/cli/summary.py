"""What is said of a run: what was found at its start, and how it ended."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, TextIO

from espilot.logs import open_log
from espilot.supervisor.outcome import Outcome
from espilot.supervisor.recovery import Found
from espilot.view.colour import painted, wants_colour
from espilot.view.wording import plural, size_text
from espilot.workers.context import Context


def tell(found: Found, context: Context, out: TextIO) -> None:
    """What an earlier pilot left, to the person and to the log."""
    log = open_log("supervisor", context.log_file)
    for line in found.lines():
        out.write(f"{line}\n")
        log.info("recover", line)
    out.flush()


def summarise(outcome: Outcome, context: Context, wall_s: float) -> dict[str, Any]:
    """The summary object, `espilot.summary/1`."""
    task, counts = outcome.task, outcome.counts
    total = task.get("total", context.settings.task.total_ranges)
    ended = {name: task.get(name, 0) for name in ("finished", "failed", "fatal")}
    return {
        "schema": "espilot.summary/1",
        "state": outcome.state,
        "ranges": {"total": total, **ended, "released": total - sum(ended.values())},
        "events": task.get("events_finished", 0),
        "jobs": outcome.jobs,
        "archives": counts.archives if counts else 0,
        "bytes": counts.bytes if counts else 0,
        "wall_s": round(wall_s, 3),
        "storage": context.storage,
        "workdir": str(context.workdir),
    }


def describe(summary: dict[str, Any], reason: str) -> str:
    """The summary in words, and what to try next."""
    ranges = summary["ranges"]
    lines = [
        f"{summary['state']}: {ranges['finished']} of {ranges['total']} ranges, "
        f"{summary['events']} events in {summary['wall_s']:.1f} s",
    ]
    if reason:
        lines.append(f"reason: {reason}")
    if ranges["failed"] or ranges["fatal"] or ranges["released"]:
        lines.append(
            f"failed {ranges['failed']}, fatal {ranges['fatal']}, given back {ranges['released']}"
        )
    storage, workdir = summary["storage"], Path(summary["workdir"])
    if summary["archives"]:
        archives, size = plural(summary["archives"], "archive"), size_text(summary["bytes"])
        lines.append(f"outputs: {archives}, {size}, in {storage}")
    lines.append(f"log: {workdir / 'logs' / 'pilot.log'}")
    lines.append(f"try next: {next_step(summary)}")
    return "\n".join(lines) + "\n"


def next_step(summary: dict[str, Any]) -> str:
    """A command worth trying after this run."""
    workdir, storage = Path(summary["workdir"]), str(summary["storage"])
    place = shlex.quote(str(workdir))
    if summary["state"] == "drained":
        return f"espilot recover {place}   # or the same command: goes on from here"
    ranges = summary["ranges"]
    if summary["state"] == "failed" and ranges["failed"] + ranges["fatal"]:
        return f"espilot report {place} > report.html   # which ranges failed, and why"
    if summary["state"] == "failed":
        log = shlex.quote(str(workdir / "logs" / "pilot.log"))
        return f"grep -E 'warning|error' {log}   # what went wrong"
    if storage.startswith("/") and not (workdir / "outputs").is_dir():
        archives = f"{shlex.quote(storage)}/*.tar"
        return f"tar -tf $(ls {archives} | head -1)   # what is inside an archive"
    return f"espilot report {place} > report.html   # the run as a page for your browser"


def say_end(summary: dict[str, Any], reason: str, *, as_json: bool) -> None:
    """Print the summary on stdout, for a program or for people."""
    if as_json:
        sys.stdout.write(json.dumps(summary) + "\n")
    else:
        state = str(summary["state"])
        colour = wants_colour(os.environ, terminal=sys.stdout.isatty())
        text = describe(summary, reason).removeprefix(state)
        sys.stdout.write(painted(state, state, colour=colour) + text)
    sys.stdout.flush()
