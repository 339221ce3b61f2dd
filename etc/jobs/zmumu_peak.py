"""Shows the Z peak of a finished `zmumu` job in the terminal.

    .venv/bin/python etc/jobs/zmumu_peak.py espilot-work/storage

Reads the ROOT files straight out of the archives on the storage.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import uproot

LOW_GEV, HIGH_GEV, BIN_GEV = 76.0, 106.0, 2.0
WIDTH = 50


def read_masses(storage: Path) -> dict[int, float]:
    """The invariant mass of the two muons in GeV, by event number."""
    masses: dict[int, float] = {}
    for archive in sorted(storage.glob("*.tar")):
        for data in read_members(archive):
            with uproot.open(io.BytesIO(data)) as file:
                arrays: Any = file["events"].arrays(["event", "mass"], library="np")
            masses.update(zip(arrays["event"].tolist(), arrays["mass"].tolist(), strict=True))
    return masses


def read_members(archive: Path) -> Iterator[bytes]:
    """The files in an archive."""
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                yield file.read()


def draw(masses: list[float]) -> str:
    """A histogram in text."""
    edges = np.arange(LOW_GEV, HIGH_GEV + BIN_GEV, BIN_GEV)
    counts, _ = np.histogram(masses, bins=edges)
    highest = max(1, int(counts.max()))
    rows = [
        f"{low:5.0f} GeV |{'#' * round(WIDTH * count / highest):<{WIDTH}}| {count}"
        for low, count in zip(edges[:-1], counts, strict=True)
    ]
    return "\n".join(rows)


def run(storage: Path) -> int:
    """Draw what is on the storage; exit code 1 when there is nothing."""
    masses = read_masses(storage)
    if not masses:
        sys.stderr.write(f"no archives with events in {storage}: run the job first\n")
        return 1
    print(f"\ninvariant mass of the muon pair, {len(masses)} events from {storage}\n")
    print(draw(list(masses.values())))
    return 0


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1] if len(sys.argv) > 1 else "espilot-work/storage")))
