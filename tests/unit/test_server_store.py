"""The store of the built-in server: ranges, jobs and tasks through their lives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from espilot.errors import LocalError, UsageError
from espilot.server.options import Faults, Quirks, ServerOptions
from espilot.server.store import Store
from espilot.server.tasks import NewTask, read_new_task
from espilot.wire.panda_reports import RangeUpdate

OPTIONS = ServerOptions(sent_timeout_s=10, heartbeat_timeout_s=100)
NOW = 1000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "es.db", OPTIONS, now=NOW)
    yield opened
    opened.close()


def take_job(store: Store, now: float = NOW) -> dict[str, Any]:
    (job,) = store.acquire_jobs({"n_jobs": 1}, now)
    update(store, job, "running", now)
    return job


def take(store: Store, job: dict[str, Any], n: int = 1000) -> list[str]:
    wanted = {"job_id": job["PandaID"], "jobset_id": job["jobsetID"], "n_ranges": n}
    return [item["eventRangeID"] for item in store.acquire_ranges(wanted)]


def report(store: Store, ids: list[str], status: str = "finished") -> list[bool | None]:
    return store.update_ranges([RangeUpdate(range_id, status) for range_id in ids])[0]


def update(store: Store, job: dict[str, Any], status: str, now: float = NOW) -> str:
    given = {"job_id": job["PandaID"], "job_status": status, "attempt_nr": job["attemptNr"]}
    return store.update_job({**given, "job_output_report": "{}"}, now)


def counts(store: Store, task_id: int) -> dict[str, int]:
    """The counts that are not zero; every look also proves that they are those of the rows."""
    store.check(task_id)
    status = store.task_status(task_id)
    names = ("finished", "failed", "fatal", "ready", "sent")
    assert sum(status[name] for name in names) == status["total"]
    return {name: status[name] for name in names if status[name]}


def test_ranges_cover_each_event_once(store: Store) -> None:
    """Ranges cover all events, in order, and none crosses a file."""
    task = NewTask("t", 13, 4, inputs=(("a", 6), ("b", 7)))
    store.create_task(task, NOW)
    job = take_job(store)
    wanted = {"job_id": job["PandaID"], "jobset_id": job["jobsetID"], "n_ranges": 99}
    ranges = store.acquire_ranges(wanted)
    assert [(item["startEvent"], item["lastEvent"], item["LFN"]) for item in ranges] == [
        (1, 4, "a"),
        (5, 6, "a"),
        (7, 10, "b"),
        (11, 13, "b"),
    ]
    assert set(ranges[0]) == {"eventRangeID", "startEvent", "lastEvent", "LFN", "GUID", "scope"}


def test_a_complete_task_is_finished(store: Store) -> None:
    """When every range is done and the job has ended, the task is finished and the job too."""
    task_id = store.create_task(NewTask("t", 10), NOW)
    job = take_job(store)
    assert report(store, take(store, job)) == [True] * 10
    assert counts(store, task_id) == {"finished": 10}
    assert store.task_status(task_id)["state"] == "running"
    assert update(store, job, "finished") == "NULL"
    status = store.task_status(task_id)
    assert (status["state"], status["events_finished"], status["jobs_active"]) == (
        "finished",
        10,
        0,
    )
    assert store.job_statuses([job["PandaID"]])[0]["status"] == "finished"
    assert update(store, job, "finished") == "alreadydone"


def test_unreported_ranges_come_back(store: Store) -> None:
    """What a job did not report is in the pool again, an attempt poorer, under the new job."""
    task_id = store.create_task(NewTask("t", 4), NOW)
    job = take_job(store)
    ids = take(store, job)
    report(store, ids[:1])
    update(store, job, "failed")
    assert counts(store, task_id) == {"finished": 1, "ready": 3}
    again = take_job(store)
    assert again["attemptNr"] == 2 and again["jobsetID"] == job["jobsetID"]
    assert again["PandaID"] != job["PandaID"]
    for old, new in zip(ids[1:], take(store, again), strict=True):
        assert new.split("-")[3] == old.split("-")[3]
        assert new.split("-")[1] == str(again["PandaID"])
        assert int(new.split("-")[4]) == int(old.split("-")[4]) - 1


def test_failed_ranges_are_tried_again_until_hopeless(store: Store) -> None:
    """A failed range gets a copy per job until its attempts are spent; then the task fails."""
    task_id = store.create_task(NewTask("t", 3, max_attempts=2), NOW)
    job = take_job(store)
    ids = take(store, job)
    report(store, ids[:2])
    report(store, ids[2:], "failed")
    assert counts(store, task_id) == {"finished": 2, "ready": 1}
    assert not take(store, job), "a failed range does not come back to the same job"
    update(store, job, "finished")
    again = take_job(store)
    report(store, take(store, again), "failed")
    assert counts(store, task_id) == {"finished": 2, "failed": 1}
    update(store, again, "failed")
    assert counts(store, task_id) == {"finished": 2, "failed": 1}
    assert store.task_status(task_id)["state"] == "failed"
    assert not store.acquire_jobs({}, NOW)


def test_a_fatal_range_is_never_tried_again(store: Store) -> None:
    """Fatal is the end of a range, whatever attempts it had; the id's attempt becomes 1."""
    task_id = store.create_task(NewTask("t", 2, max_attempts=5), NOW)
    job = take_job(store)
    ids = take(store, job)
    report(store, ids[:1], "fatal")
    report(store, ids[1:])
    statuses = store.range_statuses([(task_id, job["PandaID"])])[str(job["PandaID"])]
    assert {key.split("-")[4] for key, row in statuses.items() if row["status"] == "failed"} == {
        "1"
    }
    update(store, job, "finished")
    assert counts(store, task_id) == {"finished": 1, "fatal": 1}
    assert store.task_status(task_id)["state"] == "failed"


def test_the_first_final_status_wins(store: Store) -> None:
    """Repeats and stale reports are answered true and change nothing."""
    task_id = store.create_task(NewTask("t", 2), NOW)
    job = take_job(store)
    ids = take(store, job)
    assert report(store, [ids[0]]) == [True]
    assert report(store, [ids[0]], "failed") == [True]
    assert report(store, [ids[1].rpartition("-")[0] + "-1"]) == [True]
    assert counts(store, task_id) == {"finished": 1, "sent": 1}


def test_refused_and_ignored_reports(store: Store) -> None:
    """Malformed and unknown is false, non-final null; nothing changes."""
    task_id = store.create_task(NewTask("t", 1), NOW)
    job = take_job(store)
    (range_id,) = take(store, job)
    updates = [
        RangeUpdate(None, "finished"),
        RangeUpdate("1-2", "finished"),
        RangeUpdate(range_id, None),
        RangeUpdate(range_id, "done"),
        RangeUpdate(range_id, "running"),
        RangeUpdate("1-2-3-4-5", "finished"),
        RangeUpdate(range_id, ["finished"]),
    ]
    entries, commands = store.update_ranges(updates)
    assert entries == [False, False, False, False, None, False, False]
    assert commands == {"2": "tobekilled"}
    assert counts(store, task_id) == {"sent": 1}


@pytest.mark.parametrize(
    "bad",
    [
        {"archive": {"objstoreID": 1}},
        {"archive": {"lfn": "a.tar"}},
        {"archive": {"lfn": ["a.tar"], "objstoreID": 1}},
        {"archive": {"lfn": "\ud800", "objstoreID": 1}},
        {"diag": "x" * 501},
        {"diag": "\ud800"},
        {"code": "5"},
        {"code": 2**40},
    ],
)
def test_one_bad_item_undoes_the_batch(store: Store, bad: dict[str, Any]) -> None:
    """Nothing of a batch with an item that cannot be stored is booked."""
    task_id = store.create_task(NewTask("t", 3), NOW)
    ids = take(store, take_job(store))
    updates = [RangeUpdate(range_id, "finished") for range_id in ids]
    updates[1] = replace(updates[1], **bad)
    assert store.update_ranges(updates)[0] == [True, False]
    assert counts(store, task_id) == {"sent": 3}


def test_reports_after_the_end_are_refused(store: Store) -> None:
    """After the final update nothing is taken, and the pilot hears that its job is gone."""
    store.create_task(NewTask("t", 2), NOW)
    job = take_job(store)
    ids = take(store, job)
    update(store, job, "finished")
    entries, commands = store.update_ranges([RangeUpdate(ids[0], "finished")])
    assert (entries, commands) == ([False], {str(job["PandaID"]): "tobekilled"})
    assert not take(store, job)


def test_a_job_that_never_starts_is_lost(store: Store) -> None:
    """Without a first heartbeat in time the job is lost and another one made."""
    store.create_task(NewTask("t", 2), NOW)
    (job,) = store.acquire_jobs({}, NOW)
    assert not store.acquire_jobs({}, NOW + 9)
    (again,) = store.acquire_jobs({}, NOW + 11)
    assert store.job_statuses([job["PandaID"]])[0]["status"] == "failed"
    assert again["attemptNr"] == 2
    assert update(store, job, "running", NOW + 12) == "tobekilled"


def test_a_silent_job_is_lost_and_its_work_kept(store: Store) -> None:
    """A lost job's finished ranges count; the others come back."""
    task_id = store.create_task(NewTask("t", 3), NOW)
    job = take_job(store)
    report(store, take(store, job)[:1])
    assert store.fail_lost_jobs(NOW + 99) == 0
    assert store.fail_lost_jobs(NOW + 101) == 1
    assert counts(store, task_id) == {"finished": 1, "ready": 2}
    assert store.task_status(task_id)["jobs_active"] == 1


def test_barren_jobs_fail_the_task(store: Store) -> None:
    """Three jobs in a row without a finished range end the task."""
    task_id = store.create_task(NewTask("t", 2, max_attempts=10), NOW)
    for _ in range(3):
        assert store.task_status(task_id)["state"] == "running"
        update(store, take_job(store), "failed")
    assert store.task_status(task_id)["state"] == "failed"


def test_a_finished_range_ends_the_row_of_barren_jobs(store: Store) -> None:
    """One finished range starts the count anew."""
    task_id = store.create_task(NewTask("t", 9, max_attempts=20), NOW)
    for turn in range(6):
        job = take_job(store)
        if turn % 2:
            report(store, take(store, job, 1))
        update(store, job, "finished")
    assert store.task_status(task_id)["state"] == "running"


def test_consumers_share_a_pool(store: Store) -> None:
    """Jobs of one pool get disjoint ranges, and a waiting one is closed when the pool is empty."""
    task_id = store.create_task(NewTask("t", 10, consumers=3), NOW)
    first, second = take_job(store), take_job(store)
    mine, yours = take(store, first, 6), take(store, second, 6)
    processes = Counter(range_id.split("-")[3] for range_id in mine + yours)
    assert len(processes) == 10 and max(processes.values()) == 1
    assert not store.acquire_jobs({}, NOW)
    report(store, mine)
    update(store, first, "finished")
    assert store.job_statuses([first["PandaID"]])[0]["status"] == "merging"
    report(store, yours)
    update(store, second, "finished")
    assert store.task_status(task_id)["state"] == "finished"
    assert store.job_statuses([first["PandaID"]])[0]["status"] == "finished"


def test_another_attempt_is_to_be_killed(store: Store) -> None:
    """An update of another attempt, or of an unknown job, is answered with a kill."""
    store.create_task(NewTask("t", 1), NOW)
    job = take_job(store)
    assert update(store, {**job, "attemptNr": 9}, "running") == "tobekilled"
    assert update(store, {**job, "PandaID": 1}, "running") == "tobekilled"


@pytest.mark.parametrize("text", ["", "x", "[]", '{"other.tar": {}}'])
def test_a_bad_output_report_fails_the_job(store: Store, text: str) -> None:
    """A finished job without a usable report fails; its ranges count all the same."""
    task_id = store.create_task(NewTask("t", 2), NOW)
    job = take_job(store)
    report(store, take(store, job)[:1])
    given = {"job_id": job["PandaID"], "job_status": "finished", "job_output_report": text}
    store.update_job(given, NOW)
    assert store.job_statuses([job["PandaID"]])[0]["status"] == "failed"
    assert counts(store, task_id) == {"finished": 1, "ready": 1}


def test_states_never_go_back(store: Store) -> None:
    """A late `starting` does not undo `running`."""
    store.create_task(NewTask("t", 1), NOW)
    job = take_job(store)
    update(store, job, "starting")
    assert store.job_statuses([job["PandaID"]])[0]["status"] == "running"


def test_the_same_task_id_is_the_same_task(store: Store) -> None:
    """Repeating a creation with its id is harmless; another content is refused."""
    task = NewTask("t", 5, task_id=77)
    assert store.create_task(task, NOW) == store.create_task(task, NOW) == 77
    assert store.task_status(77)["jobs"] == 1
    with pytest.raises(UsageError, match="77"):
        store.create_task(replace(task, events=6), NOW)


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    """A store opened again knows what the first one booked."""
    path = tmp_path / "es.db"
    first = Store(path, OPTIONS, now=NOW)
    task_id = first.create_task(NewTask("t", 5), NOW)
    ids = take(first, take_job(first), 3)
    first.close()
    second = Store(path, OPTIONS, now=NOW)
    assert report(second, ids[:1]) == [True]
    assert counts(second, task_id) == {"finished": 1, "sent": 2, "ready": 2}
    second.close()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    """A file that is no database of ours gives one line that names it."""
    path = tmp_path / "other"
    path.write_text("not a database, " * 100)
    with pytest.raises(LocalError, match="other"):
        Store(path, OPTIONS, now=NOW)
    assert path.read_text().startswith("not a database")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"events": 0}, "events"),
        ({"events": "5"}, "events"),
        ({"events": True}, "events"),
        ({"events": 5, "events_per_range": 0}, "events_per_range"),
        ({"events": 10**12}, "events_per_range"),
        ({"events": 5, "name": "../x"}, "name"),
        ({"events": 5, "outputs": "out"}, "outputs"),
        ({"events": 5, "outputs": ["a/b"]}, "outputs"),
        ({"events": 5, "outputs": ["a", "a"]}, "outputs"),
        ({"events": 5, "inputs": ["a", "b"]}, "inputs"),
        ({"events": 5, "inputs": [{"lfn": "a", "events": 3}]}, "events"),
        ({"events": 5, "max_attempts": 0}, "max_attempts"),
    ],
)
def test_bad_tasks_are_named(values: dict[str, Any], key: str) -> None:
    """A task that cannot be made is refused by the name of its key."""
    with pytest.raises(UsageError, match=rf"task\.{key}"):
        read_new_task({"name": "t", **values})


def test_faults_count_down() -> None:
    """A fault hits the next n calls of its function, by full or bare name."""
    faults = Faults(Quirks(drop_answer={"acquire_jobs": 1}, http_500={"event/x": 2}))
    assert faults.take("drop_answer", "pilot/acquire_jobs")
    assert not faults.take("drop_answer", "pilot/acquire_jobs")
    assert [faults.take("http_500", "event/x") for _ in range(3)] == [True, True, False]
