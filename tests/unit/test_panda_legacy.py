"""The legacy dialect: what is sent, and what is made of every shape of answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from espilot.errors import ServerRefused, ServerUnavailable
from espilot.model import Job, JobUpdate, RangeReport, ReportBatch
from espilot.wire import panda_legacy, panda_v1
from espilot.wire.panda_answers import is_forbidden
from espilot.wire.panda_dialects import DIALECTS, Exchange

JOB = Job(4711, 4710, 7, 1, 4, ("out",), "log")
PILOT = panda_v1.Pilot("S", "node", 5)
REPORT = [ReportBatch((RangeReport("7-4711-3-1-10", "finished"),))]
RANGE = {
    "eventRangeID": "7-4711-3-1-10",
    "startEvent": 1,
    "lastEvent": 5,
    "LFN": "in.root",
    "GUID": "G",
    "scope": "s",
}


def calls(name: str) -> dict[str, Exchange[Any]]:
    """One exchange of each kind in a dialect."""
    dialect = DIALECTS[name]
    return {
        "job": dialect.acquire_job(PILOT),
        "ranges": dialect.acquire_ranges(JOB, 3),
        "report": dialect.report(JOB, REPORT),
        "statuses": dialect.range_statuses(JOB, None),
        "command": dialect.update_job(JOB, JobUpdate("running", 5), PILOT),
    }


@pytest.mark.parametrize("kind", calls("legacy"))
def test_requests_fit_the_table(kind: str) -> None:
    """A call is a form with an exact type, a length, and names that the method knows."""
    request = calls("legacy")[kind].request
    method = panda_legacy.METHODS[request.function]
    assert request.path == f"/server/panda/{method.name}" and request.method == "POST"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    sent = parse_qs((request.body or b"").decode(), keep_blank_values=True)
    assert set(method.required) <= set(sent) <= set(method.names)


def test_both_dialects_say_the_same() -> None:
    """Under their v1 names, the parameters of both dialects are the same but for `n_jobs`."""
    for kind, legacy in calls("legacy").items():
        method = panda_legacy.METHODS[legacy.request.function]
        sent = parse_qs((legacy.request.body or b"").decode(), keep_blank_values=True)
        other = calls("v1")[kind].request
        theirs = dict(other.query) or json.loads(other.body or b"{}")
        theirs.pop("n_jobs", None)
        assert {method.names[old]: values[-1] for old, values in sent.items()} == {
            name: str(value) for name, value in theirs.items()
        }


def test_every_function_has_its_v1_names() -> None:
    """What a legacy parameter is translated to is a parameter of the v1 function."""
    for method in panda_legacy.METHODS.values():
        call = panda_v1.CALLS.get(method.function)
        if call is not None and method.name != "updateJobsInBulk" and method.name != "getStatus":
            # The queue of a worker is told to legacy servers only.
            only_here = {"site_name"} if method is panda_legacy.UPDATE_WORKER else set()
            translated = {name for name in method.names.values() if name} - only_here
            assert translated <= set(call.parameters)


@pytest.mark.parametrize("kind", calls("legacy"))
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, b"boom", ServerUnavailable),
        (502, b"<html>bad gateway</html>", ServerUnavailable),
        (200, b"", ServerUnavailable),
        (200, b"\xff\xfe", ServerUnavailable),
        (200, b"[" * 100_000, ServerUnavailable),
        (200, b'{"data": 1}', ServerUnavailable),
        (200, b"<html>login</html>", ServerUnavailable),
        (200, b'{"StatusCode": 10}', ServerUnavailable),
        (200, b'{"StatusCode": "30"}', ServerUnavailable),
        (200, b"StatusCode=10", ServerUnavailable),
        (302, b"", ServerUnavailable),
        (403, b"ERROR : Token authentication failed. x", ServerRefused),
        (200, b"production or pilot role is required", ServerRefused),
        (200, b"failed to retrieve DN", ServerRefused),
    ],
)
def test_doubt_is_unavailable_and_no_is_refused(
    kind: str, status: int, body: bytes, error: type[Exception]
) -> None:
    """Every reader turns doubt and refusal into the right error, one short line, never a crash."""
    with pytest.raises(error) as caught:
        calls("legacy")[kind].read(status, body)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("kind", ["job", "ranges", "report", "command"])
@pytest.mark.parametrize("code", [60, "60", 50, 70])
def test_rights_are_a_refusal(kind: str, code: Any) -> None:
    """A missing role is a definite no, as a number or as a string."""
    body = json.dumps({"StatusCode": code, "errorDialog": "no role"}).encode()
    with pytest.raises(ServerRefused):
        calls("legacy")[kind].read(200, body)


@pytest.mark.parametrize("body", [b'{"StatusCode": 20}', b"StatusCode=20&errorDialog="])
def test_no_jobs_is_none(body: bytes) -> None:
    """StatusCode 20 means no job, in both forms."""
    assert panda_legacy.read_acquired_job(200, body) is None


DEFINITION = {"StatusCode": 0, "PandaID": 1, "jobsetID": 2, "taskID": 3, "eventService": "True"}


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(DEFINITION),
        json.dumps({"StatusCode": 0, "jobs": [DEFINITION]}),
        urlencode({"StatusCode": 0, "jobs": json.dumps([DEFINITION])}),
        urlencode(DEFINITION),
    ],
)
def test_jobs_in_any_shape(answer: str) -> None:
    """A flat definition, a list, and a form with a list in it are the same job."""
    job = panda_legacy.read_acquired_job(200, answer.encode())
    assert job is not None
    assert (job.panda_id, job.jobset_id, job.task_id, job.event_service) == (1, 2, 3, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"StatusCode": 0, "eventRanges": [RANGE]},
        {"StatusCode": "0", "eventRanges": json.dumps([RANGE])},
    ],
)
@pytest.mark.parametrize("form", [json.dumps, urlencode])
def test_ranges_in_any_shape(fields: Mapping[str, Any], form: Any) -> None:
    """Ranges as JSON, and as a string in a form."""
    if form is urlencode and not isinstance(fields["eventRanges"], str):
        fields = {**fields, "eventRanges": json.dumps(fields["eventRanges"])}
    (found,) = panda_legacy.read_ranges(200, form(fields).encode())
    assert found.id == RANGE["eventRangeID"]


@pytest.mark.parametrize(
    ("body", "accepted", "commands"),
    [
        ('{"StatusCode":0,"Returns":[true,null],"Command":{"4711":null}}', (True, None), {}),
        (
            '{"StatusCode":0,"Returns":"[true, false]","Command":"{\\"4711\\": \\"softkill\\"}"}',
            (True, False),
            {4711: "softkill"},
        ),
        (urlencode({"StatusCode": 0, "Returns": "[true, true]", "Command": "{}"}), (True,) * 2, {}),
        (
            urlencode(
                {"StatusCode": 0, "Returns": "[True, None]", "Command": "{4711: 'tobekilled'}"}
            ),
            (True, None),
            {4711: "tobekilled"},
        ),
        ('{"StatusCode":0,"Returns":[true,true,false]}', None, {}),
        ('{"StatusCode":0}', None, {}),
    ],
)
def test_report_answers_in_any_shape(
    body: str, accepted: tuple[bool | None, ...] | None, commands: dict[int, str]
) -> None:
    """JSON, JSON in strings, and Python literals in forms are read; a wrong length is doubt."""
    answer = panda_legacy.read_report(200, body.encode(), 2)
    assert (answer.accepted, dict(answer.commands)) == (accepted, commands)


@pytest.mark.parametrize("form", [json.dumps, urlencode])
def test_an_unreadable_list_is_refused(form: Any) -> None:
    """A quote and an E mean "not JSON": the same is never sent again."""
    body = form({"StatusCode": "0", "Returns": '"', "Command": "E"}).encode()
    with pytest.raises(ServerRefused, match="could not read"):
        panda_legacy.read_report(200, body, 1)


@pytest.mark.parametrize(
    ("body", "command"),
    [
        (b'{"StatusCode":0,"command":"NULL"}', ""),
        (b'{"StatusCode":0}', None),
        (b"StatusCode=0&command=debug%2Ctobekilled", "debug,tobekilled"),
        (b"StatusCode=0&command=", ""),
    ],
)
def test_commands(body: bytes, command: str | None) -> None:
    """Commands come as they are; a blank one is none, a missing one means not taken."""
    assert panda_legacy.read_command(200, body) == command


@pytest.mark.parametrize(
    ("status", "body", "forbidden"),
    [
        (403, b"ERROR : method getJob is forbidden", True),
        (403, b"ERROR : method  is forbidden", False),
        (403, b"ERROR : method updateJob is forbidden", False),
        (403, b"ERROR : Token authentication failed. x", False),
        (403, b"ERROR : somebody is banned", False),
        (200, b"ERROR : method getJob is forbidden", False),
    ],
)
def test_only_the_named_method_is_a_sign(status: int, body: bytes, forbidden: bool) -> None:
    """A 403 that names the method means another dialect; every other 403 does not."""
    assert is_forbidden(status, body, "getJob") is forbidden


@pytest.mark.parametrize(
    ("name", "status", "body", "alive"),
    [
        ("legacy", 200, b"alive=yes", True),
        ("legacy", 403, b"ERROR : method isAlive is forbidden", False),
        ("legacy", 200, b"<html>", False),
        ("v1", 200, b'{"success": true, "message": "", "data": null}', True),
        ("v1", 200, b'{"success": null}', False),
        ("v1", 403, b"ERROR", False),
        ("v1", 200, b"[" * 100_000, False),
    ],
)
def test_probes(name: str, status: int, body: bytes, alive: bool) -> None:
    """Only the right answer to a probe means that the dialect is there."""
    assert DIALECTS[name].probe().read(status, body) is alive
