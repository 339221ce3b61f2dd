"""Runs many `espilot check-payload --json`, some at a time: the program is imported once only.

Standard input: a JSON list of command lines (what comes after `check-payload --json`). Standard
output: a JSON list of `[exit code, object]` in the same order. Each check has a process of its own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

AT_ONCE = 4


def start(words: list[str], out: Path) -> int:
    """Start a check in a child of ours that writes to `out`; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(fd, 1)
        os.close(fd)
        code = main(["check-payload", "--json", *words])
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


def run_all(lines: list[list[str]], directory: Path) -> list[tuple[int, Any]]:
    """Run all of them; the longest waits, so each is started as soon as another ends."""
    codes: dict[int, int] = {}
    running: dict[int, int] = {}
    waiting = list(enumerate(lines))
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, words = waiting.pop(0)
            running[start(words, directory / str(number))] = number
        pid, status = os.wait()
        codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
    return [(codes[n], read_object(directory / str(n))) for n in range(len(lines))]


def read_object(path: Path) -> Any:
    """What a check printed; null when that is no JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from espilot.cli.main import main

    with tempfile.TemporaryDirectory(prefix="espilot-checks-") as place:
        json.dump(run_all(json.load(sys.stdin), Path(place)), sys.stdout)
