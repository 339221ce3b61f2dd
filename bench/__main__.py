"""`python -m bench [--tiny] [NAME ...]`: measure and print one JSON object per line."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module

from bench.rows import Row

NAMES = ("dispatch", "latency", "queue", "pipeline", "rest", "packing", "server", "stageout")
MODULES = {"queue": "queue_cycles"}


def main() -> int:
    """Run the benches that were named, or all, in their order."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--tiny", action="store_true", help="only whether it works: figures lie")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"no bench named {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for name in NAMES:
        if not arguments.names or name in arguments.names:
            bench = import_module(f"bench.{MODULES.get(name, name)}")
            bench.run(emit, tiny=arguments.tiny)
    return 0


def emit(row: Row) -> None:
    """Print a row as soon as it is there."""
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
