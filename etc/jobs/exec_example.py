"""A program that knows nothing of espilot: writes one line per event into a file."""

import argparse
import math
from pathlib import Path


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compute something for each event.")
    parser.add_argument("--first", type=int, required=True, help="first event")
    parser.add_argument("--last", type=int, required=True, help="last event, itself included")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args()
    events = range(options.first, options.last + 1)
    options.out.write_text("".join(f"{event} {math.sqrt(event):.9f}\n" for event in events))


if __name__ == "__main__":
    main()
