"""The rhythm of a job's updates: its kind, its definition and the server's orders decide."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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
