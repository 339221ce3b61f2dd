"""Harvester's shared files, bytes to nouns and back: names, jobs, ranges, requests, reports."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from espilot.errors import ConfigError, MessageError
from espilot.model import Job, JobUpdate
from espilot.wire import harvester as wire
from espilot.wire.panda_v1 import Pilot

JOB = Job(900123, 900100, 4711, 1, 64, ("HITS.x.root",), "x.log.tgz", ("EVNT.a.root",))
DEFINITION: dict[str, Any] = {
    "PandaID": 900123, "taskID": 4711, "jobsetID": 900100, "attemptNr": 1, "coreCount": 64,
    "inFiles": "EVNT.a.root,EVNT.b.root", "outFiles": "HITS.x.root,x.log.tgz",
    "logFile": "x.log.tgz", "eventService": "True", "jobPars": "--in=EVNT.a.root",
}  # fmt: skip
RANGE = {
    "eventRangeID": "4711-900123-55501-12-1", "LFN": "EVNT.a.root", "GUID": "AAAA-1", "scope": "s1",
    "startEvent": 12, "lastEvent": 13,
}  # fmt: skip


def test_names_of_the_template() -> None:
    """A configuration that is silent leaves the template's names."""
    assert wire.read_names("[payload_interaction]\n", "x.cfg") == wire.FileNames()


@pytest.mark.parametrize("key", ["killWorkerFile", "killworkerfile", "KILLWORKERFILE"])
def test_lesson_58_names_from_harvester(key: str) -> None:
    """Names come from Harvester's own file, keys in any case; the kill file's is one of them."""
    text = f"[master]\nx = %(y)s\n[payload_interaction]\n{key} = kill_worker\njobSpecFile: j.json\n"
    names = wire.read_names(text, "x.cfg")
    assert (names.kill, names.job, names.heartbeat) == (
        "kill_worker",
        "j.json",
        "worker_heartbeat.json",
    )
    assert wire.FileNames().kill == "kill_worker.json"


@pytest.mark.parametrize(
    "text",
    [
        "[payload_interaction]\njobSpecFile = ../j\n",
        "[payload_interaction]\njobSpecFile = .hidden\n",
        "[payload_interaction]\njobSpecFile = jobReport.json\n",
        "[other]\n",
        "no section\n",
    ],
)
def test_unusable_names(text: str) -> None:
    """A name that leaves the directory, two that are the same, another file: one clear line."""
    with pytest.raises(ConfigError, match=r"x\.cfg") as caught:
        wire.read_names(text, "x.cfg")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["json", "cgi"])
def test_job_file(form: str) -> None:
    """The job of a file in either format, also without what `stripJobParams` drops."""
    data = json.dumps({"900123": DEFINITION}) if form == "json" else urlencode(DEFINITION)
    job = wire.read_job_file(data.encode())
    assert (job.panda_id, job.jobset_id, job.task_id, job.core_count) == (900123, 900100, 4711, 64)
    assert job.input_lfns == ("EVNT.a.root", "EVNT.b.root")
    assert job.output_lfns == ("HITS.x.root",)
    assert job.event_service


def test_command_line_of_a_jumbo_job() -> None:
    """By option the first input alone is left on the command line; the list of inputs stays."""
    parameters = "--in=EVNT.a.root,EVNT.b.root --out=x"
    data = json.dumps({"900123": DEFINITION | {"jobPars": parameters}}).encode()
    assert wire.read_job_file(data).definition["jobPars"] == parameters
    job = wire.read_job_file(data, first_input_only=True)
    assert job.definition["jobPars"] == "--in=EVNT.a.root --out=x"
    assert job.input_lfns == ("EVNT.a.root", "EVNT.b.root")


def test_job_file_in_the_making() -> None:
    """No part of a job file is taken for a job."""
    data = json.dumps({"900123": DEFINITION}).encode()
    for size in range(len(data)):
        with pytest.raises(MessageError):
            wire.read_job_file(data[:size])


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"1": 2}', b'{"1": {}, "2": {}}', b"a=b=c&&"])
def test_job_files_that_hold_no_job(data: bytes) -> None:
    """Anything else is refused in one line."""
    with pytest.raises(MessageError):
        wire.read_job_file(data)


def test_ranges() -> None:
    """Ranges have the path of their input in the access point."""
    (found,) = wire.read_ranges(json.dumps({"900123": [RANGE]}).encode(), JOB, "/ap")
    assert (found.id, found.start_event, found.last_event) == (RANGE["eventRangeID"], 12, 13)
    assert found.pfn == "/ap/EVNT.a.root"


def test_lesson_10_empty_list_is_the_end() -> None:
    """Only an empty list of this job means that there are no more; part of a file is no answer."""
    data = json.dumps({"900123": []}).encode()
    assert wire.read_ranges(data, JOB, "/ap") == ()
    for size in range(len(data)):
        with pytest.raises(MessageError):
            wire.read_ranges(data[:size], JOB, "/ap")
    with pytest.raises(MessageError, match="900123"):
        wire.read_ranges(b'{"1": []}', JOB, "/ap")


@pytest.mark.parametrize("change", [{"LFN": "../x"}, {"lastEvent": 1}, {"eventRangeID": "x"}])
def test_ranges_that_cannot_be_used(change: dict[str, Any]) -> None:
    """A name that leaves the directory, or a range that is none, is refused."""
    with pytest.raises(MessageError, match="ranges file"):
        wire.read_ranges(json.dumps({"900123": [RANGE | change]}).encode(), JOB, "/ap")


def test_requests() -> None:
    """A request names the job and how many; a job of hyper-parameters adds what is its own."""
    assert json.loads(wire.write_job_request(2)) == {"nJobs": 2}
    assert json.loads(wire.write_event_request(JOB, 8192)) == {
        "900123": {"pandaID": 900123, "taskID": 4711, "jobsetID": 900100, "nRanges": 8192}
    }
    job = wire.read_job_file(
        json.dumps({"900123": DEFINITION | {"isHPO": "True", "sourceURL": "u"}}).encode()
    )
    assert json.loads(wire.write_event_request(job, 1))["900123"]["sourceURL"] == "u"


def test_dump() -> None:
    """A file has all its facts, a failure none, and no range is in a report twice."""
    file = wire.FileFacts(wire.ES_OUTPUT, "/ap/out/HITS.x.root.a-1", 7, "0a1b2c3d")
    entries = [
        wire.DumpEntry("a-1", "finished", file),
        wire.DumpEntry("a-2", "failed"),
        wire.DumpEntry("a-1", "failed"),
    ]
    (first, second) = json.loads(wire.write_dump(JOB, entries))["900123"]
    guid = first.pop("guid")
    assert first == {
        "eventRangeID": "a-1", "eventStatus": "finished", "type": "es_output",
        "path": "/ap/out/HITS.x.root.a-1", "fsize": 7, "chksum": "0a1b2c3d",
    }  # fmt: skip
    assert second == {"eventRangeID": "a-2", "eventStatus": "failed"}
    assert guid == wire.guid_of(file.path)
    assert [len(part) for part in guid.split("-")] == [8, 4, 4, 4, 12]


def test_attributes() -> None:
    """A heartbeat says no job status; the last one does, under the names that are passed on."""
    running = JobUpdate("running", 5, cpu_s=12, more={"max_rss": 3, "meta_data": "{}"})
    told = json.loads(wire.write_attributes(JOB, running, Pilot("S", "node7")))
    assert told["nEvents"] == 5
    assert (told["node"], told["cpuConsumptionTime"], told["maxRSS"]) == ("node7", 12, 3)
    assert not {"jobStatus", "metaData", "xml", "jobId", "jobSubStatus"} & told.keys()
    final = JobUpdate("failed", pilot_error_code=1305, pilot_error_diag="x")
    told = json.loads(wire.write_attributes(JOB, final, Pilot("S", "n")))
    assert (told["jobStatus"], told["pilotErrorCode"]) == ("failed", 1305)
    assert wire.job_report(running) == b"{}"
    assert wire.job_report(final) is None
