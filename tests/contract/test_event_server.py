"""The real client against the built-in server, over HTTP on the loopback."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from espilot.adapters.http import Connection, DialectChoice, PandaServer, Patience
from espilot.errors import ServerRefused, ServerUnavailable
from espilot.model import ArchiveFacts, EventRange, Job, JobUpdate, RangeReport, ReportBatch
from espilot.server.app import serve
from espilot.server.options import Quirks, ServerOptions
from espilot.wire.panda_v1 import Pilot

Start = Callable[..., AbstractContextManager[PandaServer]]


@contextmanager
def running_server(db: Path, quirks: Quirks) -> Iterator[str]:
    """A server in a thread; ends by its death pipe."""
    stop_fd, alive_fd = os.pipe()
    urls: list[str] = []
    listening = threading.Event()

    def tell(url: str) -> None:
        urls.append(url)
        listening.set()

    options = ServerOptions(quirks=quirks)
    thread = threading.Thread(
        target=lambda: serve(db=db, options=options, on_listening=tell, stop_fd=stop_fd)
    )
    thread.start()
    try:
        assert listening.wait(20)
        yield urls[0]
    finally:
        os.close(alive_fd)
        thread.join(20)
        os.close(stop_fd)
        assert not thread.is_alive()


@contextmanager
def open_client(url: str, **changes: Any) -> Iterator[PandaServer]:
    dialect = changes.pop("dialect", "auto")
    patience = Patience(timeout_s=changes.pop("timeout_s", 20.0))
    connection = Connection(url, patience=patience, **changes)
    client = PandaServer(connection, pilot=Pilot("S", "n"), choice=DialectChoice(dialect))
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(params=["v1", "legacy"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Starts a server of one dialect, and a client that has to find out which."""

    @contextmanager
    def start_both(**switches: Any) -> Iterator[PandaServer]:
        quirks = Quirks(**{"dialects": request.param, **switches})
        with running_server(tmp_path / "es.db", quirks) as url, open_client(url) as client:
            yield client

    return start_both


def begin(client: PandaServer, events: int = 10, **values: Any) -> tuple[int, Job]:
    task_id = client.create_task({"name": "t", "events": events, **values})
    job = client.acquire_job()
    assert job is not None and job.task_id == task_id
    assert client.update_job(job, JobUpdate("starting")) == ""
    return task_id, job


def batch(ranges: tuple[EventRange, ...], status: str = "finished") -> ReportBatch:
    return ReportBatch(tuple(RangeReport(entry.id, status) for entry in ranges))


def archive(ranges: tuple[EventRange, ...], lfn: str = "a.tar") -> ReportBatch:
    facts = ArchiveFacts(lfn, 100, "0badcafe", 1641, sum(entry.events for entry in ranges))
    return ReportBatch(batch(ranges).ranges, facts)


def test_a_job_from_begin_to_end(start: Start) -> None:
    """Job, ranges, report whose answer is lost, verification, final update, finished task."""
    with start() as client:
        task_id, job = begin(client, 10, events_per_range=2, outputs=["a.root", "b.root"])
        assert job.output_lfns == ("a.root", "b.root")
        ranges = client.acquire_ranges(job, 100)
        assert [entry.start_event for entry in ranges] == [1, 3, 5, 7, 9]
        assert client.acquire_ranges(job, 100) == ()
        told = client.report(job, [archive(ranges)]).accepted
        assert told == (None if client.dialect == "v1" else (True,) * 5)
        statuses = client.range_statuses(job)
        assert set(statuses) == {entry.id.rpartition("-")[0] for entry in ranges}
        assert set(statuses.values()) == {"finished"}
        assert client.update_job(job, JobUpdate("finished", events=10)) == ""
        status = client.task_status(task_id)
        assert (status.state, status.finished, status.events_finished) == ("finished", 5, 10)
        assert client.update_job(job, JobUpdate("finished", events=10)) == "alreadydone"
        assert client.acquire_job() is None


def test_worker_of_a_harvester(tmp_path: Path, start: Start) -> None:
    """The server books the newest state of a worker, whether it knew of it or not."""
    with start() as client:
        pilot = Pilot("S", "n", wanted={"harvester_id": "H", "worker_id": 7})
        told = PandaServer(client._connection, pilot=pilot)
        for state in ("started", "finished"):
            told.update_worker(state)
    with closing(sqlite3.connect(tmp_path / "es.db")) as db:
        assert db.execute("SELECT * FROM worker").fetchone()[:4] == ("H", "7", "finished", "n")


def test_worker_that_may_not_tell(start: Start) -> None:
    """A server that does not hear us says so, in a sentence or with a code."""
    with start(caller_role="user") as client, pytest.raises(ServerRefused):
        pilot = Pilot("S", "n", wanted={"harvester_id": "H", "worker_id": 7})
        PandaServer(client._connection, pilot=pilot).update_worker("started")


def test_a_repaired_server_tells(start: Start) -> None:
    """When the bulk answer arrives it is used: entries in flattened order, and commands."""
    with start(v1_bulk_event_update_broken=False) as client:
        _, job = begin(client)
        ranges = client.acquire_ranges(job, 3)
        foreign = ReportBatch((RangeReport("1-2-3-4-5", "finished"),))
        answer = client.report(job, [batch(ranges[:1], "failed"), foreign, archive(ranges[1:])])
        assert answer.accepted == (True, False, True, True)
        assert dict(answer.commands) == {2: "tobekilled"}
        assert sorted(client.range_statuses(job).values()) == ["failed", "finished", "finished"]


def test_wrapped_ranges(start: Start) -> None:
    """Ranges wrapped in an object are read as well."""
    with start(v1_ranges_wrapped=True) as client:
        _, job = begin(client)
        assert len(client.acquire_ranges(job, 3)) == 3


def test_repeated_reports_are_harmless(start: Start) -> None:
    """The same report twice, then a contradicting one: the first counts."""
    with start() as client:
        task_id, job = begin(client, 2)
        ranges = client.acquire_ranges(job, 2)
        for report in (archive(ranges), archive(ranges), batch(ranges, "failed")):
            client.report(job, [report])
        assert client.task_status(task_id).finished == 2


@pytest.mark.parametrize("status", ["failed", "fatal"])
def test_failures_are_known_by_four_parts(start: Start, status: str) -> None:
    """A failed or fatal range is found in the statuses although its attempt may be rewritten."""
    with start() as client:
        task_id, job = begin(client, 1)
        ranges = client.acquire_ranges(job, 1)
        report = RangeReport(ranges[0].id, status, 1305, "boom" * 300)
        client.report(job, [ReportBatch((report,))])
        assert client.range_statuses(job) == {ranges[0].id.rpartition("-")[0]: "failed"}
        fate = client.task_status(task_id)
        assert (fate.fatal, fate.ready) == ((1, 0) if status == "fatal" else (0, 1))


def test_a_dropped_answer_is_booked(start: Start) -> None:
    """After a lost answer the client is in doubt, and the server has booked the call."""
    with start(drop_answer={"update_event_ranges": 1, "acquire_event_ranges": 1}) as client:
        _, job = begin(client, 4)
        with pytest.raises(ServerUnavailable):
            client.acquire_ranges(job, 1)
        ranges = client.acquire_ranges(job, 1)
        assert ranges[0].start_event == 2, "a range whose answer was lost is not given again"
        with pytest.raises(ServerUnavailable):
            client.report(job, [archive(ranges)])
        assert sorted(client.range_statuses(job).values()) == ["finished", "sent"]


@pytest.mark.parametrize("fault", ["http_500", "exception_as_timeout"])
def test_faults_are_doubt(start: Start, fault: str) -> None:
    """A 500 and a "TimeOut" are doubt once; the next call works."""
    with start(**{fault: {"pilot/acquire_jobs": 1}}) as client:
        client.create_task({"name": "t", "events": 1})
        with pytest.raises(ServerUnavailable):
            client.acquire_job()
        assert client.acquire_job() is not None


def test_a_slow_answer_is_given_up(start: Start) -> None:
    """A call ends at its own time limit, whatever the server does."""
    with (
        start(answer_delay_s=3.0) as client,
        open_client(client._connection.url, timeout_s=0.2) as hasty,
        pytest.raises(ServerUnavailable, match="no answer in time"),
    ):
        hasty.acquire_job()


def test_refusals_are_clear(start: Start) -> None:
    """What the server cannot take is refused with its reason."""
    with start() as client:
        with pytest.raises(ServerRefused, match=r"task\.name"):
            client.create_task({"name": "../x", "events": 1})
        with pytest.raises(ServerRefused, match="no task 99"):
            client.task_status(99)
        with pytest.raises(ServerRefused, match="Type error"):
            client.create_task({"name": "t", "events": "1"})


def test_lesson_33_parallel_calls_get_disjoint_ranges(start: Start) -> None:
    """Clients that draw at the same time from one pool never get the same range."""

    def draw(client: PandaServer, job: Job) -> list[str]:
        drawn: list[str] = []
        while ranges := client.acquire_ranges(job, 7):
            drawn.extend(entry.id.split("-")[3] for entry in ranges)
        return drawn

    with start() as first, open_client(first._connection.url) as second:
        first.create_task({"name": "t", "events": 500, "consumers": 2})
        jobs = [first.acquire_job(), second.acquire_job()]
        with ThreadPoolExecutor(2) as pool:
            mine, yours = pool.map(draw, (first, second), [job for job in jobs if job])
        assert len(mine) + len(yours) == 500
        assert not set(mine) & set(yours)


def test_metadata_that_cannot_be_stored(start: Start) -> None:
    """A final update whose metadata is refused is sent again without it, and ends the job."""
    with start(metadata_fails={"update_job": 1}) as client:
        task_id, job = begin(client, 2)
        client.report(job, [archive(client.acquire_ranges(job, 2))])
        final = JobUpdate(
            "finished", 2, more={"meta_data": "{}", "end_time": "2026-01-01 00:00:00"}
        )
        assert client.update_job(job, final) == ""
        assert client.task_status(task_id).state == "finished"


def test_an_update_that_fails_quietly_is_doubt(start: Start) -> None:
    """Success around a failure is no success: the update is to be sent again."""
    with start(update_job_fails_quietly={"update_job": 1}) as client:
        client.create_task({"name": "t", "events": 1})
        job = client.acquire_job()
        assert job is not None
        with pytest.raises(ServerUnavailable):
            client.update_job(job, JobUpdate("running"))
        assert client.update_job(job, JobUpdate("running")) == ""
