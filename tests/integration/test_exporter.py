"""Metrics: the text file and the address on loopback, and what is in them."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patience import eventually
from prometheus_client.parser import text_string_to_metric_families

from espilot.config import MetricsConfig
from espilot.errors import LocalError
from espilot.logs import open_log
from espilot.model import AtRisk
from espilot.supervisor.exporter import Exporter
from espilot.view.look import Look
from espilot.view.snapshot import NO_COUNTS

FACTS: dict[str, Any] = {
    "started_at": 1000.0,
    "run": {
        "panda_id": 4711,
        "phase": "running",
        "life": "running",
        "drain": {"deadline_in_s": 60.0, "deadline_source": "wall-time"},
    },
    "roles": {
        "dispatcher": {"last_message_mono": 5.0},
        "event-server": {"calls_ranges_ok": 3, "calls_ranges_failed": 1, "last_success_at": 99.0},
        "stageout": {"uploads": {"storage": {"bytes": 10, "failures": {}}}, "trouble": 1},
    },
    "resources": {"cpu_s": 1.5, "max_rss_bytes": 7},
    "payload_ends": {"badly": 2},
    "verdict_counts": {"hang": 1},
}
COUNTS = replace(NO_COUNTS, ready=5, sent=2, done=1, packed=3, finished=7, events=70)
LOOK = Look(COUNTS, FACTS, {"dispatcher": 1.0}, False, lambda: AtRisk(6, 60.0, 12.5))


@contextmanager
def exporter(tmp_path: Path, **settings: Any) -> Iterator[Exporter]:
    log = open_log("test", tmp_path / "log")
    with closing(
        Exporter(MetricsConfig(**settings), "two", lambda: {"free_bytes": 4000}, log)
    ) as each:
        yield each


def values(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Each sample by its name and label values, in the order of their labels."""
    return {
        (
            sample.name,
            tuple(sample.labels[k] for k in sorted(sample.labels) if k != "slot"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_text_file(tmp_path: Path) -> None:
    """The file has the instance's name, is readable by others, whole, and says what was seen."""
    with exporter(tmp_path, textfile=str(tmp_path / "espilot_{instance}.prom"), every_s=1.0) as e:
        e.look(LOOK)
        path = tmp_path / "espilot_two.prom"
        eventually(path.exists, "the text file")
    found = values(path.read_text())
    assert path.stat().st_mode & 0o444 == 0o444
    assert found["espilot_event_ranges", ("sent",)] == 2
    assert found["espilot_event_ranges_total", ("finished",)] == 7
    assert found["espilot_events_processed_total", ()] == 70
    assert found["espilot_stageout_lag_seconds", ()] == 12.5
    assert found["espilot_at_risk_ranges", ()] == 6
    assert found["espilot_stageout_backlog_ranges", ()] == 4
    assert found["espilot_state", ("running",)] == 1
    assert found["espilot_server_requests_total", ("ranges", "failed")] == 1
    assert found["espilot_stageout_bytes_total", ("ok", "storage")] == 10
    assert found["espilot_payload_ends_total", ("badly",)] == 2
    assert ("espilot_deadline_timestamp_seconds", ("wall-time",)) in found
    assert not [name for name in tmp_path.iterdir() if name.name.startswith(".")]


def test_figures_of_the_node_come_with_the_next_look(tmp_path: Path) -> None:
    """They are measured in a thread, while the file is written."""
    path = tmp_path / "x.prom"
    with exporter(tmp_path, textfile=str(path), every_s=0.01) as e:
        eventually(
            lambda: (
                e.look(LOOK)
                or (path.exists() and 'workdir_free_bytes{slot="two"} 4000.0' in path.read_text())
            ),
            "free space",
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_address_on_loopback(tmp_path: Path) -> None:
    """/metrics answers in the plain format, whatever the asker prefers."""
    port = free_port()
    with exporter(tmp_path, port=port) as e:
        e.look(LOOK)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            found = values(answer.read().decode())
    assert found["espilot_event_ranges", ("ready",)] == 5


def test_port_that_is_taken(tmp_path: Path) -> None:
    """A taken port is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"metrics.port {port}"), exporter(tmp_path, port=port):
            pass


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    """A file that cannot be written is told once; the pilot goes on."""
    closing, log = replace(LOOK, closing=True), tmp_path / "log"
    with exporter(tmp_path, textfile=str(tmp_path / "none" / "x.prom"), every_s=1.0) as e:
        e.look(closing)
        eventually(lambda: e.look(closing) or log.read_text(), "a warning")
        for _ in range(5):
            e.look(closing)
    assert log.read_text().count("metrics not written") == 1
