"""Checks the merged file of the `zmumu` job and shows the Z peak: in the terminal, and as PNG.

.venv/bin/python etc/jobs/zmumu_peak.py espilot-work/storage/zmumu.root --events 1000
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uproot

LOW_GEV, HIGH_GEV, BIN_GEV = 76.0, 106.0, 2.0
WIDTH = 50


def read_options(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Check and draw the Z peak.")
    parser.add_argument("file", type=Path, help="the merged ROOT file")
    parser.add_argument("--events", type=int, default=0, help="how many there must be")
    return parser.parse_args(argv)


def read_columns(path: Path) -> dict[str, Any]:
    """Event numbers and invariant masses of the two muons in GeV."""
    with uproot.open(path) as file:
        columns: dict[str, Any] = file["events"].arrays(["event", "mass"], library="np")
    return columns


def find_fault(events: Any, wanted: int) -> str:
    """Say what is wrong with the event numbers; "" when each of 1..`wanted` is there once."""
    found = events.tolist()
    if wanted and sorted(found) != list(range(1, wanted + 1)):
        return f"{len(found)} events, {len(set(found))} of them different, instead of 1 to {wanted}"
    return ""


def draw(masses: Any) -> str:
    """Draw a histogram in text."""
    edges = np.arange(LOW_GEV, HIGH_GEV + BIN_GEV, BIN_GEV)
    counts, _ = np.histogram(masses, bins=edges)
    highest = max(1, int(counts.max()))
    rows = [
        f"{low:5.0f} GeV |{'#' * round(WIDTH * count / highest):<{WIDTH}}| {count}"
        for low, count in zip(edges[:-1], counts, strict=True)
    ]
    return "\n".join(rows)


def write_picture(masses: Any, path: Path) -> bool:
    """Draw a histogram as PNG; False without the packages for it."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
        import mplhep
    except ImportError:
        return False
    counts, edges = np.histogram(masses, bins=np.arange(60.0, 121.0, 1.0))
    figure, axes = plt.subplots(figsize=(7, 5))
    mplhep.histplot(
        counts, edges, ax=axes, yerr=np.sqrt(counts), label=f"{len(masses)} events, Pythia 8"
    )
    axes.set(xlabel="invariant mass of the muon pair [GeV]", ylabel="events / GeV")
    axes.legend()
    figure.savefig(path, dpi=120)
    return True


def run(argv: Sequence[str]) -> int:
    """Check, then draw; exit code 1 when an event is missing or comes twice."""
    options = read_options(argv)
    if not options.file.is_file():
        sys.stderr.write(f"there is no {options.file}: run the job first\n")
        return 1
    columns = read_columns(options.file)
    fault = find_fault(columns["event"], options.events)
    if fault:
        sys.stderr.write(f"{options.file}: {fault}\n")
        return 1
    masses = columns["mass"]
    print(f"\ninvariant mass of the muon pair, {len(masses)} events\n")
    print(draw(masses))
    picture = options.file.with_suffix(".png")
    print(f"\nevents:  {options.file}")
    if write_picture(masses, picture):
        print(f"picture: {picture}")
    else:
        print("picture: none, matplotlib and mplhep are not installed")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
