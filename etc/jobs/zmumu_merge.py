"""Merges the ROOT files of the `zmumu` job into one: the tree `events`, in the order of events.

    zmumu_merge.py --out zmumu.root --in FILE FILE ...      (or @LIST, with one argument a line)

It knows nothing of the pilot. Two files with the same event, or one without any, end it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uproot

TREE = "events"


def read_options(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Merge trees.", fromfile_prefix_chars="@")
    parser.add_argument("--in", dest="inputs", nargs="+", required=True, help="files to merge")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    return parser.parse_args(argv)


def merge(paths: Sequence[str]) -> dict[str, Any]:
    """All columns of the files together, sorted by event number."""
    parts = []
    for path in paths:
        with uproot.open(path) as file:
            parts.append(file[TREE].arrays(library="np"))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["event"], kind="stable")
    return {name: values[order] for name, values in columns.items()}


def run(argv: Sequence[str]) -> int:
    """Merge; exit code 1 when an event comes twice."""
    options = read_options(argv)
    columns = merge(options.inputs)
    events = columns["event"]
    twice = events[:-1][np.diff(events) == 0]
    if len(twice):
        sys.stderr.write(f"event {twice[0]} comes twice\n")
        return 1
    with uproot.recreate(options.out) as file:
        file.mktree(TREE, {name: values.dtype for name, values in columns.items()}).extend(columns)
    print(f"{len(events)} events of {len(options.inputs)} files in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
