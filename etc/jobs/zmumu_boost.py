"""A payload with an input file: the transverse momentum of the Z in each event of a range."""

from __future__ import annotations

import sys

import numpy as np
import uproot

from espilot.payload import EventRanges, RangeInHand
from espilot.payload.pool import run_processes

MUONS = ("muminus", "muplus")


def process(event_range: RangeInHand) -> None:
    """Read the events of one range where the pilot says that they are, and write what follows."""
    names = ["event", *(f"{muon}_{axis}" for muon in MUONS for axis in ("px", "py"))]
    with uproot.open(event_range.pfn) as file:
        columns = file["events"].arrays(
            names,
            entry_start=event_range.start_event - 1,
            entry_stop=event_range.last_event,
            library="np",
        )
    px, py = (sum(columns[f"{muon}_{axis}"] for muon in MUONS) for axis in ("px", "py"))
    path = event_range.output_path()
    with uproot.recreate(path) as out:
        out["events"] = {"event": columns["event"], "z_pt": np.hypot(px, py)}
    event_range.done(path)


def work(index: int) -> None:
    """Be one process of the payload."""
    with EventRanges(name=f"boost-{index}") as event_ranges:
        for event_range in event_ranges:
            process(event_range)


if __name__ == "__main__":
    sys.exit(run_processes(work))
