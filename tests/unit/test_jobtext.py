"""Job definitions as text."""

from __future__ import annotations

import json

import pytest

from espilot.errors import MessageError
from espilot.wire.jobtext import events_of, read_definition, task_name_of

JOB = {"PandaID": 5, "transformation": "x", "inFiles": "a,b"}


@pytest.mark.parametrize(
    "document",
    [JOB, [JOB], {"StatusCode": 0, "jobs": [JOB]}, {"data": {"jobs": [JOB]}}, {"5": JOB}],
    ids=["alone", "list", "answer", "v1", "by id"],
)
def test_json(document: object) -> None:
    """The definition is found inside whatever was written around it."""
    assert read_definition(json.dumps(document)) == JOB


def test_form() -> None:
    """A form has strings, empty ones included."""
    found = read_definition("PandaID=5&transformation=x%20y&jobPars=&StatusCode=0\n")
    assert found == {"PandaID": "5", "transformation": "x y", "jobPars": "", "StatusCode": "0"}


@pytest.mark.parametrize("text", ["", "5", "[]", '"x"', "{", "a=b", "&" * 5000, '{"jobs": []}'])
def test_no_definition(text: str) -> None:
    """Anything else is refused in one line."""
    with pytest.raises(MessageError) as caught:
        read_definition(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "events"),
    [
        ("--maxEvents=1000 --x", 1000), ("--maxEvents 7", 7), ("--maxEvents=-1", 0), ("", 0),
        (None, 0),
    ],
)  # fmt: skip
def test_events(parameters: str | None, events: int) -> None:
    """The number of events stands in the parameters, if anywhere."""
    assert events_of({"jobPars": parameters}) == events


def test_task_name() -> None:
    """Any job name becomes a plain one."""
    assert task_name_of({"jobName": "../mc 16/e1"}) == "mc_16_e1"
    assert task_name_of({}) == "job"
