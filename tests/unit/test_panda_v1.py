"""The v1 dialect: what is sent, and what is made of every shape of answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from espilot.errors import MessageError, ServerRefused, ServerUnavailable
from espilot.model import ArchiveFacts, Job, JobUpdate, RangeReport, ReportBatch
from espilot.wire import panda_v1, panda_v1_answers
from espilot.wire.panda_reports import cut_text, read_range_id, read_updates, write_updates

JOB = Job(4711, 4710, 7, 1, 4, ("out",), "log")
RANGE = {
    "eventRangeID": "7-4711-3-1-10",
    "startEvent": 1,
    "lastEvent": 5,
    "LFN": "in.root",
    "GUID": "G",
    "scope": "s",
}


def envelope(data: Any, success: bool | None = True, message: str = "") -> bytes:
    return json.dumps({"success": success, "message": message, "data": data}).encode()


WANTED: dict[str, str | int] = {
    "resource_type": "MCORE", "job_type": "managed", "scheduler_id": "s", "harvester_id": "h",
    "worker_id": 7,
}  # fmt: skip
KNOWN_AS: dict[str, str | int] = {"scheduler_id": "s", "pilot_id": "p" * 300, "batch_id": "b"}


def test_names_that_are_known_are_told() -> None:
    """Names of the pilot and wishes for jobs go into requests; what is unknown is left out."""
    bare = panda_v1.acquire_jobs_parameters(panda_v1.Pilot("S", "n", wanted={"worker_id": 0}))
    assert "worker_id" not in bare
    asked = panda_v1.acquire_jobs_parameters(panda_v1.Pilot("S", "n", label="user", wanted=WANTED))
    assert {**asked, **WANTED} == asked and asked["prod_source_label"] == "user"
    pilot = panda_v1.Pilot("S", "n", known_as=KNOWN_AS)
    told = panda_v1.update_job_parameters(JOB, JobUpdate("running"), pilot)
    assert told["scheduler_id"] == "s" and told["pilot_id"] == "p" * 200


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        (panda_v1.ACQUIRE_JOBS, panda_v1.acquire_jobs_parameters(panda_v1.Pilot("S", "n", 5))),
        (
            panda_v1.ACQUIRE_JOBS,
            panda_v1.acquire_jobs_parameters(panda_v1.Pilot("S", "n", wanted=WANTED)),
        ),
        (panda_v1.ACQUIRE_RANGES, panda_v1.acquire_ranges_parameters(JOB, 3)),
        (panda_v1.RANGE_STATUSES, panda_v1.range_statuses_parameters(JOB)),
        *(
            (
                panda_v1.UPDATE_JOB,
                panda_v1.update_job_parameters(
                    JOB,
                    JobUpdate(
                        state,
                        events=5,
                        pilot_error_code=1228,
                        pilot_error_diag="d" * 900,
                        sub_status="s" * 99,
                        core_count=8,
                        cpu_s=10,
                        metrics="m" * 900,
                    ),
                    panda_v1.Pilot("S", "n" * 200, known_as=KNOWN_AS),
                ),
            )
            for state in ("running", "finished", "failed")
        ),
    ],
)
def test_requests_fit_the_table(call: panda_v1.Call, parameters: dict[str, Any]) -> None:
    """Every parameter sent is known to the call and has its strict type; none is missing."""
    for name, value in parameters.items():
        assert panda_v1.fits(call.parameters[name].kind, value), name
    needed = {name for name, entry in call.parameters.items() if entry.required}
    assert needed <= set(parameters)
    if "job_status" in parameters:
        assert len(parameters["pilot_error_diag"]) == 500
        final = parameters["job_status"] != "running"
        assert parameters.get("job_output_report") == ("{}" if final else None)
    if call is panda_v1.ACQUIRE_JOBS:
        assert parameters["timeout"] > 10


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (panda_v1.Kind.INT, [1, -1], ["1", 3.5, True, 2**63, None]),
        (panda_v1.Kind.FLOAT, [5.0], [5, "5.0", True]),
        (panda_v1.Kind.STR, ["1"], [1, True, None]),
        (panda_v1.Kind.BOOL, [True], [1, "True"]),
        (panda_v1.Kind.NUMBER, [1, 1.5], ["1", True]),
        (panda_v1.Kind.INT_LIST, [[1, 2]], [1, ["1"]]),
    ],
)
def test_types_are_strict(kind: panda_v1.Kind, good: list[Any], bad: list[Any]) -> None:
    """Each declared type takes its own JSON type only."""
    assert all(panda_v1.fits(kind, value) for value in good)
    assert not any(panda_v1.fits(kind, value) for value in bad)


READERS = {
    "job": panda_v1_answers.read_acquired_job,
    "ranges": panda_v1_answers.read_ranges,
    "report": lambda status, body: panda_v1_answers.read_report(status, body, 1),
    "statuses": lambda status, body: panda_v1_answers.read_statuses(status, body, 4711),
    "command": panda_v1_answers.read_command,
    "task": panda_v1_answers.read_task_status,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, b"boom", ServerUnavailable),
        (502, b"<html>bad gateway</html>", ServerUnavailable),
        (200, b"", ServerUnavailable),
        (200, b"\xff\xfe", ServerUnavailable),
        (200, b"[" * 100_000, ServerUnavailable),
        (200, b"null", ServerUnavailable),
        (200, b'{"data": 1}', ServerUnavailable),
        (200, envelope({"StatusCode": 10}), ServerUnavailable),
        (200, envelope({"StatusCode": "30"}), ServerUnavailable),
        (200, envelope(None, False, "TimeOut"), ServerUnavailable),
        (200, envelope(None, False, "database error in the PanDA server"), ServerUnavailable),
        (200, envelope(None, None), ServerUnavailable),
        (302, b"", ServerUnavailable),
        (403, b"ERROR : method x is forbidden", ServerRefused),
        (404, b"not found", ServerRefused),
        (200, envelope(None, False, "Argument error: missing"), ServerRefused),
        (200, envelope(None, False, "Type error: 'n'"), ServerRefused),
        (200, envelope(None, False, "production or pilot role required"), ServerRefused),
        (200, envelope(None, False, "expecting POST, received GET"), ServerRefused),
        (200, b"production or pilot role is required", ServerRefused),
    ],
)
def test_doubt_is_unavailable_and_no_is_refused(
    reader: str, status: int, body: bytes, error: type[Exception]
) -> None:
    """Every reader turns doubt and refusal into the right error, one short line, never a crash."""
    with pytest.raises(error) as caught:
        READERS[reader](status, body)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "data",
    [
        [RANGE],
        {"StatusCode": 0, "eventRanges": [RANGE]},
        {"StatusCode": "0", "eventRanges": json.dumps([RANGE])},
        json.dumps([RANGE]),
    ],
)
def test_ranges_in_any_shape(data: Any) -> None:
    """A bare list, wrapped, and doubly encoded ranges are the same."""
    (found,) = panda_v1_answers.read_ranges(200, envelope(data))
    assert (found.id, found.events, found.lfn) == ("7-4711-3-1-10", 5, "in.root")


def test_a_lost_file_record_is_empty() -> None:
    """Null names are taken as empty."""
    body = envelope([{**RANGE, "LFN": None, "GUID": None, "scope": None}])
    assert panda_v1_answers.read_ranges(200, body)[0].lfn == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eventRangeID", "../../x"),
        ("eventRangeID", "1-2-3-4"),
        ("eventRangeID", None),
        ("startEvent", "x"),
        ("startEvent", 9),
        ("lastEvent", True),
        ("LFN", "../x"),
        ("LFN", 5),
        ("GUID", "G" * 2000),
    ],
)
def test_a_hostile_range_is_doubt(name: str, value: Any) -> None:
    """One bad field makes the whole answer unusable."""
    with pytest.raises(ServerUnavailable):
        panda_v1_answers.read_ranges(200, envelope([{**RANGE, name: value}]))


def test_no_jobs_is_none() -> None:
    """The sentence, an empty list, and StatusCode 20 mean no job."""
    read = panda_v1_answers.read_acquired_job
    assert read(200, envelope(None, False, "No jobs in PanDA")) is None
    assert read(200, envelope({"StatusCode": 0, "jobs": []})) is None
    assert read(200, envelope({"StatusCode": 20})) is None


SET_BODY = "Type not serializable for {%s} (<class 'set'>)"


@pytest.mark.parametrize(
    ("status", "body", "accepted", "commands"),
    [
        (200, envelope({"Returns": [True, None], "Commands": {"4711": None}}), (True, None), {}),
        (
            200,
            envelope({"Returns": "[true, false]", "Command": '{"4711": "tobekilled"}'}),
            (True, False),
            {4711: "tobekilled"},
        ),
        (200, envelope(json.dumps({"Returns": [True, True]})), (True, True), {}),
        (200, envelope({"Returns": [True]}), None, {}),
        (200, envelope({"Returns": [True, True, False]}), None, {}),
        (200, envelope({"Returns": [1, 1]}), None, {}),
        (200, envelope({"Returns": "E", "Commands": 5}), None, {}),
        (200, envelope(None), None, {}),
        (500, b"unhashable type: 'list'", None, {}),
        (
            500,
            (
                SET_BODY % """'Commands', '[true, null]', '{"4711": "softkill"}', 'Returns'"""
            ).encode(),
            (True, None),
            {4711: "softkill"},
        ),
        (500, (SET_BODY % "'Returns', 'Commands', '{}', '[true]'").encode(), None, {}),
        (500, (SET_BODY % "__import__('os')").encode(), None, {}),
        (
            200,
            b"{'success': True, 'message': '', 'data': {'Commands', '[true, true]',"
            b" '{}', 'Returns'}}",
            (True, True),
            {},
        ),
    ],
)
def test_report_answers_in_any_shape(
    status: int, body: bytes, accepted: tuple[bool | None, ...] | None, commands: dict[int, str]
) -> None:
    """A usable answer is used, whatever its shape; any doubt about it says nothing."""
    answer = panda_v1_answers.read_report(status, body, 2)
    assert answer.accepted == accepted
    assert dict(answer.commands) == commands


def test_an_unreadable_list_is_refused() -> None:
    """The two strings that mean "not JSON" forbid sending the same again."""
    body = (SET_BODY % """'"', 'E', 'Returns', 'Commands'""").encode()
    with pytest.raises(ServerRefused):
        panda_v1_answers.read_report(500, body, 1)


@pytest.mark.parametrize(
    ("data", "command"),
    [
        ({"StatusCode": 0, "command": "NULL"}, ""),
        ({"StatusCode": 0, "command": None}, ""),
        ({"StatusCode": "0"}, ""),
        ({"StatusCode": 0, "command": "alreadydone"}, "alreadydone"),
        ({"StatusCode": 30, "ErrorDiag": "metadata"}, None),
        ('{"StatusCode": 0, "command": "tobekilled"}', "tobekilled"),
    ],
)
def test_commands(data: Any, command: str | None) -> None:
    """Commands come as they are; "NULL", null and nothing are none."""
    assert panda_v1_answers.read_command(200, envelope(data)) == command


def test_a_bad_job_state_is_refused() -> None:
    """StatusCode 50 is a definite no."""
    with pytest.raises(ServerRefused):
        panda_v1_answers.read_command(200, envelope({"StatusCode": 50}, False, "invalid"))


def test_statuses_have_no_attempt() -> None:
    """Statuses are keyed by four parts, and the latest attempt of a range counts."""
    rows = {
        "7-4711-3-1-9": {"status": "failed", "error": 1, "dialog": None},
        "7-4711-3-1-8": {"status": "sent"},
        "7-4711-3-2-1": {"status": "finished"},
    }
    found = panda_v1_answers.read_statuses(200, envelope({"4711": rows}), 4711)
    assert found == {"7-4711-3-1": "sent", "7-4711-3-2": "finished"}
    with pytest.raises(ServerUnavailable):
        panda_v1_answers.read_statuses(200, envelope({"4712": rows}), 4711)


def test_updates_round_trip_in_flattened_order() -> None:
    """Archives are chunks, failures plain items; the order of ranges is that of the batches."""
    batches = [
        ReportBatch((RangeReport("1-1-1-1-1", "failed", 7, "é" * 600),)),
        ReportBatch(
            (RangeReport("1-1-1-2-1", "finished"), RangeReport("1-1-1-3-1", "finished")),
            ArchiveFacts("a.tar", 10, "00000001", 5, 2),
        ),
        ReportBatch((RangeReport("1-1-1-4-1", "fatal"),)),
    ]
    text = write_updates(batches)
    updates = read_updates(text, 1)
    assert [update.id for update in updates] == [f"1-1-1-{n}-1" for n in (1, 2, 3, 4)]
    assert len(updates[0].diag.encode()) == 500
    assert updates[1].archive == {
        "lfn": "a.tar",
        "objstoreID": 5,
        "fsize": 10,
        "adler32": "00000001",
        "numEvents": 2,
        "pathConvention": 1000,
    }
    assert [update.archive is None for update in updates] == [True, False, False, True]
    assert len(read_updates(text, 0)) == 3, "version 0 knows no chunks"


@pytest.mark.parametrize("text", ["", "{}", "[", "[" * 100_000, '"x"'])
def test_what_is_no_list_is_refused(text: str) -> None:
    """A text that is no JSON list is one clear error."""
    with pytest.raises(MessageError):
        read_updates(text, 1)


def test_items_that_are_no_objects_are_kept() -> None:
    """A bad item keeps its place, so that answers stay aligned."""
    assert [update.id for update in read_updates('[5, {"eventRangeID": "x"}]', 1)] == [None, "x"]


@pytest.mark.parametrize("text", ["1-2-3-4", "1-2-3-4-5-6", "1-2-3-4-x", "1-2-3-4-５", 5, "9" * 99])
def test_bad_range_ids(text: Any) -> None:
    """Only five plain numbers are a range id."""
    with pytest.raises(MessageError):
        read_range_id(text)


def test_cut_text_never_splits_a_character() -> None:
    """The cut counts bytes and keeps valid text, even of half a surrogate pair."""
    assert cut_text("aé", 2) == "a"
    assert cut_text("\ud800", 5) == "?"
