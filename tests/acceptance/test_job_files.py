"""`espilot run --job FILE`: every kind of job definition, in every form in which it is written."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import run_oracle
from pilot_run import END_S, ESPILOT, FAKE

from espilot.payload.fake.content import expected_content

SIM = """\
import json, sys
from pathlib import Path
options = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:])
data = Path(options["inputEVNTFile"]).read_bytes()
print("simulating", options["maxEvents"])
if options["maxEvents"] != "0":
    Path(options["outputHITSFile"]).write_bytes(data.upper())
code = int(options.get("fail", 0))
Path("jobReport.json").write_text(json.dumps({"exitCode": code, "exitMsg": "as told"}))
"""
MERGE = """\
import sys
from pathlib import Path
option, *names = Path(sys.argv[1][1:]).read_text().splitlines()
assert option == "--inputHitsFile" and "--autoConfiguration=everything" not in sys.argv
Path("HITS.1").write_bytes(b"".join(Path(name).read_bytes() for name in names))
"""
QUICK = "[limits]\nfree_start_bytes = 0\nfree_bytes = 0\n[stageout]\nretry_min_s = 0.05\n" \
    "retry_max_s = 0.1\n"  # fmt: skip


def definition(**fields: Any) -> dict[str, Any]:
    """What all jobs have; the log is the last of the outputs."""
    return {
        "StatusCode": 0,
        "PandaID": 4711,
        "taskID": 17,
        "jobsetID": 4700,
        "attemptNr": 1,
        "jobName": "mc.000001.simul/e1",
        "transformation": "Sim_tf.py",
        "jobPars": "",
        "inFiles": "EVNT.1",
        "outFiles": "HITS.1,log.tgz.1",
        "logFile": "log.tgz.1",
        "logGUID": "0b8e4a0e-1111-4a55-9d2b-6cf3b1c0a001",
        "scopeOut": "mc16",
        "scopeLog": "mc16",
        "ddmEndPointOut": "DISK,DISK",
        "prodDBlockToken": "NULL",
        "coreCount": 1,
        "prodUserID": "NULL",
        "ioIntensity": None,
    } | fields


def normal(**fields: Any) -> dict[str, Any]:
    arguments = "--inputEVNTFile=EVNT.1 --outputHITSFile=HITS.1 --maxEvents=3"
    facts = {"jobPars": arguments, "fsize": "4", "checksum": f"ad:{zlib.adler32(b'evnt'):08x}"}
    return definition(**(facts | fields))


def event(**fields: Any) -> dict[str, Any]:
    return definition(
        eventService="True", jobPars="--inputEVNTFile=EVNT.1 --maxEvents=30 --eventService=True",
        **fields,
    )  # fmt: skip


JUMBO = {"inFiles": "EVNT.1,EVNT.2,EVNT.3", "jobsetID": 17, "coreCount": 136}
FORMS = {
    "base64": lambda fields: json.dumps(
        {**fields, "jobPars": b64encode(fields["jobPars"].encode()).decode()}
    ),
    "json": json.dumps,
    "form": lambda fields: urlencode({k: "NULL" if v is None else v for k, v in fields.items()}),
    "answer": lambda fields: json.dumps({"StatusCode": 0, "jobs": [fields]}),
    "v1": lambda fields: json.dumps({"success": True, "data": {"jobs": [fields]}}),
}


class Place:
    """A directory with a job, its programs and its inputs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.workdir = directory / "w"
        self.storage = directory / "se"
        self.storage.mkdir()
        self.program("Sim_tf.py", f"#!{sys.executable}\n{SIM}")
        self.program("HITSMerge_tf.py", f"#!{sys.executable}\n{MERGE}")
        for n in (1, 2, 3):
            (directory / f"EVNT.{n}").write_text("evnt")
        (directory / "settings.toml").write_text(QUICK)

    def program(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        job = self.directory / "job.json"
        job.write_text(text)
        argv = [
            *ESPILOT,
            "run",
            "--job",
            str(job),
            "--local",
            str(self.directory / "settings.toml"),
        ]
        argv += ["--workdir", str(self.workdir), "--storage", str(self.storage), "--json"]
        return subprocess.run(
            [*argv, *arguments], capture_output=True, text=True, timeout=END_S, check=False
        )

    def finish(self, text: str) -> dict[str, Any]:
        """Run it to a good end; the summary."""
        done = self.run(text)
        assert done.returncode == 0, done.stderr + self.log[-5000:]
        run_oracle.require_nothing_left(self.workdir, self.workdir / "state", set())
        return json.loads(done.stdout)

    @property
    def log(self) -> str:
        return (self.workdir / "logs" / "pilot.log").read_text()

    def final_update(self) -> dict[str, Any]:
        """What the last update of the job told."""
        fields = run_oracle.last_update(self.workdir / "state" / "server.sqlite")
        assert fields["job_status"] in ("finished", "failed")
        return fields


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_normal_job(place: Place, form: str) -> None:
    """A normal job stages in, runs, stages out; outputs, log and job report are told."""
    assert place.finish(FORMS[form](normal()))["state"] == "finished"
    assert (place.storage / "HITS.1").read_bytes() == b"EVNT"
    told = place.final_update()
    report = json.loads(told["job_output_report"])
    assert sorted(report) == ["HITS.1", "log.tgz.1"]
    assert report["HITS.1"]["adler32"] == f"{zlib.adler32(b'EVNT'):08x}"
    assert report["log.tgz.1"]["guid"] == "0b8e4a0e-1111-4a55-9d2b-6cf3b1c0a001"
    assert json.loads(told["meta_data"]) == {"exitCode": 0, "exitMsg": "as told"}
    with tarfile.open(place.storage / "log.tgz.1") as tar:
        assert any(name.endswith("payload.stdout") for name in tar.getnames())
        assert not any(name.endswith(("EVNT.1", "HITS.1")) for name in tar.getnames())


def test_direct_access(place: Place) -> None:
    """With direct access nothing is copied here: the payload is told where its input is."""
    place.program("Sim_tf.py", f"#!{sys.executable}\n{SIM}\nassert not Path('EVNT.1').exists()\n")
    place.finish(json.dumps(normal(transferType="direct")))
    assert (place.storage / "HITS.1").read_bytes() == b"EVNT"


def test_job_with_queue_data_of_its_own(place: Place) -> None:
    """They are the pilot's: the payload does not see the option, and its input is not copied; what
    cannot count for one job is named."""
    refuse = "assert 'overwrite' not in str(sys.argv) and not Path('EVNT.1').exists()"
    place.program("Sim_tf.py", f"#!{sys.executable}\n{SIM}\n{refuse}\n")
    job = normal()
    job["jobPars"] += " --overwriteQueueData={'direct_access_lan': True, 'maxwdir': 5}"
    place.finish(json.dumps(job))
    assert (place.storage / "HITS.1").read_bytes() == b"EVNT"
    assert "names=direct_access_lan,maxwdir ignored=maxwdir" in place.log


def test_input_from_the_storage(place: Place) -> None:
    """An input that is not beside the job file is fetched from the storage."""
    (place.directory / "EVNT.1").rename(place.storage / "EVNT.1")
    place.finish(json.dumps(normal()))
    assert (place.storage / "HITS.1").read_bytes() == b"EVNT"


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"checksum": "ad:00000001"}, 1171, "EVNT.1"),
        ({"fsize": "5"}, 1171, "EVNT.1"),
        ({"checksum": "md:" + "0" * 32}, 1145, "md5"),
        ({"inFiles": "EVNT.9"}, 1171, "EVNT.9"),
        ({"transformation": "nothing_tf.py"}, 1110, "nothing_tf.py"),
        ({"transformation": "https://example.org/run.sh"}, 1110, "transformation"),
        ({"jobPars": "--inputEVNTFile=EVNT.1 --outputHITSFile=x --maxEvents=1"}, 1165, "HITS.1"),
        ({"jobPars": "--inputEVNTFile=EVNT.1 --outputHITSFile=HITS.1 --maxEvents=1 --fail=65"},
         1305, "exit code 65: as told"),
    ],
    ids=["adler32", "size", "md5", "missing", "program", "url", "output", "report"],
)  # fmt: skip
def test_normal_job_that_fails(place: Place, fields: dict[str, Any], code: int, word: str) -> None:
    """What cannot be had, run or verified is told with code and name; the log is shipped."""
    done = place.run(json.dumps(normal(**fields)))
    assert done.returncode == 1
    assert json.loads(done.stdout)["state"] == "failed"
    told = place.final_update()
    assert told["pilot_error_code"] == code
    assert word in told["pilot_error_diag"]
    assert (place.storage / "log.tgz.1").is_file()
    assert not (place.storage / "HITS.1").exists()
    run_oracle.require_nothing_left(place.workdir, place.workdir / "state", set())


@pytest.mark.parametrize("form", ["json", "form", "base64"])
@pytest.mark.parametrize("extra", [{}, JUMBO], ids=["event", "jumbo"])
def test_event_job(place: Place, form: str, extra: dict[str, Any]) -> None:
    """An event job runs its transformation on the ranges of its inputs; each range is shipped."""
    place.program("Sim_tf.py", f"#!/bin/sh\nexec {FAKE} --clients 2\n")
    summary = place.finish(FORMS[form](event(**extra)))
    assert summary["ranges"]["finished"] == 30
    account = run_oracle.take_account(place.workdir / "state" / "server.sqlite", place.storage)
    for each in account.with_fate("finished"):
        name = f"HITS.1.{each.id}"
        assert account.content_of(each.id) == {name: expected_content(each.id, 100)}


@pytest.mark.parametrize("form", ["json", "form", "base64"])
def test_merge_job(place: Place, form: str) -> None:
    """A merge job fetches archives and loose files, unpacks, writes its list, and merges."""
    members = {f"HITS.1.17-4700-9-{n}-10": f"part {n}\n".encode() for n in (1, 2, 3)}
    archive = place.storage / "EventService_premerge_4700_17-4700-9-1-10.tar"
    with tarfile.open(archive, "w") as tar:
        for name, data in members.items():
            path = place.directory / name
            path.write_bytes(data)
            tar.add(path, name)
            path.unlink()
    (place.storage / "HITS.1.17-4701-9-4-9").write_bytes(b"part 4\n")
    data = archive.read_bytes()
    names = [*members, "HITS.1.17-4701-9-4-9"]
    text = FORMS[form](
        definition(
            transformation="HITSMerge_tf.py",
            jobPars="--inputHitsFile=@inputFor_HITS.1 --autoConfiguration=everything",
            inFiles=f"zip://{archive.name},{names[-1]}",
            fsize=f"{len(data)},NULL",
            checksum=f"ad:{zlib.adler32(data):08x},NULL",
            prodDBlockToken="1/1000,1",
            eventServiceMerge="True",
            writeToFile=f"inputFor_HITS.1:{','.join(names)}",
        )
    )
    place.finish(text)
    assert (place.storage / "HITS.1").read_text() == "part 1\npart 2\npart 3\npart 4\n"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no PandaID"),
        ("{", "not valid JSON"),
        ("[]", "no PandaID"),
        ("{}", "no PandaID"),
        ('{"PandaID": "x", "transformation": "y"}', "PandaID is not a whole number"),
        (json.dumps(definition(inFiles="../up")), "inFiles"),
        (json.dumps(definition(eventService="True")), "maxEvents"),
        ("[" * 100_000, "not valid JSON"),
    ],
    ids=range(8),
)
def test_unusable_files_are_refused(place: Place, text: str, word: str) -> None:
    """A file that is no job definition is refused in one line that names it."""
    done = place.run(text)
    assert done.returncode == 64
    [line] = done.stderr.splitlines()
    assert "job.json" in line and word in line


READER = """\
import os
from pathlib import Path
from espilot.payload import EventRanges
for each in EventRanges():
    secret = os.environ.get("TEST_SE_KEY", "none")
    text = f"{each.pfn} {Path(each.pfn).read_text()} {secret}"
    Path(each.output_path()).write_text(text)
    each.done(each.output_path())
"""
EVENT_INPUT = {"fsize": "4", "checksum": f"ad:{zlib.adler32(b'evnt'):08x}"}


@pytest.mark.parametrize("beside", [True, False], ids=["beside the job", "on the storage"])
@pytest.mark.parametrize("access", ["copy", "direct"])
def test_inputs_of_event_jobs(
    place: Place, monkeypatch: pytest.MonkeyPatch, access: str, beside: bool
) -> None:
    """Inputs are brought here, or read where they are; ranges say where. No key goes along."""
    monkeypatch.setenv("TEST_SE_KEY", "secret")
    settings = (
        f'{QUICK}[stagein]\naccess = "{access}"\n[endpoints.other]\nurl = "{place.storage}"\n'
    )
    (place.directory / "settings.toml").write_text(
        f'{settings}credentials = "env:TEST_SE_KEY,TEST_SE_KEY"\n'
    )
    place.program("Sim_tf.py", f"#!{sys.executable}\n{READER}")
    origin = place.directory
    if not beside:
        origin = place.storage
        (place.directory / "EVNT.1").rename(origin / "EVNT.1")
    place.finish(json.dumps(event(**EVENT_INPUT)))
    where = place.workdir / "inputs" if access == "copy" else origin
    account = run_oracle.take_account(place.workdir / "state" / "server.sqlite", place.storage)
    texts = {b"".join(account.content_of(each.id).values()).decode() for each in account.ranges}
    assert texts == {f"{where}/EVNT.1 evnt none"}
    assert (place.workdir / "inputs").exists() == (access == "copy")


def test_event_job_without_its_input(place: Place) -> None:
    """An input that is not what it should be is named; no payload starts, all ranges go back."""
    place.program("Sim_tf.py", f"#!/bin/sh\ntouch {place.directory}/started\n")
    (place.directory / "settings.toml").write_text(f"{QUICK}[payload]\nrestarts = 1\n")
    wrong = {"fsize": "4", "checksum": "ad:00000001"}
    done = place.run(json.dumps(event(**wrong)))
    assert done.returncode == 1
    assert "EVNT.1" in place.log and "inputs missing" in place.log
    assert not (place.directory / "started").exists()
    run_oracle.require_nothing_left(place.workdir, place.workdir / "state", set())
