"""The rhythm of a job's updates: its kind, its definition and the server's orders decide."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from espilot.core.job import Tally
from espilot.model import Job, JobRecord, JobUpdate
from espilot.workers.heartbeat import DEBUG_PERIOD_S, Heartbeat


def heartbeat(here: Path) -> Heartbeat:
    log = SimpleNamespace(info=lambda *_, **__: None, warning=lambda *_, **__: None)
    child: Any = SimpleNamespace(
        context=SimpleNamespace(workdir=here, state=here / "state", runtime=here / "run"),
        settings=SimpleNamespace(server=SimpleNamespace(heartbeat_s=600.0)),
        on=lambda *_: None,
        log=log,
    )
    calls: Any = None
    return Heartbeat(child, calls, announce=lambda _: None, beat_soon=lambda: None)


def test_a_job_report_is_of_this_job(tmp_path: Path) -> None:
    """The metadata of a job are those of its own payload's last start, never a former job's."""
    heart = heartbeat(tmp_path)
    record: Any = JobRecord(Job(1, 1, 1, 1, 1, ("o",), "log"), "ending", {"epoch": 2})

    def metadata() -> Any:
        tally = Tally(0, 0, 0, 0, 0)
        return heart.complete(record, JobUpdate("finished"), tally).more.get("meta_data")

    for number in (2, 3, 4):
        (tmp_path / f"payload-{number}").mkdir()
    (tmp_path / "payload-2" / "jobReport.json").write_text('{"job": "former"}')
    assert metadata() is None
    (tmp_path / "payload-3" / "jobReport.json").write_text('{"job": "mine"}')
    assert json.loads(metadata()) == {"job": "mine"}


@pytest.mark.parametrize(
    ("definition", "command", "expected_s"),
    [
        ({}, "", 600.0),
        ({"debug": "True"}, "", DEBUG_PERIOD_S),
        ({"debug": True}, "NULL", DEBUG_PERIOD_S),
        ({"debug": "False"}, "", 600.0),
        ({}, "debug", DEBUG_PERIOD_S),
        ({"debug": "True"}, "debugoff", 600.0),
    ],
)
def test_debug_mode(
    tmp_path: Path, definition: dict[str, Any], command: str, expected_s: float
) -> None:
    """A job may be born in debug mode; the server's order comes before its definition."""
    heart = heartbeat(tmp_path)
    heart.obey(command)
    job: Any = SimpleNamespace(definition=definition, event_service=True)
    assert heart.period_s(job) == expected_s
