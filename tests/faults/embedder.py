"""A program that embeds the engine, for tests: another process, with its own books.

    python embedder.py WORKDIR BOOK --events N [--raise-get K] [--raise-handle K] [--stop-after K]
                       [--slow-ms MS] [--dialect D] [--outputs WAY] -- PAYLOAD ...

What it has handled is a line in BOOK: id, state, content is right, code; ranges that are there are
not handed out again. The last line of stdout is a JSON object about the result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from espilot.api import EventEngine, EventRange, Outcome
from espilot.payload.fake.content import expected_content

FEW = 3
"""It gives ranges in small portions, and now and then none yet."""


class Embedder:
    """The hooks."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.book: Path = options.book
        ids = [f"7-8-9-{n}-1" for n in range(1, options.events + 1)]
        self.left = [EventRange(i, n, n, "f", "G", "s") for n, i in enumerate(ids, 1)]
        self.given: list[str] = []
        self.calls = self.handled = 0
        self.threads: set[int] = set()
        self.engine: EventEngine | None = None

    def known(self) -> set[str]:
        """What is in the book."""
        lines = self.book.read_text().splitlines() if self.book.exists() else []
        return {json.loads(line)["id"] for line in lines}

    def get_event_ranges(self, n: int) -> list[EventRange] | None:
        """Some of what is left."""
        self.calls += 1
        self.threads.add(threading.get_ident())
        if self.calls == self.options.raise_get:
            raise RuntimeError("the source of ranges is broken")
        if self.calls == 2:
            return None
        known = self.known()
        self.left = [each for each in self.left if each.id not in known]
        portion, self.left = self.left[: min(n, FEW)], self.left[min(n, FEW) :]
        self.given += [each.id for each in portion]
        return portion

    def handle_output(self, outcome: Outcome) -> None:
        """Write it into the book and take the files."""
        self.handled += 1
        if self.handled == self.options.raise_handle:
            raise RuntimeError("the sink of outputs is broken")
        time.sleep(self.options.slow_ms / 1000)
        right = [Path(path).read_bytes() == expected_content(outcome.id, 100)
                 for path in outcome.paths]  # fmt: skip
        line = {"id": outcome.id, "state": outcome.state, "right": right, "code": outcome.code}
        with self.book.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.handled == self.options.stop_after and self.engine is not None:
            self.engine.stop(self.options.grace_s)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=Path)
    parser.add_argument("book", type=Path)
    parser.add_argument("--events", type=int, default=60)
    parser.add_argument("--raise-get", type=int, default=0)
    parser.add_argument("--raise-handle", type=int, default=0)
    parser.add_argument("--stop-after", type=int, default=0)
    parser.add_argument("--grace-s", type=float, default=5.0)
    parser.add_argument("--slow-ms", type=int, default=0)
    parser.add_argument("--outputs", default="reported")
    parser.add_argument("payload", nargs="+")
    options = parser.parse_args()
    hooks = Embedder(options)
    settings = {"cores": 2, "outputs": options.outputs, "term_grace_s": 2.0}
    engine = EventEngine(options.payload, hooks, options.workdir, settings=settings)
    hooks.engine = engine
    # A child of its own, of which the engine must not take the exit code.
    own = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(5)"])
    result = engine.run()
    facts = {name: getattr(result, name) for name in result.__slots__}
    facts |= {"given": hooks.given, "own": own.wait()}
    facts["in_main"] = threading.get_ident() in hooks.threads
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
