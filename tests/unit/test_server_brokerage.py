"""Which queue may run which job, and where merge jobs go."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.errors import UsageError
from espilot.server.brokerage import (
    Endpoint,
    MergePlace,
    Queue,
    choose_merge_queue,
    choose_storage,
    may_run,
)
from espilot.server.queue_file import read_queues
from espilot.server.schema import Kind

JUMBO = ("useJumboJobs",)
OTHERS = {Kind.MERGE, Kind.SINGLE}


@pytest.mark.parametrize(
    ("queue", "kinds"),
    [
        (Queue("q"), {Kind.EVENT, Kind.CO_JUMBO, *OTHERS}),
        (Queue("q", "es"), {Kind.EVENT, Kind.CO_JUMBO}),
        (Queue("q", "std"), OTHERS),
        (Queue("q", "eshigh"), set()),
        (Queue("q", "es", JUMBO), {Kind.EVENT, Kind.CO_JUMBO, Kind.JUMBO}),
        (Queue("q", "all", ("notuseJumboJobs",)), {Kind.EVENT, Kind.CO_JUMBO, *OTHERS}),
    ],
)
def test_job_seeds_and_catchall(queue: Queue, kinds: set[Kind]) -> None:
    """The seed says which kinds a queue takes; jumbo jobs need their token as a whole word."""
    assert {kind for kind in Kind if may_run(queue, kind, 500)} == kinds


def test_eshigh_takes_tails_only() -> None:
    """Only event jobs above the priority of a tail go to an `eshigh` queue."""
    queue = Queue("q", "eshigh")
    assert [may_run(queue, Kind.EVENT, priority) for priority in (800, 801)] == [False, True]
    assert not may_run(queue, Kind.MERGE, 5000)


DISK = Endpoint(1, "DATADISK", site="A", nucleus="NA")
STORE = Endpoint(2, "OS_ES", site="B", nucleus="NB")
OTHER = Endpoint(3, "OS_ES", site="C")


def test_disk_storage_before_object_store() -> None:
    """The storage with most bytes, but any disk before every object store; unknown ones never."""
    endpoints = {e.storage_id: e for e in (DISK, STORE, OTHER)}
    assert choose_storage({1: 1, 2: 1000}, endpoints) == DISK
    assert choose_storage({2: 10, 3: 20}, endpoints) == OTHER
    assert choose_storage({9: 99}, endpoints) is None


QUEUES = {
    q.name: q
    for q in (
        Queue("a1", site="A", nucleus="NA", activity=1),
        Queue("a2", site="A", nucleus="NA", activity=5),
        Queue("a3", site="A", activity=9, cores=8),
        Queue("b", site="B", nucleus="NB", activity=2),
        Queue("es", "es", site="A", activity=99),
        Queue("off", status="offline", site="A", activity=99),
        Queue("short", maxtime_s=3600, site="A", activity=99),
        Queue("local", catchall=("localEsMerge",), site="B", cores=8),
        Queue("here", catchall=("localEsMergeNC",), cores=8),
    )
}


@pytest.mark.parametrize(
    ("place", "queue"),
    [
        (MergePlace("x", DISK), "a2"),
        (MergePlace("x", DISK, nucleus="NB"), "a2"),
        (MergePlace("x", STORE), "b"),
        (MergePlace("x", STORE, nucleus="NA"), "a2"),
        (MergePlace("x", STORE, near_storage=True, nucleus="NA"), "b"),
        (MergePlace("local", DISK), "b"),
        (MergePlace("here", DISK), "here"),
        (MergePlace("x", OTHER), "a2"),
        (MergePlace("x", None), "a2"),
    ],
)
def test_merging_goes_to_its_input(place: MergePlace, queue: str) -> None:
    """Beside the disk, else to the destination, else near the object store; small, online queues
    that run a day, the busiest of them; the producing queue may insist on itself."""
    assert choose_merge_queue(place, QUEUES) == queue


def test_without_queues_any_may_merge() -> None:
    """Where no queue is described, every pilot may take the merge job."""
    assert choose_merge_queue(MergePlace("x", DISK), {}) == ""


def test_queues_of_a_file(tmp_path: Path) -> None:
    """Queues and endpoints are read from TOML."""
    path = tmp_path / "q.toml"
    path.write_text(
        '[[queue]]\nname = "HPC"\njobseed = "es"\ncatchall = "a=1, useJumboJobs"\n'
        '[[storage]]\nstorage_id = 5\nkind = "DATADISK"\nsite = "A"\n'
    )
    queues, endpoints = read_queues(path)
    assert may_run(queues["HPC"], Kind.JUMBO, 0)
    assert endpoints[5].kind == "DATADISK"


@pytest.mark.parametrize(
    "text",
    ["[[queue]]", '[[queue]]\nname = 5', '[[queue]]\nname = "q"\njobseed = "x"', "queue = 1",
     '[[queue]]\nname = "q"\nfoo = 1', "[[storage]]\nsite = 'x'", "x"],
)  # fmt: skip
def test_bad_queue_files_are_named(tmp_path: Path, text: str) -> None:
    """What cannot be used is one line that names the file."""
    path = tmp_path / "q.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"q\.toml") as caught:
        read_queues(path)
    assert "\n" not in str(caught.value)
