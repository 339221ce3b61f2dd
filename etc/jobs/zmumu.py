"""Z -> mu mu in proton collisions at 13 TeV, made by Pythia 8: the demonstration payload.

Each event is a pure function of the task's name and the event number, whoever makes it and whatever
was made before: the generator is set up with a fixed seed, and before each event its random numbers
start anew from a seed of that event. One ROOT file per range, tree `events`.
"""

from __future__ import annotations

import hashlib
import os
import sys
from typing import Any

import numpy as np
import pythia8mc
import uproot

from espilot.payload import EventRanges, RangeInHand
from espilot.payload.pool import run_processes

TASK_VARIABLE = "ESPILOT_TASK"
SEEDS = 900_000_000  # Pythia takes seeds from 1 to this
STRIDE = 387_420_487  # shares no factor with SEEDS, so no two events of a task share a seed
TRIES = 20
MUON = 13
HARD_PROCESS_Z = 5  # where Pythia puts the Z of this process into its event record

SETTINGS = (
    "Print:quiet = on",
    "Beams:idA = 2212",
    "Beams:idB = 2212",
    "Beams:eCM = 13000.",
    "WeakSingleBoson:ffbar2gmZ = on",
    "23:onMode = off",
    "23:onIfAny = 13",
    "PhaseSpace:mHatMin = 60.",
    "Random:setSeed = on",
    "Random:seed = 1",  # of the set-up only; every event has its own
)

COLUMNS = {"event": np.dtype("i8"), "mass": np.dtype("f8")} | {
    f"mu{sign}_{name}": np.dtype("i4" if name == "charge" else "f8")
    for sign in ("minus", "plus")
    for name in ("px", "py", "pz", "e", "charge")
}
"""The branches of the tree, in order, with their types; momenta and energies in GeV."""


def event_seed(task: str, event: int) -> int:
    """Return the seed of one event, from 1 to `SEEDS`."""
    offset = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8])
    return 1 + (offset + event * STRIDE) % SEEDS


def make_generator() -> Any:
    """Return a Pythia that is ready to make events."""
    pythia = pythia8mc.Pythia("", False)
    for setting in SETTINGS:
        if not pythia.readString(setting):
            raise RuntimeError(f"Pythia does not know the setting {setting!r}")
    if not pythia.init():
        raise RuntimeError("Pythia could not be initialised")
    return pythia


def generate(pythia: Any, task: str, event: int) -> dict[str, float]:
    """Return one event as a row of `COLUMNS`."""
    pythia.rndm.init(event_seed(task, event))
    # A failed try goes on with the same random numbers, so the retry is reproducible as well.
    if not any(pythia.next() for _ in range(TRIES)):
        raise RuntimeError(f"Pythia failed {TRIES} times at event {event}")
    record = pythia.event
    z = record[record[HARD_PROCESS_Z].iBotCopyId()]
    row: dict[str, float] = {"event": event, "mass": z.m()}
    for index in z.daughterList():
        if abs(record[index].id()) == MUON:
            row |= _muon(record[record[index].iBotCopyId()])
    return row


def _muon(particle: Any) -> dict[str, float]:
    name = "muminus" if particle.id() == MUON else "muplus"
    charge = round(particle.charge())
    momenta = {"px": particle.px(), "py": particle.py(), "pz": particle.pz(), "e": particle.e()}
    return {f"{name}_{key}": value for key, value in (momenta | {"charge": charge}).items()}


def write_events(path: str, rows: list[dict[str, float]]) -> None:
    """Write the rows as the tree `events` of a new ROOT file."""
    columns = {name: np.array([row[name] for row in rows], kind) for name, kind in COLUMNS.items()}
    with uproot.recreate(path) as file:
        file.mktree("events", dict(COLUMNS)).extend(columns)


def process(pythia: Any, task: str, event_range: RangeInHand) -> None:
    """Make the events of one range and report their file."""
    rows = [generate(pythia, task, event) for event in event_range.events]
    path = event_range.output_path()
    write_events(path, rows)
    event_range.done(path)


def work(index: int) -> None:
    """Be one process of the payload: one generator, ranges until there are no more."""
    task = os.environ.get(TASK_VARIABLE, "zmumu")
    pythia = make_generator()
    with EventRanges(name=f"zmumu-{index}") as event_ranges:
        for event_range in event_ranges:
            process(pythia, task, event_range)


if __name__ == "__main__":
    sys.exit(run_processes(work))
