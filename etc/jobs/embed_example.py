"""A program of one's own around the event engine: it keeps the books, the engine runs the payload.

    python3 etc/jobs/embed_example.py --events 200 DIRECTORY -- PAYLOAD ...

The payload is any that espilot runs: a program that speaks the protocol of the channel. Outputs are
moved to DIRECTORY/outputs and noted in DIRECTORY/book.csv; ended at any moment, by Ctrl-C or worse,
the same command goes on where it was.
"""

import argparse
import csv
import shutil
import signal
import sys
import zlib
from pathlib import Path

from espilot.api import EspilotError, EventEngine, EventRange, Outcome

PER_RANGE = 5


class Books:
    """The two hooks, and a table of what is done."""

    def __init__(self, directory: Path, events: int) -> None:
        self.table = directory / "book.csv"
        self.outputs = directory / "outputs"
        self.outputs.mkdir(parents=True, exist_ok=True)
        done = self.read()
        firsts = range(1, events + 1, PER_RANGE)
        ranges = [self.range_from(first, min(first + PER_RANGE - 1, events)) for first in firsts]
        self.left = [each for each in ranges if each.id not in done]

    @staticmethod
    def range_from(first: int, last: int) -> EventRange:
        """A range; its id is ours to choose."""
        return EventRange(f"example-{first}", first, last, "generator", "none", "user")

    def read(self) -> set[str]:
        """The ids that are in the table."""
        if not self.table.exists():
            return set()
        with self.table.open(newline="") as file:
            return {row[0] for row in csv.reader(file) if row}

    def get_event_ranges(self, n: int) -> list[EventRange]:
        """First hook: about n ranges, none when there are no more."""
        portion, self.left = self.left[:n], self.left[n:]
        return portion

    def handle_output(self, outcome: Outcome) -> None:
        """Second hook: the files first, then the books; to hear of a range twice does no harm."""
        sums = []
        for path in map(Path, outcome.paths):
            kept = self.outputs / path.name
            if path.exists():
                shutil.move(path, kept)
            sums.append(f"{zlib.adler32(kept.read_bytes()):08x}")
        if outcome.id not in self.read():
            with self.table.open("a", newline="") as file:
                row = (outcome.id, outcome.state, outcome.events, " ".join(sums), outcome.diag)
                csv.writer(file).writerow(row)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("directory", type=Path)
    parser.add_argument("payload", nargs="+", help="after --: the payload's command")
    options = parser.parse_args()
    books = Books(options.directory, options.events)
    try:
        settings = {"cores": options.cores}
        engine = EventEngine(options.payload, books, options.directory / "work", settings=settings)
        signal.signal(signal.SIGINT, lambda number, frame: engine.stop(grace_s=10.0))
        result = engine.run()
    except EspilotError as error:
        print(f"embed_example: {error}", file=sys.stderr)
        return 1
    print(f"{result.finished} ranges finished, {result.failed} failed, "
          f"{len(result.returned)} left; see {books.table}")  # fmt: skip
    return 0 if not result.failed and not result.returned else 3


if __name__ == "__main__":
    sys.exit(main())
