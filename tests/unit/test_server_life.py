"""The life of tasks with several units, merge jobs and jumbo jobs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from espilot.server.brokerage import Endpoint, Queue
from espilot.server.options import Quirks, ServerOptions
from espilot.server.store import Store
from espilot.server.tasks import NewTask
from espilot.wire.panda_reports import RangeUpdate

NOW = 1000.0
MERGED = NewTask("t", 3000, merge_transformation="merge", merge_parameters="--in=@x",
                 events_per_job=1000, max_attempts=5)  # fmt: skip
QUEUES = {
    "HPC": Queue("HPC", "es", ("useJumboJobs",), cores=8),
    "GRID": Queue("GRID", "all", site="A"),
    "TAIL": Queue("TAIL", "eshigh"),
}
Open = Callable[..., Store]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    stores: list[Store] = []

    def open_store(quirks: dict[str, Any] | None = None, **options: Any) -> Store:
        settings = ServerOptions(sent_timeout_s=10, heartbeat_timeout_s=100,
                                 quirks=Quirks(**(quirks or {})), **options)  # fmt: skip
        stores.append(Store(tmp_path / f"{len(stores)}.db", settings, now=NOW))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def take_job(store: Store, site: str = "GRID") -> dict[str, Any] | None:
    jobs = store.acquire_jobs({"site_name": site}, NOW)
    if not jobs:
        return None
    tell(store, jobs[0], "running")
    return jobs[0]


def files_of(job: dict[str, Any]) -> str:
    """The output report: a merge job tells of its files, an event job has none to tell of."""
    names = job["outFiles"].split(",") if "eventServiceMerge" in job else ()
    return json.dumps({name: {"guid": "g"} for name in names})


def tell(store: Store, job: dict[str, Any], state: str, **more: Any) -> str:
    given = {"job_id": job["PandaID"], "job_status": state, "job_output_report": files_of(job)}
    return store.update_job({**given, **more}, NOW)


def draw(store: Store, job: dict[str, Any], n: int = 10_000) -> list[dict[str, Any]]:
    wanted = {"job_id": job["PandaID"], "jobset_id": job["jobsetID"], "n_ranges": n}
    return store.acquire_ranges(wanted)


def report(
    store: Store, ranges: list[dict[str, Any]], status: str = "finished", tar: str = "", at: int = 1
) -> None:
    archive = {"lfn": tar, "objstoreID": at, "fsize": 100, "adler32": "1a2b3c4d"} if tar else None
    ids = [item["eventRangeID"] for item in ranges]
    entries, _ = store.update_ranges([RangeUpdate(i, status, archive=archive) for i in ids])
    assert entries == [True] * len(ids)


def process(store: Store, job: dict[str, Any], skip: tuple[int, ...] = ()) -> None:
    """Finish all that the job gets, but what is skipped stays unreported."""
    ranges = draw(store, job)
    done = [item for item in ranges if item["startEvent"] not in skip]
    report(store, done, tar=f"{job['PandaID']}.tar")
    tell(store, job, "finished")


def state_of(store: Store, task_id: int) -> str:
    store.check(task_id)
    return str(store.task_status(task_id)["state"])


def merge_all(store: Store, task_id: int) -> list[tuple[str, int]]:
    """Run all merge jobs; output and number of members of each."""
    merged = []
    while (job := take_job(store)) is not None:
        assert job.get("eventServiceMerge") == "True"
        output, _, members = job["writeToFile"].partition(":")
        merged.append((output, len(members.split(","))))
        tell(store, job, "finished")
    return merged


def test_complete_units_merge_and_the_others_wait(opened: Open) -> None:
    """1-999 and 1001-3000 are done: units two and three merge, the first one waits for 1000."""
    store = opened()
    task_id = store.create_task(MERGED, NOW)
    jobs = [take_job(store) for _ in range(3)]
    assert take_job(store) is None
    for job in jobs:
        assert job is not None
        process(store, job, skip=(1000,))
    first = [take_job(store) for _ in range(4)]
    kinds = [(job or {}).get("eventServiceMerge") for job in first]
    assert kinds == ["True", "True", None, None]
    assert first[2] is not None and first[3] is None
    for job in first[:2]:
        assert job is not None
        tell(store, job, "finished")
    assert state_of(store, task_id) == "running"
    assert [item["startEvent"] for item in draw(store, first[2])] == [1000]
    report(store, [{"eventRangeID": store.event_rows(task_id)[999]["id"]}], tar="last.tar")
    tell(store, first[2], "finished")
    assert merge_all(store, task_id) == [("inputFor_output._000001", 1000)]
    assert state_of(store, task_id) == "finished"
    assert {row["status"] for row in store.event_rows(task_id)} == {"merged"}


def test_a_merge_job_names_its_inputs(opened: Open) -> None:
    """Archives once each with size, checksum and storage; all members by stream; loose files where
    a job has no archive."""
    store = opened()
    store.create_task(replace(MERGED, events=4, events_per_job=0, outputs=("a.root.7", "b")), NOW)
    first = take_job(store)
    assert first is not None
    ranges = draw(store, first)
    report(store, ranges[:2], tar="x.tar", at=5)
    report(store, ranges[2:3], tar="y.tar", at=6)
    tell(store, first, "finished")
    second = take_job(store)
    assert second is not None
    (last,) = draw(store, second)
    report(store, [last])
    tell(store, second, "finished")
    merge = take_job(store)
    assert merge is not None
    ids = [item["eventRangeID"] for item in (*ranges[:3], last)]
    assert merge["inFiles"].split(",") == [
        "zip://x.tar", "zip://y.tar", f"a.root.1.{ids[3]}", f"b.{ids[3]}"
    ]  # fmt: skip
    assert merge["prodDBlockToken"] == "5,6,NULL,NULL"
    assert merge["fsize"] == "100,100,NULL,NULL"
    assert merge["checksum"].startswith("ad:1a2b3c4d,ad:1a2b3c4d,")
    a, b = merge["writeToFile"].split("^")
    assert a == "inputFor_a.root.7:" + ",".join(f"a.root.1.{i}" for i in ids)
    assert b == "inputFor_b:" + ",".join(f"b.{i}" for i in ids)
    assert (merge["transformation"], merge["jobPars"]) == ("merge", "--in=@x")
    assert "eventService" not in merge and merge["attemptNr"] == 3
    assert merge["currentPriority"] == 5000 and merge["coreCount"] == 1


@pytest.mark.parametrize(("hides", "inputs"), [(True, 1), (False, 2)])
def test_quirk_tar_hides_loose_files(opened: Open, hides: bool, inputs: int) -> None:
    """One archive of a job hides its loose files, as in real servers."""
    store = opened({"tar_hides_loose_files": hides})
    store.create_task(replace(MERGED, events=2, events_per_job=0), NOW)
    job = take_job(store)
    assert job is not None
    one, two = draw(store, job)
    report(store, [one], tar="x.tar")
    report(store, [two])
    tell(store, job, "finished")
    merge = take_job(store)
    assert merge is not None and len(merge["inFiles"].split(",")) == inputs


@pytest.mark.parametrize(
    ("flags", "more", "left", "kind"),
    [
        ((), {"corrupted_files": "zip://x.tar"}, 2, None),
        ((), {}, 4, None),
        (("de",), {}, 4, "True"),
    ],
)
def test_a_failed_merge(
    opened: Open, flags: tuple[str, ...], more: dict[str, Any], left: int, kind: str | None
) -> None:
    """Corrupt archives cost their own events, another failure all of them, and with `de` none."""
    store = opened()
    task_id = store.create_task(replace(MERGED, events=4, events_per_job=0, flags=flags), NOW)
    job = take_job(store)
    assert job is not None
    ranges = draw(store, job)
    report(store, ranges[:2], tar="x.tar")
    report(store, ranges[2:], tar="y.tar")
    tell(store, job, "finished")
    merge = take_job(store)
    assert merge is not None
    tell(store, merge, "failed", **more)
    again = take_job(store)
    assert again is not None and again.get("eventServiceMerge") == kind
    if kind is None:
        assert len(draw(store, again)) == left
        report(store, [{"eventRangeID": row["id"]} for row in store.event_rows(task_id)
                       if row["status"] == "sent"], tar="z.tar")  # fmt: skip
        tell(store, again, "finished")
        assert merge_all(store, task_id) == [("inputFor_output", 4)]
    else:
        tell(store, again, "finished")
    assert state_of(store, task_id) == "finished"


def test_merging_is_not_tried_for_ever(opened: Open) -> None:
    """After some failed merges the unit fails."""
    store = opened()
    task_id = store.create_task(replace(MERGED, events=2, events_per_job=0, flags=("de",)), NOW)
    job = take_job(store)
    assert job is not None
    process(store, job)
    n = 0
    while (merge := take_job(store)) is not None:
        tell(store, merge, "failed")
        n += 1
    assert (n, state_of(store, task_id)) == (3, "failed")


def test_a_lost_merge_job_costs_no_event(opened: Open) -> None:
    """A merge job that is not heard of again is simply made once more."""
    store = opened()
    task_id = store.create_task(replace(MERGED, events=2, events_per_job=0), NOW)
    job = take_job(store)
    assert job is not None
    process(store, job)
    assert take_job(store) is not None
    assert store.fail_lost_jobs(NOW + 101) == 1
    assert merge_all(store, task_id) == [("inputFor_output", 2)]
    assert state_of(store, task_id) == "finished"


@pytest.mark.parametrize(
    ("flags", "quirks", "state"),
    [
        ((), {}, "failed"),
        (("ap",), {}, "finished"),
        (("ap",), {"partial_merge_fails": True}, "failed"),
    ],
)
def test_hopeless_ranges(
    opened: Open, flags: tuple[str, ...], quirks: dict[str, Any], state: str
) -> None:
    """A range that can never be done fails its unit, unless partial results are accepted."""
    store = opened(quirks)
    task_id = store.create_task(
        replace(MERGED, events=4, events_per_job=0, flags=flags, max_attempts=1), NOW
    )
    job = take_job(store)
    assert job is not None
    ranges = draw(store, job)
    report(store, ranges[:3], tar="x.tar")
    report(store, ranges[3:], "failed")
    tell(store, job, "finished")
    assert merge_all(store, task_id) == ([("inputFor_output", 3)] if state == "finished" else [])
    assert state_of(store, task_id) == state


def test_a_failed_unit_leaves_the_others_alone(opened: Open) -> None:
    """The task fails only when its other units have come to their end."""
    store = opened()
    task_id = store.create_task(replace(MERGED, events=4, events_per_job=2, max_attempts=1), NOW)
    bad, good = take_job(store), take_job(store)
    assert bad is not None and good is not None
    report(store, draw(store, bad), "fatal")
    tell(store, bad, "failed")
    assert state_of(store, task_id) == "running"
    process(store, good)
    assert len(merge_all(store, task_id)) == 1
    assert state_of(store, task_id) == "failed"


def test_a_late_consumer_is_no_second_end(opened: Open) -> None:
    """A consumer that found nothing and ends after its unit was complete, or merged, makes no
    second merge job."""
    for is_merged in (False, True):
        store = opened()
        task_id = store.create_task(replace(MERGED, events=4, events_per_job=0, consumers=2), NOW)
        first, late = take_job(store), take_job(store)
        assert first is not None and late is not None
        process(store, first)
        merge = take_job(store)
        assert merge is not None
        if is_merged:
            tell(store, merge, "finished")
        tell(store, late, "finished")
        assert take_job(store) is None
        tell(store, merge, "finished")
        assert state_of(store, task_id) == "finished"


def test_a_failed_unit_gets_no_new_job(opened: Open) -> None:
    """A consumer whose unit has failed meanwhile is not followed by another."""
    store = opened(max_job_attempts=1)
    task_id = store.create_task(replace(MERGED, events=4, events_per_job=0, consumers=2), NOW)
    first, late = take_job(store), take_job(store)
    assert first is not None and late is not None
    ranges = draw(store, late, 2)
    tell(store, first, "failed")
    assert state_of(store, task_id) == "failed"
    report(store, ranges[:1])
    tell(store, late, "finished")
    assert take_job(store) is None


@pytest.mark.parametrize("consumers", [1, 2])
def test_a_queue_that_takes_no_more_jobs(opened: Open, consumers: int) -> None:
    """No job follows one of a queue that went away: code 125 and the end of the unit, unless
    another job works on it."""
    store = opened(queues={"GONE": Queue("GONE", status="offline")})
    task_id = store.create_task(
        replace(MERGED, events=4, events_per_job=0, consumers=consumers), NOW
    )
    job = take_job(store, "GONE")
    assert job is not None
    report(store, draw(store, job, 2), tar="x.tar")
    tell(store, job, "finished")
    state, code = job_facts(store, job)
    if consumers == 1:
        assert (state, code) == ("failed", 125)
        assert state_of(store, task_id) == "failed"
        return
    assert (state, code) == ("merging", 111)
    other = take_job(store)
    assert other is not None
    process(store, other)
    assert merge_all(store, task_id) == [("inputFor_output", 4)]
    assert state_of(store, task_id) == "finished"


def job_facts(store: Store, job: dict[str, Any]) -> tuple[str, int]:
    row = store._db.execute(
        "SELECT status, error_code FROM job WHERE panda_id = ?", (job["PandaID"],)
    ).fetchone()
    return row["status"], row["error_code"]


def test_flag_df_costs_no_attempt(opened: Open) -> None:
    """With `df` only failures cost an attempt."""
    for flags, attempts in ((("df",), "5"), ((), "4")):
        store = opened()
        store.create_task(replace(MERGED, events=1, events_per_job=0, flags=flags), NOW)
        job = take_job(store)
        assert job is not None
        draw(store, job)
        tell(store, job, "failed")
        again = take_job(store)
        assert again is not None
        assert draw(store, again)[0]["eventRangeID"].split("-")[4] == attempts


def test_only_tails_go_to_eshigh(opened: Open) -> None:
    """A queue for tails gets a job when little of a task is left."""
    store = opened(queues=QUEUES)
    store.create_task(replace(MERGED, events=20, events_per_job=0, priority=500), NOW)
    assert take_job(store, "TAIL") is None
    job = take_job(store)
    assert job is not None
    process(store, job, skip=(7,))
    tail = take_job(store, "TAIL")
    assert tail is not None and tail["currentPriority"] > 800
    assert [item["startEvent"] for item in draw(store, tail)] == [7]


def test_merge_jobs_go_to_their_storage(opened: Open) -> None:
    """The merge job waits for the queue beside the storage of the archives."""
    endpoints = {1: Endpoint(1, "DATADISK", site="B"), 2: Endpoint(2, "OS_ES", site="A")}
    queues = {**QUEUES, "BDISK": Queue("BDISK", site="B")}
    store = opened(queues=queues, endpoints=endpoints)
    store.create_task(replace(MERGED, events=4, events_per_job=0), NOW)
    job = take_job(store)
    assert job is not None
    ranges = draw(store, job)
    report(store, ranges[:1], tar="x.tar", at=1)
    report(store, ranges[1:], tar="y.tar", at=2)
    tell(store, job, "finished")
    assert take_job(store, "GRID") is None
    merge = take_job(store, "BDISK")
    assert merge is not None and merge["eventServiceMerge"] == "True"


JUMBO = replace(MERGED, events=40, events_per_job=10, jumbo_jobs=1, jumbo_off_below=4)


def test_a_jumbo_job_takes_any_range(opened: Open) -> None:
    """Only queues that say so get it; it looks like an event job with all files; units that it has
    finished are merged when it has ended."""
    store = opened(queues=QUEUES)
    task_id = store.create_task(JUMBO, NOW)
    jumbo = take_job(store, "HPC")
    grid = take_job(store, "GRID")
    assert jumbo is not None and grid is not None
    if jumbo["jobsetID"] != task_id:  # an event job of the same priority came first
        jumbo = next(j for j in iter(lambda: take_job(store, "HPC"), None)
                     if j["jobsetID"] == task_id)  # fmt: skip
    assert jumbo["eventService"] == "True" and jumbo["reqID"] == jumbo["jobsetID"] == task_id
    wanted = {"job_id": jumbo["PandaID"], "jobset_id": 0}
    assert store.count_ready(**wanted) == 40


class Pilots:
    """Pilots of both queues that work, fail and vanish at random."""

    def __init__(self, store: Store, task_id: int, seed: int) -> None:
        self.store, self.task_id = store, task_id
        self.chance = random.Random(seed)
        self.now = NOW
        self.held: list[dict[str, Any]] = []
        self.merged = 0

    def run(self) -> int:
        """Work until the task is over; returns how many merge jobs were finished."""
        for _ in range(5000):
            if self.store.task_status(self.task_id)["state"] != "running":
                return self.merged
            self.now += 1
            if len(self.held) < 3:
                site = self.chance.choice(("HPC", "GRID", "GRID"))
                self.held += self.store.acquire_jobs({"site_name": site}, self.now)
            if self.held:
                self.work(self.chance.choice(self.held))
            self.store.check(self.task_id)
        raise AssertionError("the task does not come to its end")

    def work(self, job: dict[str, Any]) -> None:
        if "eventServiceMerge" in job:
            self.end(job, "finished")
            self.merged += 1
            return
        self.update(job, "running")
        ranges = draw(self.store, job, self.chance.randint(1, 6))
        for item in ranges:
            self.report(job, item)
        fate = self.chance.random()
        if not ranges or fate < 0.2:
            self.end(job, "finished")
        elif fate < 0.25:
            self.vanish(job)

    def report(self, job: dict[str, Any], item: dict[str, Any]) -> None:
        status = self.chance.choices(("finished", "failed", ""), (12, 1, 1))[0]
        if status:
            archive = {"lfn": f"{job['PandaID']}.{self.now}.tar", "objstoreID": 1}
            update = RangeUpdate(item["eventRangeID"], status, archive=archive)
            assert self.store.update_ranges([update])[0] == [True]

    def vanish(self, job: dict[str, Any]) -> None:
        self.held.remove(job)
        self.now += 200
        for other in self.held:
            self.update(other, "running")
        assert self.store.fail_lost_jobs(self.now) == 1

    def end(self, job: dict[str, Any], state: str) -> None:
        self.update(job, state)
        self.held.remove(job)

    def update(self, job: dict[str, Any], state: str) -> None:
        given = {"job_id": job["PandaID"], "job_status": state, "job_output_report": files_of(job)}
        assert self.store.update_job(given, self.now) == "NULL"


@pytest.mark.parametrize("seed", range(12))
def test_jumbo_and_grid_together(opened: Open, seed: int) -> None:
    """Whatever fails or vanishes: every event is merged exactly once, each unit by one job."""
    store = opened(queues=QUEUES, max_job_attempts=1000)
    task_id = store.create_task(replace(JUMBO, max_attempts=50), NOW)
    merged = Pilots(store, task_id, seed).run()
    assert state_of(store, task_id) == "finished"
    rows = [row for row in store.event_rows(task_id) if row["status"] == "merged"]
    assert sorted(row["process_id"] for row in rows) == list(range(1, 41))
    assert merged == 4


def test_jumbo_is_switched_off_near_the_end(opened: Open) -> None:
    """When few events are left no jumbo job is made or handed out; co-jumbo jobs do the rest."""
    store = opened(queues=QUEUES)
    task_id = store.create_task(replace(JUMBO, jumbo_off_below=20), NOW)
    held = [job for job in iter(lambda: take_job(store, "HPC"), None)]
    (jumbo,) = (job for job in held if job["jobsetID"] == task_id)
    held.remove(jumbo)
    ranges = draw(store, jumbo, 25)
    report(store, ranges[:-1], tar="j.tar")
    report(store, ranges[-1:], "failed")
    tell(store, jumbo, "finished")
    for job in held:
        process(store, job)
    later = iter(lambda: take_job(store, "GRID"), None)
    for job in later:
        assert job["jobsetID"] != task_id
        process(store, job) if "eventService" in job else tell(store, job, "finished")
    assert state_of(store, task_id) == "finished"
