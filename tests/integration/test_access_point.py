"""A worker's side of Harvester's access point, in a real directory, with Harvester by hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from patience import eventually

from espilot.adapters.harvester import HarvesterServer, Outputs, Terms
from espilot.config import Settings
from espilot.errors import ServerRefused, ServerUnavailable
from espilot.model import ArchiveFacts, Job, JobUpdate, RangeReport, ReportBatch, feed_mark
from espilot.wire.harvester import FileNames, read_job_file
from espilot.wire.panda_v1 import Pilot
from espilot.workers.context import Context
from espilot.workers.inputs import input_places, inputs_to_fetch

DEFINITION = {
    "PandaID": 7, "taskID": 1, "jobsetID": 2, "attemptNr": 1, "coreCount": 2, "inFiles": "in.root",
    "outFiles": "out,log.tgz", "logFile": "log.tgz", "eventService": "True",
}  # fmt: skip
DUMP = "event_status.dump.json"
REQUEST, RANGES = "worker_requestevents.json", "JobsEventRanges.json"
FINAL = JobUpdate("finished", 1, (1, 1, 0, 2), more={"meta_data": '{"a": 1}'})
Members = Mapping[str, Sequence[tuple[str, int, str]]]


def range_row(number: int) -> dict[str, Any]:
    return {
        "eventRangeID": f"1-7-3-{number}-1", "LFN": "in.root", "GUID": "g", "scope": "s",
        "startEvent": number, "lastEvent": number,
    }  # fmt: skip


class Play:
    """An access point, what Harvester does there, and workers that come one after the other."""

    def __init__(self, directory: Path) -> None:
        self.place = directory / "ap"
        self.place.mkdir()
        self.state = directory / "state"
        self.members: Members = {}
        self.server = self.worker()

    def worker(self, **terms: Any) -> HarvesterServer:
        """A worker process of its own, as after a restart."""
        patient = {"ask_again_s": 600.0, "lost_s": 600.0, **terms}
        outputs = Outputs(Path("/out"), single=True, members_of=lambda name: self.members)
        self.server = HarvesterServer(
            self.place,
            names=FileNames(),
            state=self.state,
            outputs=outputs,
            pilot=Pilot("S", "n"),
            terms=Terms(**patient),
        )
        return self.server

    def write(self, name: str, value: Any) -> None:
        (self.place / name).write_text(json.dumps(value))

    def read(self, name: str) -> Any:
        return json.loads((self.place / name).read_text())

    def job(self) -> Job:
        """A job that the queue has."""
        self.write("HPCJobs.json", {"7": DEFINITION})
        job = self.server.acquire_job()
        assert job is not None
        return job

    def feed(self, *numbers: int) -> None:
        """Bring ranges, then remove the request."""
        self.write(RANGES, {"7": [range_row(n) for n in numbers]})
        (self.place / REQUEST).unlink(missing_ok=True)

    def acknowledge(self, stamp: str = "2026-11-22_00_00_00.000001") -> None:
        """Read the dump, book it, acknowledge it."""
        (self.place / DUMP).rename(self.place / f"{DUMP}.read")
        (self.place / f"{DUMP}.read").rename(self.place / f"{DUMP}.read.{stamp}")

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.place.iterdir()}


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


def finished(*ids: str) -> list[ReportBatch]:
    """A report of an archive with these ranges."""
    facts = ArchiveFacts("a.tar", 10240, "0a0b0c0d", 1, len(ids))
    return [ReportBatch(tuple(RangeReport(i, "finished") for i in ids), facts)]


def failed(*ids: str) -> list[ReportBatch]:
    return [ReportBatch(tuple(RangeReport(i, "failed", 1305, "x") for i in ids))]


# -- jobs ---------------------------------------------------------------------------------------


def test_job_file_goes_when_the_queue_has_the_job(play: Play) -> None:
    """A job is given again until a call for it proves that it was kept; then its file goes."""
    job = play.job()
    assert play.worker().acquire_job() == job
    assert play.server.update_job(job, JobUpdate("starting")) == ""
    assert "HPCJobs.json" not in play.names
    assert "HPCJobs.json.taken" in play.names


def test_job_is_asked_for_once_and_awaited(play: Play) -> None:
    """Without a job file a request is written; a file in the making is no job."""
    assert play.server.acquire_job() is None
    assert play.read("worker_requestjob.json") == {"nJobs": 1}
    assert play.server.task_status(0).state == "running"
    (play.place / "HPCJobs.json").write_text('{"7": {"PandaID"')
    with pytest.raises(ServerUnavailable, match=r"HPCJobs\.json"):
        play.server.acquire_job()


def test_wait_for_a_job_is_bounded(play: Play) -> None:
    """When no job comes the request is taken back and the run ends."""
    server = play.worker(job_s=0.0)
    assert server.acquire_job() is None
    assert server.task_status(0).state == "failed"
    assert "worker_requestjob.json" not in play.names


def test_many_jobs_in_one_worker_are_refused(play: Play) -> None:
    """ManyToOne is refused in one line instead of waiting for ranges that never come."""
    (play.place / "7").mkdir()
    play.write("7/HPCJobs.json", {"7": DEFINITION})
    with pytest.raises(ServerRefused, match="ManyToOne"):
        play.server.acquire_job()
    assert play.server.acquire_job() is None
    assert play.server.task_status(0).state == "failed"


# -- ranges -------------------------------------------------------------------------------------


def test_one_request_at_a_time(play: Play) -> None:
    """A request is not written over one that is there, nor while ranges are unread."""
    job = play.job()
    assert play.server.acquire_ranges(job, 5) is None
    assert play.read(REQUEST)["7"]["nRanges"] == 5
    assert play.server.acquire_ranges(job, 9) is None
    assert play.read(REQUEST)["7"]["nRanges"] == 5
    play.feed(1, 2)
    assert play.server.acquire_ranges(job, 9) is not None
    assert REQUEST not in play.names


def test_lesson_08_ranges_stay_until_the_queue_has_them(play: Play) -> None:
    """A worker that dies before the queue has the ranges finds them again; one that dies after it
    does not take them twice."""
    job = play.job()
    play.feed(1, 2)
    ranges = play.server.acquire_ranges(job, 2)
    assert ranges is not None
    assert play.worker().acquire_ranges(job, 2) == ranges
    assert ranges[0].pfn == str(play.place / "in.root")
    mark = feed_mark(ranges)
    assert play.worker().acquire_ranges(job, 2, mark) is None
    assert RANGES not in play.names
    play.feed(1, 2)  # Harvester was killed too, and writes the same ones again
    assert play.worker().acquire_ranges(job, 2, mark) is None


def test_request_is_not_made_while_the_answered_one_is_there(play: Play) -> None:
    """Harvester removes the request after it has written: a new one would go with it."""
    job = play.job()
    assert play.server.acquire_ranges(job, 2) is None
    play.write(RANGES, {"7": [range_row(1)]})
    ranges = play.server.acquire_ranges(job, 2)
    assert ranges is not None
    request = (play.place / REQUEST).stat().st_ino
    assert play.server.acquire_ranges(job, 2, feed_mark(ranges)) is None
    assert (play.place / REQUEST).stat().st_ino == request
    (play.place / REQUEST).unlink()
    assert play.worker().acquire_ranges(job, 3, feed_mark(ranges)) is None
    assert play.read(REQUEST)["7"]["nRanges"] == 3


def test_request_that_got_lost_is_made_again(play: Play) -> None:
    """A request that is gone without an answer is made again, but not at once."""
    job = play.job()
    play.server.acquire_ranges(job, 2)
    (play.place / REQUEST).unlink()
    assert play.server.acquire_ranges(job, 2) is None
    assert REQUEST not in play.names
    server = play.worker(ask_again_s=0.0)
    server.acquire_ranges(job, 2)
    (play.place / REQUEST).unlink()
    server.acquire_ranges(job, 2)
    assert REQUEST in play.names


def test_request_is_taken_back(play: Play) -> None:
    """When no more ranges are wanted no request stays; wanted again they are asked for at once."""
    job = play.job()
    play.server.acquire_ranges(job, 2)
    play.server.stop_asking(job)
    assert REQUEST not in play.names
    play.server.acquire_ranges(job, 4)
    assert play.read(REQUEST)["7"]["nRanges"] == 4


def test_ranges_in_the_making(play: Play) -> None:
    """Half a ranges file is neither an answer nor the end, and stays where it is."""
    job = play.job()
    text = json.dumps({"7": [range_row(1), range_row(2)]})
    for cut in (0, 1, len(text) // 2, len(text) - 1):
        (play.place / RANGES).write_text(text[:cut])
        with pytest.raises(ServerUnavailable):
            play.server.acquire_ranges(job, 1)
    (play.place / RANGES).write_text(text)
    assert len(play.server.acquire_ranges(job, 1) or ()) == 2


def test_lesson_10_silence_is_not_the_end(play: Play) -> None:
    """Only an empty list means no more; the wait for anything else is bounded, and then refused."""
    job = play.job()
    assert play.server.acquire_ranges(job, 1) is None
    with pytest.raises(ServerRefused, match="no ranges"):
        play.worker(ranges_s=0.0).acquire_ranges(job, 1)
    assert REQUEST not in play.names
    play.write(RANGES, {"7": []})
    assert play.worker().acquire_ranges(job, 1) == ()


def test_inputs_are_read_where_harvester_has_put_them(tmp_path: Path) -> None:
    """Nothing is brought to the node, though size and checksum of the inputs are known."""
    definition = {**DEFINITION, "fsize": "5", "checksum": "ad:0a1b2c3d", "GUID": "g"}
    job = read_job_file(json.dumps({"7": definition}).encode())
    context = Context(
        tmp_path, tmp_path, tmp_path, "", Settings(), server_url=f"harvester:{tmp_path}/ap"
    )
    assert inputs_to_fetch(context, job) == ()
    assert input_places(context, job) == {"in.root": f"{tmp_path}/ap/in.root"}


# -- reports ------------------------------------------------------------------------------------


def test_report_is_pending_until_acknowledged(play: Play) -> None:
    """The answer comes with the acknowledgement, also to the next process; then the next goes."""
    job = play.job()
    play.members = {"r-1": [("out.r-1", 7, "00000007")], "r-2": [("out.r-2", 8, "00000008")]}
    batches = finished("r-1", "r-2")
    assert play.server.report(job, batches).pending
    rows = play.read(DUMP)["7"]
    assert [(r["path"], r["fsize"], r["type"]) for r in rows] == [
        ("/out/out.r-1", 7, "es_output"),
        ("/out/out.r-2", 8, "es_output"),
    ]
    assert play.worker().report(job, [*batches, *failed("r-3")]).pending
    play.acknowledge()
    assert play.worker().report(job, [*batches, *failed("r-3")]).accepted == (True, True, None)
    assert play.server.report(job, failed("r-3")).pending
    assert play.read(DUMP)["7"] == [{"eventRangeID": "r-3", "eventStatus": "failed"}]


def test_lesson_08_booked_ranges_are_not_said_again(play: Play) -> None:
    """What Harvester has booked is remembered until the queue has asked about it, whatever is
    reported in between and however often the worker dies."""
    job = play.job()
    play.server.report(job, [*failed("r-1"), *failed("r-2")])
    play.acknowledge("2026-11-22_00_00_00.000001")
    assert play.server.report(job, failed("r-2")).accepted == (True,)
    assert play.server.report(job, failed("r-3")).pending  # r-1 is not among them
    assert play.worker().report(job, failed("r-3")).pending
    assert play.worker().report(job, [*failed("r-1"), *failed("r-3")]).accepted == (True, None)
    play.acknowledge("2026-11-22_00_00_00.000002")
    assert play.server.report(job, failed("r-3")).accepted == (True,)
    assert play.worker().report(job, [*failed("r-1"), *failed("r-3")]).accepted == (True, True)


def test_booked_ranges_that_the_queue_does_not_have_yet(play: Play) -> None:
    """Who reports goes on with the rest before the queue has what was booked; whoever comes after
    its death is told of that again, and nothing is said twice, nor kept for ever."""
    job = play.job()
    play.server.report(job, failed("r-1"))
    play.acknowledge("2026-11-22_00_00_00.000001")
    both = [*failed("r-1"), *failed("r-2")]
    assert play.server.report(job, both).accepted == (True, None)
    assert play.server.report(job, failed("r-2")).pending  # in the same breath
    play.acknowledge("2026-11-22_00_00_00.000002")
    assert play.worker().report(job, both).accepted == (True, True)
    assert play.server.report(job, failed("r-3")).pending
    assert [row["eventRangeID"] for row in play.read(DUMP)["7"]] == ["r-3"]
    play.acknowledge("2026-11-22_00_00_00.000003")
    assert play.server.report(job, [*failed("r-3"), *failed("r-4")]).accepted == (True, None)
    assert play.server.report(job, failed("r-4")).pending
    assert play.worker().report(job, [*failed("r-2"), *failed("r-3")]).accepted == (None, True)


@pytest.mark.parametrize("name", [DUMP, f"{DUMP}.read"])
def test_unread_report_is_never_overwritten(play: Play, name: str) -> None:
    """What is not acknowledged, whoever wrote it, keeps the next report waiting."""
    job = play.job()
    (play.place / name).write_text("{}")
    assert play.server.report(job, failed("r-1")).pending
    assert (play.place / name).read_text() == "{}"
    assert len(play.names & {DUMP, f"{DUMP}.read"}) == 1


def test_report_that_was_thrown_away_is_sent_again(play: Play) -> None:
    """A dump that is gone without an acknowledgement comes again with the same content."""
    job = play.job()
    server = play.worker(lost_s=0.0)
    server.report(job, failed("r-1"))
    data = (play.place / DUMP).read_bytes()
    (play.place / DUMP).unlink()
    (play.place / f"{DUMP}.read.2026-11-22_00_00_00.000009").write_text("{}")
    assert server.report(job, failed("r-1")).pending
    assert (play.place / DUMP).read_bytes() == data
    play.acknowledge()
    assert server.report(job, failed("r-1")).accepted == (True,)


def test_archive_with_several_outputs_of_a_range_is_told_whole(play: Play) -> None:
    """A range can be told with one file only, so its archive is that file."""
    job = play.job()
    play.members = {"r-1": [("a.r-1", 7, "00000007"), ("b.r-1", 8, "00000008")]}
    play.server.report(job, finished("r-1"))
    (row,) = play.read(DUMP)["7"]
    assert (row["type"], row["path"], row["fsize"]) == ("zip_output", "/out/a.tar", 10240)


def test_lesson_16_no_reader_sees_half_a_file(play: Play) -> None:
    """A reader that polls during all writes finds every report and attributes file whole."""
    job, found, stop = play.job(), [], threading.Event()

    def read_all() -> None:
        while not stop.is_set():
            for name in (DUMP, "worker_attributes.json", REQUEST):
                try:
                    found.append(len(json.loads((play.place / name).read_text())))
                except FileNotFoundError:
                    continue
                except ValueError as error:
                    found.append(error)

    reader = threading.Thread(target=read_all)
    reader.start()
    try:
        for n in range(60):
            ids = [f"r-{n}-{k}" for k in range(300)]
            play.server.acquire_ranges(job, n + 1)
            play.server.report(job, failed(*ids))
            play.server.update_job(job, JobUpdate("running", n))
            play.acknowledge(f"2026-11-22_00_00_00.{n:06d}")
            assert play.server.report(job, failed(*ids)).accepted == (True,) * 300
            (play.place / REQUEST).unlink(missing_ok=True)
    finally:
        stop.set()
        reader.join()
    assert found
    assert not [each for each in found if not isinstance(each, int)]


# -- updates and the end ------------------------------------------------------------------------


def test_lesson_57_heartbeat_is_written(play: Play) -> None:
    """Waiting for a job and every update touch the heartbeat, which exists from the first call."""
    path = play.place / "worker_heartbeat.json"

    def beats(call: Callable[[], Any]) -> None:
        path.unlink(missing_ok=True)
        call()
        assert path.exists()

    beats(play.server.acquire_job)
    job = play.job()
    beats(lambda: play.server.update_job(job, JobUpdate("running")))


def test_final_update_leaves_the_right_files(play: Play) -> None:
    """Attributes and job report are there, no request, and the worker takes no other job."""
    job = play.job()
    play.server.acquire_ranges(job, 3)
    play.server.update_job(job, FINAL)
    assert play.read("worker_attributes.json")["jobStatus"] == "finished"
    assert play.read("jobReport.json") == {"a": 1}
    assert REQUEST not in play.names
    assert "kill_worker.json" not in play.names
    play.worker().update_job(job, FINAL)  # once more, after a death
    status = play.worker().task_status(1)
    assert (status.state, status.total, status.finished, status.failed) == ("finished", 2, 1, 1)
    assert play.server.acquire_job() is None
    assert "worker_requestjob.json" not in play.names


def test_lesson_58_kill_file_by_option(play: Play) -> None:
    """The kill file is written at the end, when that is wanted, under Harvester's name."""
    server = play.worker(kill_at_end=True)
    server.update_job(play.job(), FINAL)
    assert "kill_worker.json" in play.names


def test_further_jobs(play: Play) -> None:
    """With two jobs the second is asked for when the first has ended."""
    server = play.worker(jobs=2)
    server.update_job(play.job(), FINAL)
    assert server.acquire_job() is None
    assert "worker_requestjob.json" in play.names
    play.write("HPCJobs.json", {"8": {**DEFINITION, "PandaID": 8}})
    job = server.acquire_job()
    assert job is not None and job.panda_id == 8


def test_access_point_that_vanishes(play: Play, tmp_path: Path) -> None:
    """A directory that is away is doubt, for a while; then the job is over."""
    job = play.job()
    play.place.rename(tmp_path / "away")
    with pytest.raises(ServerUnavailable, match="not there"):
        play.server.report(job, failed("r-1"))
    (tmp_path / "away").rename(play.place)
    assert play.server.range_statuses(job, {"r-1"}) == {"r-1": "sent"}
    server = play.worker(gone_s=0.0)
    play.place.rename(tmp_path / "away")
    assert server.update_job(job, JobUpdate("running")) == "tobekilled"
    assert server.report(job, failed("r-1")).accepted == (False,)
    assert server.range_statuses(job, {"r-1"}) == {}
    with pytest.raises(ServerRefused, match="removed"):
        server.acquire_ranges(job, 1)


def test_access_point_that_vanishes_while_a_job_is_awaited(play: Play, tmp_path: Path) -> None:
    """Without a job too its removal is the end of the worker: there is none any more."""
    server = play.worker(gone_s=0.0)
    assert server.acquire_job() is None
    assert server.task_status(1).state == "running"
    play.place.rename(tmp_path / "away")
    assert server.acquire_job() is None
    assert server.task_status(1).state == "failed"


def test_waiting_readers_never_meet_temporary_names(play: Play) -> None:
    """Nothing but the shared names is left in the access point."""
    job = play.job()
    play.server.acquire_ranges(job, 1)
    play.server.report(job, failed("r-1"))
    eventually(lambda: not [n for n in play.names if n.startswith(".")], "no temporary files")
