"""The demonstration payload: its events depend on the task and the event number alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from payload_stub import ROOT, PilotStub, end, make_ranges

MUON_MASS = 0.10566
JOBS = ROOT / "etc" / "jobs"
pytest.importorskip("pythia8mc")
uproot = pytest.importorskip("uproot")


@pytest.fixture(scope="module")
def zmumu() -> ModuleType:
    """The payload as a module."""
    spec = importlib.util.spec_from_file_location("zmumu", JOBS / "zmumu.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def whole_event(pythia: Any) -> list[tuple[Any, ...]]:
    """Every particle of the last event, bit by bit."""
    return [
        (p.id(), p.status(), p.px().hex(), p.py().hex(), p.pz().hex(), p.e().hex(), p.m().hex())
        for p in (pythia.event[i] for i in range(pythia.event.size()))
    ]


def test_an_event_is_the_same_whatever_was_made_before(zmumu: ModuleType) -> None:
    """Event 7 is identical to the last bit of its last particle, fresh or after others."""
    fresh, used = zmumu.make_generator(), zmumu.make_generator()
    row = zmumu.generate(fresh, "task", 7)
    particles = whole_event(fresh)
    for event in (1, 2, 900, 7, 8, 6):
        zmumu.generate(used, "task", event)
    again = zmumu.generate(used, "task", 7)
    assert whole_event(used) == particles
    assert again == row
    assert len(particles) > 100


def test_the_order_does_not_matter(zmumu: ModuleType) -> None:
    """Sixty events forwards and backwards in two generators are equal."""
    first, second = zmumu.make_generator(), zmumu.make_generator()
    forwards = {e: zmumu.generate(first, "task", e) for e in range(1, 61)}
    backwards = {e: zmumu.generate(second, "task", e) for e in range(60, 0, -1)}
    assert forwards == backwards


def test_tasks_and_events_have_seeds_of_their_own(zmumu: ModuleType) -> None:
    """No two events of a task share a seed; another task gets others; all are allowed ones."""
    seeds = [zmumu.event_seed("zmumu", event) for event in range(1, 20001)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 1 and max(seeds) <= 900_000_000
    assert zmumu.event_seed("other", 1) != seeds[0]


def run_job(directory: Path, n: int, events: int, processes: int) -> dict[str, Any]:
    """Run the payload over n ranges; return its events as arrays, in order of the event number."""
    directory.mkdir()
    stub = PilotStub(make_ranges(n, events), directory, outputs=["zmumu.root"])
    process = stub.start(str(JOBS / "zmumu.py"), ESPILOT_CORES=str(processes), ESPILOT_TASK="zmumu")
    try:
        stub.serve(process)
    finally:
        _, err = end(process)
        stub.close()
    assert (process.returncode, err) == (0, b"")
    assert len(stub.finished) == n
    parts = []
    for path in sorted(directory.glob("zmumu.root.*")):
        with uproot.open(path) as file:
            parts.append(file["events"].arrays(library="np"))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["event"])
    return {name: column[order] for name, column in columns.items()}


def test_outputs_do_not_depend_on_processes_or_ranges(tmp_path: Path) -> None:
    """One process with ranges of four and two with ranges of three make the same events."""
    one = run_job(tmp_path / "one", 6, 4, 1)
    two = run_job(tmp_path / "two", 8, 3, 2)
    assert list(one["event"]) == list(range(1, 25))
    assert one.keys() == two.keys()
    for name, column in one.items():
        assert column.tobytes() == two[name].tobytes(), name


def test_the_physics_is_a_z_peak(tmp_path: Path) -> None:
    """A thousand events on two processes take well under a minute, and most lie at the Z mass."""
    started_s = time.monotonic()
    found = run_job(tmp_path / "job", 100, 10, 2)
    assert time.monotonic() - started_s < 40.0
    assert len(found["event"]) == 1000
    assert 88.0 < np.median(found["mass"]) < 94.0
    assert set(found["muminus_charge"]) == {-1} and set(found["muplus_charge"]) == {1}
    for sign in ("muminus", "muplus"):
        momentum2 = sum(found[f"{sign}_{axis}"] ** 2 for axis in ("px", "py", "pz"))
        assert np.allclose(np.sqrt(momentum2 + MUON_MASS**2), found[f"{sign}_e"], rtol=1e-4)


@pytest.mark.parametrize("name", ["zmumu", "exec-example"])
def test_the_job_files_say_what_they_need(name: str) -> None:
    """Each ready-made job has a task and a payload whose script lies beside it."""
    job = tomllib.loads((JOBS / f"{name}.toml").read_text())
    assert job["task"]["name"] == name
    assert job["task"]["events"] % job["task"]["events_per_range"] == 0
    command = job["payload"].get("command") or job["payload"]["exec"]
    script = command.split()[1].replace("{jobdir}", str(JOBS))
    assert Path(script).is_file()


def test_the_example_program_runs_under_the_runner(tmp_path: Path) -> None:
    """The command of the second job makes an output with one line per event."""
    job = tomllib.loads((JOBS / "exec-example.toml").read_text())
    template = job["payload"]["exec"]
    template = template.replace("{python}", sys.executable).replace("{jobdir}", str(JOBS))
    stub = PilotStub(make_ranges(4, 5), tmp_path, outputs=["roots.txt"])
    process = stub.start("-m", "espilot.payload.exec_runner", "--", template, ESPILOT_CORES="2")
    try:
        stub.serve(process)
    finally:
        _, err = end(process)
        stub.close()
    assert (process.returncode, err) == (0, b"")
    assert len(stub.finished) == 4
    lines = (tmp_path / "roots.txt.7-11-13-2-1").read_text().splitlines()
    assert lines[3] == "9 3.000000000"


def test_the_example_program_stands_alone(tmp_path: Path) -> None:
    """It needs nothing but Python."""
    out = tmp_path / "x"
    script = str(JOBS / "exec_example.py")
    command = [sys.executable, "-I", "-S", script, "--first", "1", "--last", "2", "--out", str(out)]
    subprocess.run(command, check=True)
    assert out.read_text() == "1 1.000000000\n2 1.414213562\n"
