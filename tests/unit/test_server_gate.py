"""The built-in server against tables of what real servers answer, and each of its quirks.

The gate is asked directly, without sockets: a request in, a reply out.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from espilot.errors import UsageError
from espilot.server.gate import Gate, HttpRequest, Reply
from espilot.server.options import FAULTS, Quirks, ServerOptions
from espilot.server.quirk_text import describe_quirks, read_quirks
from espilot.server.store import Store
from espilot.server.tasks import NewTask
from espilot.wire.panda_v1 import CALLS

JSON = {"Accept": "application/json", "Content-Type": "application/json"}
FORM = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
PLAIN = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Site:
    """One server, and what a test says to it."""

    gate: Gate
    store: Store

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Reply:
        path, _, query = path.partition("?")
        refused = self.gate.refuse(path, headers)
        return refused or self.gate.answer(HttpRequest(method, path, query, headers, body))

    def v1(self, name: str, values: dict[str, Any] | None = None, **headers: str) -> Reply:
        """A v1 call as it should be."""
        call = CALLS[name]
        if call.method == "GET":
            query = urlencode(values or {}, doseq=True)
            return self.send("GET", f"{call.path}?{query}", {**JSON, **headers})
        body = json.dumps(values or {}).encode()
        return self.send("POST", call.path, {**JSON, **headers}, body)

    def old(self, name: str, values: dict[str, Any] | None = None, **headers: str) -> Reply:
        """A legacy call as it should be."""
        body = urlencode(values or {}).encode()
        return self.send("POST", f"/server/panda/{name}", {**FORM, **headers}, body)

    def task(self, events: int = 6, **values: Any) -> dict[str, Any]:
        """A task, and its first job, running."""
        self.store.create_task(NewTask("t", events, **values), 1000.0)
        job = json.loads(self.v1("pilot/acquire_jobs", {"site_name": "S"}).text)["data"]["jobs"][0]
        given = {"job_id": job["PandaID"], "job_status": "running"}
        self.store.update_job(given, 1000.0)
        return job

    def ranges(self, job: dict[str, Any], n: int = 6) -> list[str]:
        wanted = {"job_id": job["PandaID"], "jobset_id": job["jobsetID"], "n_ranges": n}
        return [item["eventRangeID"] for item in self.store.acquire_ranges(wanted)]


Open = Callable[..., Site]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Open]:
    opened: list[Store] = []

    def open_site(**switches: Any) -> Site:
        quirks = Quirks(**switches)
        path = tmp_path / f"{len(opened)}.db"
        store = Store(path, ServerOptions(quirks=quirks), now=1000.0)
        opened.append(store)
        return Site(Gate(store, quirks, lambda: 1000.0), store)

    yield open_site
    for store in opened:
        store.close()


def finished(ids: list[str], **archive: Any) -> str:
    items: list[dict[str, Any]] = [{"eventRangeID": i, "eventStatus": "finished"} for i in ids]
    return json.dumps([{"eventRanges": items, "zipFile": archive}] if archive else items)


def data_of(reply: Reply) -> Any:
    return json.loads(reply.text)["data"]


# -- transport ----------------------------------------------------------------------------------

UPDATES = "event/update_event_ranges"
WORKER, FAILED = "/server/panda/updateWorkerPilotStatus", '{"StatusCode":30}'
TRANSPORT = [
    # method, path, headers, body, status, beginning of the answer
    ("POST", "/server/panda/getJob/", FORM, b"", 403, "ERROR : method  is forbidden"),
    ("POST", "/server/panda/nothing", FORM, b"", 403, "ERROR : method nothing is forbidden"),
    ("POST", "/server/other/getJob", FORM, b"", 403, "ERROR : method  is forbidden"),
    ("GET", "/api/v1/pilot/nothing", JSON, b"", 403, "ERROR : method nothing is forbidden"),
    ("GET", "/api/v1/system/is_alive", JSON, b"", 200, '{"success":true'),
    ("GET", "/api/latest/system/is_alive", JSON, b"", 200, '{"success":true'),
    ("POST", "/api/v1/system/is_alive", JSON, b"{}", 200, '{"success":false,"message":"expecting'),
    ("GET", "/api/v1/system/is_alive", {}, b"", 200, "{'success': True"),
    ("POST", "/api/v1/pilot/acquire_jobs", JSON, b"{", 500, "ERROR : received invalid JSON : "),
    ("POST", "/server/panda/isAlive", {}, b"", 200, "alive=yes"),
    ("GET", "/server/panda/isAlive", {}, b"", 200, "alive=yes"),
    ("POST", "/server/panda/getJob", FORM, b"siteName=S", 200, '{"StatusCode":20,"errorDialog"'),
    ("POST", "/server/panda/getJob", PLAIN, b"siteName=S", 200, "StatusCode=20"),
    ("POST", "/server/panda/getJob?siteName=S", FORM, b"", 200, '{"StatusCode":20'),
    ("POST", "/server/panda/getJob", FORM, b"siteName=S&x=1", 500, "getJob() got an unexpected"),
    ("POST", "/server/panda/getJob", FORM, b"", 500, "getJob() missing a required argument"),
    ("POST", "/server/panda/getStatus", FORM, b"ids=5+6", 200, "StatusCode=0&status=notfound+not"),
    (
        "POST",
        "/server/panda/checkJobStatus",
        PLAIN,
        b"ids=5",
        200,
        '{"StatusCode":0,"data":[{"command":"tobekilled","status":"unknown"}]}',
    ),
    (
        "POST",
        "/server/panda/updateEventRange",
        FORM,
        b"eventRangeID=x&eventStatus=running",
        200,
        "StatusCode=30",
    ),
    ("POST", "/server/panda/get_events_status", FORM, b"ids=%5B%5D", 200, "{}"),
    ("POST", "/server/panda/get_events_status", FORM, b"ids=x", 200, "null"),
    ("POST", WORKER, PLAIN, b"site=S&workerID=7&harvesterID=H&status=started", 200, "StatusCode=0"),
    ("POST", WORKER, FORM, b"site=S&workerID=x&harvesterID=H&status=started", 200, FAILED),
    ("POST", WORKER, FORM, b"site=S&workerID=7&harvesterID=H&status=ill", 200, "the status of a"),
    ("POST", WORKER, FORM, b"site=S&workerID=7&status=started", 500, "updateWorkerPilotStatus() m"),
]


@pytest.mark.parametrize(("method", "path", "headers", "body", "status", "begin"), TRANSPORT)
def test_transport_table(
    site: Open,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    begin: str,
) -> None:
    """Paths, methods, headers and forms lead to the status and the kind of text of real servers."""
    reply = site().send(method, path, headers, body)
    assert reply.status == status
    assert reply.text.startswith(begin), reply.text


STATES = [
    # states sent in this order, then what the answer to the last says and what is stored
    (("starting", "running"), "NULL", "running"),
    (("running", "starting"), "NULL", "running"),
    (("running", "transferring", "running"), "NULL", "transferring"),
    (("running", "holding", "transferring"), "NULL", "holding"),
    (("running", "finished", "finished"), "alreadydone", None),
    (("running", "failed", "running"), "NULL", None),
]


@pytest.mark.parametrize(("sent", "command", "stored"), STATES)
@pytest.mark.parametrize("dialect", ["v1", "legacy"])
def test_state_table(
    site: Open, dialect: str, sent: tuple[str, ...], command: str, stored: str | None
) -> None:
    """A job never goes back, and a final update ends it whatever comes after."""
    here = site()
    job = here.task()
    told = ""
    for state in sent:
        if dialect == "v1":
            values = {"job_id": job["PandaID"], "job_status": state, "job_output_report": "{}"}
            told = data_of(here.v1("pilot/update_job", values))["command"]
        else:
            values = {"jobId": job["PandaID"], "state": state, "xml": "{}"}
            told = json.loads(here.old("updateJob", values).text)["command"]
    assert told == command
    if stored is not None:
        assert here.store.job_statuses([job["PandaID"]])[0]["status"] == stored


REPORTS = [
    # status that is reported, entry, command that comes with it, status of the row
    ("finished", True, None, "finished"),
    ("failed", True, None, "failed"),
    ("fatal", True, None, "failed"),
    ("running", None, ..., "sent"),
    ("transferring", None, ..., "sent"),
    ("nonsense", False, ..., "sent"),
]


@pytest.mark.parametrize(("status", "entry", "command", "row"), REPORTS)
def test_report_table(site: Open, status: str, entry: bool | None, command: Any, row: str) -> None:
    """Entries and commands of a report, and what is in the table after it."""
    here = site()
    job = here.task(1)
    (range_id,) = here.ranges(job)
    text = json.dumps([{"eventRangeID": range_id, "eventStatus": status}])
    told = json.loads(here.old("updateEventRanges", {"eventRanges": text, "version": 1}).text)
    commands = {} if command is ... else {str(job["PandaID"]): command}
    assert (told["Returns"], told["Command"]) == ([entry], commands)
    assert here.store.event_rows(job["taskID"])[0]["status"] == row


VERSIONS = [
    (FORM, "0", '{"StatusCode":0,"Returns":"[true]","Command":"{\\"%d\\": null}"}'),
    (FORM, "x", '{"StatusCode":0,"Returns":"[true]","Command":"{\\"%d\\": null}"}'),
    (FORM, "1", '{"StatusCode":0,"Returns":[true],"Command":{"%d":null}}'),
    (PLAIN, "1", "StatusCode=0&Returns=%%5BTrue%%5D&Command=%%7B%d%%3A+None%%7D"),
    (PLAIN, "0", "StatusCode=0&Returns=%%5Btrue%%5D&Command=%%7B%%22%d%%22%%3A+null%%7D"),
]


@pytest.mark.parametrize(("headers", "version", "text"), VERSIONS)
def test_legacy_update_shapes(site: Open, headers: dict[str, str], version: str, text: str) -> None:
    """The three versions answer in their own shapes, as JSON and as a form."""
    here = site()
    job = here.task(1)
    body = urlencode({"eventRanges": finished(here.ranges(job)), "version": version}).encode()
    reply = here.send("POST", "/server/panda/updateEventRanges", headers, body)
    assert reply.text == text % job["PandaID"]


def test_bulk_job_updates(site: Open) -> None:
    """Both bulk updates answer one item per job; the legacy one encodes each twice."""
    here = site()
    panda_id = here.task()["PandaID"]
    jobs = json.dumps([{"jobId": panda_id, "state": "running"}])
    ok, (item,) = json.loads(here.old("updateJobsInBulk", {"jobList": jobs}).text)
    assert ok is True and item["type"] == "json"
    assert json.loads(item["content"]) == {"StatusCode": 0, "command": "NULL"}
    items = [{"job_id": panda_id, "job_status": "running"}]
    (answer,) = data_of(here.v1("pilot/update_jobs_bulk", {"job_list": items}))
    assert answer["data"] == {"StatusCode": 0, "command": "NULL"}


# -- quirks -------------------------------------------------------------------------------------


def test_quirk_dialects_and_drop_legacy(site: Open) -> None:
    """An absent dialect is forbidden by the method's name; local functions are always there."""
    assert site(dialects="v1").old("isAlive").status == 403
    only_legacy = site(dialects="legacy")
    assert only_legacy.v1("system/is_alive").text == "ERROR : method is_alive is forbidden"
    assert only_legacy.v1("local/task_status", {"task_id": 9}).status == 200
    dropping = site(drop_legacy=2)
    assert [dropping.old("isAlive").status for _ in range(4)] == [200, 200, 403, 403]


def test_quirk_v1_headers(site: Open) -> None:
    """Labels, the literal, and the exact type can be put right."""
    alive = "system/is_alive"
    assert site().v1(alive).content_type == "text/plain"
    assert site(v1_text_plain=False).v1(alive).content_type == "application/json"
    bare = site(v1_repr_without_json_headers=False).send("GET", "/api/v1/system/is_alive", {})
    assert json.loads(bare.text)["success"] is True
    charset = {"Content-Type": "application/json; charset=utf-8"}
    jobs = {"site_name": "S"}
    assert "missing" in site().v1("pilot/acquire_jobs", jobs, **charset).text
    lenient = site(v1_exact_content_type=False)
    assert "No jobs" in lenient.v1("pilot/acquire_jobs", jobs, **charset).text


def test_quirk_v1_types(site: Open) -> None:
    """An int is no float unless types are lenient; a storage id ends in 500 unless repaired."""
    call = "event/update_single_event_range"
    values = {"event_range_id": "x", "event_range_status": "running"}
    strict = site().v1(call, {**values, "cpu_consumption_time": 5})
    assert "Type error" in strict.text
    lenient = site(v1_strict_types=False).v1(call, {**values, "cpu_consumption_time": 5})
    assert "Type error" not in lenient.text
    assert site().v1(call, {**values, "object_store_id": 5}).status == 500
    repaired = site(v1_single_storage_id_500=False)
    assert repaired.v1(call, {**values, "object_store_id": 5}).status == 200
    rss = {"job_id": 1, "job_status": "running", "max_rss": "5"}
    assert site().v1("pilot/update_job", rss).status == 500


@pytest.mark.parametrize("kills", [True, False])
def test_quirk_oserror_kills(site: Open, kills: bool) -> None:
    """Bad gzip and a short body end in 500, and most of the time the process with them."""
    here = site(oserror_kills=kills)
    bad = here.send(
        "POST", "/api/v1/pilot/acquire_jobs", {**JSON, "Content-Encoding": "gzip"}, b"x"
    )
    request = HttpRequest("POST", "/server/panda/isAlive", "", FORM, None)
    for reply in (bad, here.gate.answer(request)):
        assert (reply.status, reply.is_fatal) == (500, kills)


def test_quirk_legacy_json_always_gunzip(site: Open) -> None:
    """A legacy JSON body is gunzipped whatever its label says."""
    path, body = "/server/panda/getJob", json.dumps({"siteName": "S"}).encode()
    assert site().send("POST", path, JSON, body).is_fatal
    assert site().send("POST", path, JSON, gzip.compress(body)).status == 200
    assert site(legacy_json_always_gunzip=False).send("POST", path, JSON, body).status == 200


def test_quirk_roles(site: Open) -> None:
    """v1 wants the production role, legacy event calls refuse with a bare sentence."""
    jobs, events = "pilot/acquire_jobs", {"pandaID": 1, "jobsetID": 1}
    assert "role required" in site(caller_role="pilot").v1(jobs, {"site_name": "S"}).text
    lenient = site(caller_role="pilot", production_role_only=False)
    assert "No jobs" in lenient.v1(jobs, {"site_name": "S"}).text
    user = site(caller_role="user")
    assert user.old("getEventRanges", events).text == "production or pilot role is required"
    assert json.loads(user.old("getJob", {"siteName": "S"}).text)["StatusCode"] == 60
    other = site(caller_role="user", legacy_plain_sentences=False)
    assert json.loads(other.old("getEventRanges", events).text)["StatusCode"] == 60


def test_quirk_tokens(site: Open) -> None:
    """Tokens need an origin; bad tokens and banned callers hear so before anything else."""
    token = {"Authorization": "Bearer x"}
    with_origin = {**token, "Origin": "atlas:production"}
    assert "Token authentication failed" in site().old("isAlive", {}, **token).text
    assert site(need_origin=False).old("isAlive", {}, **token).status == 200
    assert site().old("isAlive", {}, **with_origin).status == 200
    assert site(reject_token=True).old("isAlive", {}, **with_origin).status == 403
    assert "is banned" in site(ban_user=True).v1("system/is_alive").text


def test_quirk_job_requests(site: Open) -> None:
    """A short time-out finds nothing, one job comes in a list, errors look like no jobs."""
    here = site(jobs_error_as_none={"acquire_jobs": 1})
    here.store.create_task(NewTask("t", 1), 1.0)
    assert "No jobs" in here.v1("pilot/acquire_jobs", {"site_name": "S", "timeout": 10}).text
    assert "No jobs" in here.v1("pilot/acquire_jobs", {"site_name": "S"}).text
    assert len(data_of(here.v1("pilot/acquire_jobs", {"site_name": "S"}))["jobs"]) == 1
    other = site(acquire_short_timeout_no_jobs=False, acquire_always_bulk=False)
    other.store.create_task(NewTask("t", 1), 1.0)
    flat = data_of(other.v1("pilot/acquire_jobs", {"site_name": "S", "timeout": 10}))
    assert flat["eventService"] == "True"
    for n_jobs, key in (({}, "PandaID"), ({"nJobs": 1}, "jobs")):
        other.store.create_task(NewTask("t", 1), 1.0)
        assert key in json.loads(other.old("getJob", {"siteName": "S", **n_jobs}).text)


@pytest.mark.parametrize("dialect", ["v1", "legacy"])
def test_quirk_failing_updates(site: Open, dialect: str) -> None:
    """Updates that fail behind a success, lose their metadata, or hear that the job is gone."""
    here = site(update_job_fails_quietly={"*": 1}, metadata_fails={"*": 1}, forget_job={"*": 1})
    panda_id = here.task()["PandaID"]

    def update(**more: str) -> dict[str, Any]:
        if dialect == "legacy":
            given = {"metaData": more["meta_data"]} if more else {}
            reply = here.old("updateJob", {"jobId": panda_id, "state": "running", **given})
            return json.loads(reply.text)
        values = {"job_id": panda_id, "job_status": "running", **more}
        return data_of(here.v1("pilot/update_job", values))

    lost = update(meta_data="{}")
    if dialect == "v1":
        assert lost["StatusCode"] == 30 and "ErrorDiag" in lost
    else:
        assert lost == {"StatusCode": 0}
    assert update()["StatusCode"] == 30
    assert update()["command"] == "tobekilled"
    assert here.store.range_statuses([(1, panda_id)])[str(panda_id)] == {}


def test_quirk_legacy_invalid_state_ok(site: Open) -> None:
    """A bad state and a job "NULL" are a success without a command, unless that is repaired."""
    for values in ({"jobId": "NULL", "state": "running"}, {"jobId": "5", "state": "nonsense"}):
        assert json.loads(site().old("updateJob", values).text) == {"StatusCode": 0}
        strict = site(legacy_invalid_state_ok=False).old("updateJob", values)
        assert json.loads(strict.text) == {"StatusCode": 30}


def test_quirk_bulk_job_update_aborts(site: Open) -> None:
    """An aborted bulk update of jobs has updated the earlier ones, and does not say so."""
    here = site(bulk_job_update_aborts={"updateJobsInBulk": 1, "update_jobs_bulk": 1})
    panda_id = here.task()["PandaID"]
    jobs = json.dumps([{"jobId": panda_id, "state": "running"}])
    assert json.loads(here.old("updateJobsInBulk", {"jobList": jobs}).text)[0] is False
    items = [{"job_id": panda_id, "job_status": "running"}]
    answer = json.loads(here.v1("pilot/update_jobs_bulk", {"job_list": items}).text)
    assert (answer["success"], answer["data"]) == (False, [])


def test_quirk_checks_of_updates(site: Open) -> None:
    """Another batch, another attempt, a bad report, a repeated final update."""
    on = site()
    off = site(batch_id_check=False, attempt_check=False, report_checks=False,
               final_alreadydone=False)  # fmt: skip
    told: dict[str, list[str]] = {"on": [], "off": []}
    for name, here in (("on", on), ("off", off)):
        panda_id = here.task()["PandaID"]
        base = {"job_id": panda_id, "job_status": "running"}
        for more in (
            {"batch_id": "a.1"},
            {"batch_id": "b.1"},
            {"attempt_nr": 9},
            {"job_status": "finished", "job_output_report": ""},
            {"job_status": "finished"},
        ):
            told[name].append(data_of(here.v1("pilot/update_job", {**base, **more}))["command"])
        told[name].append(here.store.job_statuses([panda_id])[0]["status"])
    assert told["on"] == ["NULL", "tobekilled", "tobekilled", "NULL", "alreadydone", "failed"]
    assert told["off"] == ["NULL"] * 5 + ["closed"]


def test_quirk_command(site: Open) -> None:
    """A stored command comes with every answer about the job; a killed job gets no ranges."""
    here = site(command="tobekilled")
    job = here.task(2)
    values = {"job_id": job["PandaID"], "job_status": "running"}
    assert data_of(here.v1("pilot/update_job", values))["command"] == "tobekilled"
    assert here.ranges(job) == []
    here.v1("local/set_command", {"job_id": job["PandaID"], "command": "softkill"})
    text = finished(here.ranges(job))
    told = json.loads(here.old("updateEventRanges", {"eventRanges": text, "version": 1}).text)
    assert told["Command"] == {str(job["PandaID"]): "softkill"}
    assert "no job" in here.v1("local/set_command", {"job_id": 1, "command": "x"}).text


def test_quirk_v1_rates_divided(site: Open) -> None:
    """v1 divides rates by 1024 before they are stored; the legacy dialect does not."""
    for switch, expected in ((True, 1.0), (False, 1024)):
        here = site(v1_rates_divided=switch)
        panda_id = here.task()["PandaID"]
        values = {"job_id": panda_id, "job_status": "running", "rate_rbytes": 1024}
        here.v1("pilot/update_job", values)
        assert here.store.pilot_fields(panda_id)["rate_rbytes"] == expected
        here.old("updateJob", {"jobId": panda_id, "state": "running", "rateRBYTES": 1024})
        assert here.store.pilot_fields(panda_id)["rate_rbytes"] == 1024


def test_quirk_v1_bulk_event_update_broken(site: Open) -> None:
    """The bulk update is booked, and its answer lost: with version 0 as a set, with 1 without."""
    for version, begin in ((0, "Type not serializable for {"), (1, "unhashable type: 'list'")):
        here = site()
        job = here.task(1)
        values = {"event_ranges": finished(here.ranges(job)), "version": version}
        reply = here.v1(UPDATES, values)
        assert reply.status == 500 and reply.text.startswith(begin)
        assert here.store.event_rows(job["taskID"])[0]["status"] == "finished"
    here = site(v1_bulk_event_update_broken=False)
    job = here.task(1)
    values = {"event_ranges": finished(here.ranges(job)), "version": 1}
    told = data_of(here.v1(UPDATES, values))
    assert told == {"Returns": [True], "Commands": {str(job["PandaID"]): None}}


def test_quirk_shapes_of_answers(site: Open) -> None:
    """Wrapped ranges, version 0 without strings, unreadable lists, forms where JSON was asked."""
    here = site(v1_ranges_wrapped=True, v0_strings=False, unparsable_quote_e=False,
                legacy_urlencoded=False)  # fmt: skip
    job = here.task(2)
    wanted = {"job_id": job["PandaID"], "jobset_id": job["jobsetID"], "n_ranges": 1}
    wrapped = data_of(here.v1("event/acquire_event_ranges", wanted))
    assert wrapped["StatusCode"] == 0 and len(wrapped["eventRanges"]) == 1
    text = finished([wrapped["eventRanges"][0]["eventRangeID"]])
    assert json.loads(here.old("updateEventRanges", {"eventRanges": text}).text)["Returns"] == [
        True
    ]
    unreadable = {"eventRanges": "no json"}
    assert json.loads(here.old("updateEventRanges", unreadable).text) == {"StatusCode": 30}
    assert json.loads(here.old("getStatus", {"ids": "5"}).text)["status"] == "notfound"
    told = json.loads(site().old("updateEventRanges", unreadable).text)
    assert (told["Returns"], told["Command"]) == ('"', "E")
    assert "StatusCode=0" in site().old("getStatus", {"ids": "5"}).text


@pytest.mark.parametrize(
    ("fault", "returns", "stored"),
    [
        ("rollback_midway", [True, False], 0),
        ("rollback_at_commit", [True, True, True, False], 0),
        ("count_refresh_fails", [True, True, True, False], 3),
    ],
)
def test_quirk_rollbacks(site: Open, fault: str, returns: list[bool], stored: int) -> None:
    """An exception leaves the entries so far and one false, whether anything was stored or not."""
    here = site(**{fault: {"update_event_ranges": 1}})
    job = here.task(3)
    values = {"eventRanges": finished(here.ranges(job)), "version": 1}
    assert json.loads(here.old("updateEventRanges", values).text)["Returns"] == returns
    assert here.store.task_status(job["taskID"])["finished"] == stored
    assert json.loads(here.old("updateEventRanges", values).text)["Returns"] == [True] * 3


def test_quirk_noops_caps_and_archives(site: Open) -> None:
    """A no-op is true, ranges beyond the cap are ignored, archives need their keys."""
    archive = {"lfn": "a.tar", "objstoreID": 5}
    on, off = (
        site(update_cap=2),
        site(true_for_noop=False, strict_zip_keys=False, orphan_tar_rows=False),
    )
    told: list[Any] = []
    for here in (on, off):
        job = here.task(3)
        ids = here.ranges(job)

        def report(text: str, here: Site = here) -> list[Any]:
            values = {"eventRanges": text, "version": 1}
            return list(json.loads(here.old("updateEventRanges", values).text)["Returns"])

        told.append(report(finished(ids[:1], lfn="a.tar")))
        told.append(report(finished(ids, **archive)))
        told.append(report(finished(ids[:1], **{**archive, "lfn": "other.tar"})))
        told.append(here.store.archives(job["PandaID"]))
    assert told == [
        [False],
        [True, True, None],
        [True],
        ["a.tar", "other.tar"],
        [True],
        [False, True, True],
        [False],
        ["a.tar"],
    ]


def test_quirk_empty_and_failing_ranges(site: Open) -> None:
    """No ranges although there are some, and a database error, in both dialects."""
    here = site(empty_ranges={"*": 1}, ranges_db_error={"getEventRanges": 1})
    job = here.task(2)
    wanted = {"pandaID": job["PandaID"], "jobsetID": job["jobsetID"]}
    told = [json.loads(here.old("getEventRanges", wanted).text) for _ in range(3)]
    assert told[0] == {"StatusCode": 30}
    assert told[1] == {"StatusCode": 0, "eventRanges": []}
    assert len(told[2]["eventRanges"]) == 2
    other = site(ranges_db_error={"*": 1})
    job = other.task(2)
    values = {"job_id": job["PandaID"], "jobset_id": job["jobsetID"]}
    assert "database error" in other.v1("event/acquire_event_ranges", values).text


def test_quirk_number_of_ranges(site: Open) -> None:
    """Missing numbers ask for ten ranges, unreadable ones for eight."""
    here = site()
    job = here.task(100)
    wanted = {"pandaID": job["PandaID"], "jobsetID": job["jobsetID"]}
    for n, expected in (({}, 10), ({"nRanges": "x"}, 8), ({"nRanges": "3"}, 3)):
        told = json.loads(here.old("getEventRanges", {**wanted, **n}).text)
        assert len(told["eventRanges"]) == expected


def test_quirk_status_call_and_finals(site: Open) -> None:
    """The documented key fails; reports after the final update are refused."""
    pair = json.dumps([{"task_id": 1, "job_id": 5}])
    name = "event/get_event_range_statuses"
    assert "database error" in site().v1(name, {"job_task_ids": pair}).text
    lenient = site(statuses_need_panda_id=False).v1(name, {"job_task_ids": pair})
    assert data_of(lenient) == {"5": {}}
    for refuses in (True, False):
        here = site(refuse_after_final=refuses)
        job = here.task(1)
        text = finished(here.ranges(job))
        here.store.update_job({"job_id": job["PandaID"], "job_status": "holding"}, 1000.0)
        told = json.loads(here.old("updateEventRanges", {"eventRanges": text, "version": 1}).text)
        assert told["Returns"] == [not refuses]


def test_quirk_close_waiting_consumers(site: Open) -> None:
    """A drained pool closes the jobs that still wait for it."""
    for closes, expected in ((True, "closed"), (False, "activated")):
        here = site(close_waiting_consumers=closes)
        job = here.task(2, consumers=2)
        here.ranges(job)
        assert here.store.job_statuses([job["PandaID"] + 1])[0]["status"] == expected


@pytest.mark.parametrize("fault", ["http_500", "exception_as_timeout"])
def test_quirk_exceptions(site: Open, fault: str) -> None:
    """An exception is a 500 with its text, or told as a time-out."""
    here = site(**{fault: {"acquire_jobs": 1}})
    first = here.old("getJob", {"siteName": "S"})
    if fault == "http_500":
        assert first.status == 500
    else:
        assert json.loads(first.text)["StatusCode"] == 10
    assert json.loads(here.old("getJob", {"siteName": "S"}).text)["StatusCode"] == 20


def test_quirk_late_and_lost_answers(site: Open) -> None:
    """An answer comes late, or never, and the call is booked all the same."""
    here = site(answer_delay={"updateJob": 1}, answer_delay_s=2.0, drop_answer={"update_job": 1})
    panda_id = here.task()["PandaID"]
    reply = here.old("updateJob", {"jobId": panda_id, "state": "transferring"})
    assert (reply.delay_s, reply.is_dropped) == (2.0, True)
    assert here.store.job_statuses([panda_id])[0]["status"] == "transferring"
    again = here.old("updateJob", {"jobId": panda_id, "state": "transferring"})
    assert (again.delay_s, again.is_dropped) == (0.0, False)
    assert site(answer_delay_s=1.0).old("isAlive").delay_s == 1.0


def test_quirks_as_text() -> None:
    """Names, switches, values and calls are read from a command line."""
    quirks = read_quirks(
        ["dialects=v1", "guid-shift=off", "v1_ranges_wrapped", "update_cap=5", "answer_delay_s=.5",
         "drop_answer=getJob:2", "http_500", "drop_answer=3", "http_500=update_job"]
    )  # fmt: skip
    assert (quirks.dialects, quirks.guid_shift, quirks.v1_ranges_wrapped) == ("v1", False, True)
    assert (quirks.update_cap, quirks.answer_delay_s) == (5, 0.5)
    assert quirks.drop_answer == {"getJob": 2, "*": 3}
    assert quirks.http_500 == {"*": 1, "update_job": 1}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("drop_answr", "did you mean drop_answer"),
        ("dialects=v3", "one of legacy"),
        ("guid_shift=maybe", "on or off"),
        ("update_cap=x", "not a number"),
        ("update_cap=-5", "usable"),
        ("drop_answer=getJob:x", "FUNCTION"),
    ],
)
def test_bad_quirks_are_named(text: str, hint: str) -> None:
    """A quirk that cannot be used is one clear line."""
    with pytest.raises(UsageError, match=hint):
        read_quirks([text])


def test_every_quirk_is_described() -> None:
    """The help of the command names every switch with its sentence."""
    text = describe_quirks()
    for entry in fields(Quirks):
        assert entry.name in text and str(entry.metadata["doc"]) in text
    assert {"drop_answer", "rollback_midway"} <= set(FAULTS)
