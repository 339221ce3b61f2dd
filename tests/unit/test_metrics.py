"""The metrics: every name with its type and labels, the values, and the alerts that use them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from espilot.core.clocks import Clocks
from espilot.model import AtRisk
from espilot.view.look import Look
from espilot.view.metrics import Metrics
from espilot.view.snapshot import NO_COUNTS

ALERTS = Path(__file__).resolve().parents[2] / "etc" / "prometheus-alerts.yml"
TIMES = {"bounds": [1.0, 2.0], "counts": [3, 2, 1], "sum_s": 9.5}
FACTS: dict[str, Any] = {
    "started_at": 1000.0,
    "run": {
        "panda_id": 4711, "phase": "running", "life": "running",
        "drain": {"deadline_in_s": 60.0, "deadline_source": "wall-time", "budget_s": 12.0},
    },
    "roles": {
        "dispatcher": {"last_message_mono": 5.0, "clients": 4, "waiting": 1},
        "event-server": {
            "calls_ranges_ok": 3, "calls_ranges_empty": 1, "calls_ranges_failed": 2,
            "call_times": {"ranges": TIMES, "reports": TIMES},
            "last_success_at": 99.0, "credentials": {"token": 7.0},
        },
        "stageout": {
            "uploads": {"storage": {"bytes": 10, "archives": 1, "failures": {"temporary": 2}}},
            "trouble": 1, "backlog_bytes": 77, "failovers": 3, "upload_times": TIMES,
            "upload_rate": 5.5,
        },
    },
    "resources": {"cpu_s": 1.5, "read_bytes": 11, "written_bytes": 12, "max_workdir_bytes": 950},
    "present": {"rss": 5, "pss": 6, "peak": 7, "limit": 8, "workdir": 900, "efficiency": 0.5},
    "payload_ends": {"badly": 2},
    "payload_restarts": {"badly": 1},
    "verdict_counts": {"range-hang": 2, "hang": 1, "out-of-memory": 1},
    "kernel_kills": 3, "clock_jump_s": 8.5, "loop_lag_s": 0.25,
}  # fmt: skip
NODE = {
    "lag_s": 12.5, "at_risk": 6, "free_bytes": 4000,
    "job": {"jobset_id": "5", "queue": "Q", "harvester_id": "h", "worker_id": "w"},
    "story": {
        "durations": TIMES, "waits": TIMES, "redispatched": {"client-ended": 2},
        "ranges_lost": {"not-booked": 4}, "events_lost": {"not-booked": 40},
    },
}  # fmt: skip
COUNTS = replace(NO_COUNTS, ready=5, sent=2, done=1, packed=3, finished=7, events=70)
LOOK = Look(COUNTS, FACTS, {"dispatcher": 1.0}, False, lambda: AtRisk(6, 60.0, 12.5))

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
NAMES = {
    "build_info": (GAUGE, "version python"),
    "job_info": (GAUGE, "panda_id task_id jobset_id queue harvester_id worker_id"),
    "state": (GAUGE, "state"),
    "start_time_seconds": (GAUGE, ""),
    "deadline_timestamp_seconds": (GAUGE, "source"),
    "drain_budget_seconds": (GAUGE, ""),
    "event_ranges": (GAUGE, "state"),
    "event_ranges_total": (COUNTER, "result"),
    "events_processed_total": (COUNTER, ""),
    "range_requests_total": (COUNTER, "result"),
    "event_ranges_redispatched_total": (COUNTER, "reason"),
    "events_lost_total": (COUNTER, "reason"),
    "event_range_duration_seconds": (HISTOGRAM, ""),
    "range_buffer_wait_seconds": (HISTOGRAM, ""),
    "stageout_lag_seconds": (GAUGE, ""),
    "stageout_backlog_bytes": (GAUGE, ""),
    "stageout_backlog_ranges": (GAUGE, ""),
    "stageout_bytes_total": (COUNTER, "storage result"),
    "stageout_retries_total": (COUNTER, "storage reason"),
    "stageout_failover_total": (COUNTER, ""),
    "stageout_duration_seconds": (HISTOGRAM, ""),
    "payload_workers": (GAUGE, "state"),
    "payload_restarts_total": (COUNTER, "reason"),
    "payload_last_message_timestamp_seconds": (GAUGE, ""),
    "payload_hangs_total": (COUNTER, "action"),
    "payload_cpu_seconds_total": (COUNTER, ""),
    "payload_memory_bytes": (GAUGE, "kind"),
    "payload_io_bytes_total": (COUNTER, "op"),
    "payload_oom_kills_total": (COUNTER, ""),
    "payload_cpu_efficiency_ratio": (GAUGE, ""),
    "payload_gpu_utilization_ratio": (GAUGE, None),
    "server_requests_total": (COUNTER, "op result"),
    "server_request_duration_seconds": (HISTOGRAM, "op"),
    "server_last_success_timestamp_seconds": (GAUGE, ""),
    "credential_expiry_timestamp_seconds": (GAUGE, "kind"),
    "clock_jump_seconds_total": (COUNTER, ""),
    "workdir_free_bytes": (GAUGE, ""),
    "workdir_used_bytes": (GAUGE, ""),
    "loop_lag_seconds": (GAUGE, ""),
}
"""Names that others build on, without the prefix; labels None: no sample is ever there."""
LABELS = set(["slot", "state", "result", "reason", "storage", "op", "source", "kind", "action"])


def text_of(look: Look = LOOK, node: dict[str, Any] = NODE) -> str:
    metrics = Metrics()
    metrics.take(look, node)
    return metrics.text().decode()


def types(text: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE espilot_(\S+) (\S+)$", text, re.MULTILINE))


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    found = [s for f in text_string_to_metric_families(text) for s in f.samples]
    assert {s.labels["slot"] for s in found} == {"0"}
    without = [{k: v for k, v in s.labels.items() if k != "slot"} for s in found]
    return [
        (s.name.removeprefix("espilot_"), labels, s.value)
        for s, labels in zip(found, without, strict=True)
    ]


def test_each_name_is_there_with_its_type() -> None:
    """Also of a pilot that knows nothing yet, so that all files have the same names."""
    empty = Look(NO_COUNTS, {}, {}, False, lambda: AtRisk(0, 0.0, 0.0))
    for text in (text_of(), text_of(empty, {})):
        found = types(text)
        assert {name: kind for name, (kind, _) in NAMES.items()}.items() <= found.items()
    assert types(text_of()) == types(text_of(empty, {}))


def test_each_name_has_its_labels() -> None:
    """And no label has values without bound but those of the info series."""
    found = samples(text_of())
    for name, (kind, labels) in NAMES.items():
        mine = [s for s in found if s[0] == name + ("_bucket" if kind == HISTOGRAM else "")]
        if labels is None:
            assert not mine
            continue
        assert mine, name
        wanted = set(labels.split()) | ({"le"} if kind == HISTOGRAM else set())
        assert all(set(each[1]) == wanted for each in mine), name
    for name, labels_of, _ in found:
        assert name.endswith("_info") or set(labels_of) <= LABELS | {"le"}, name


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("range_requests_total", {"result": "ranges"}, 2),
        ("range_requests_total", {"result": "none"}, 1),
        ("range_requests_total", {"result": "failed"}, 2),
        ("event_ranges_redispatched_total", {"reason": "client-ended"}, 2),
        ("events_lost_total", {"reason": "not-booked"}, 40),
        ("event_range_duration_seconds_bucket", {"le": "2.0"}, 5),
        ("event_range_duration_seconds_count", {}, 6),
        ("event_range_duration_seconds_sum", {}, 9.5),
        ("server_request_duration_seconds_count", {"op": "reports"}, 6),
        ("stageout_backlog_bytes", {}, 77),
        ("stageout_retries_total", {"storage": "storage", "reason": "temporary"}, 2),
        ("payload_workers", {"state": "busy"}, 3),
        ("payload_hangs_total", {"action": "end-client"}, 2),
        ("payload_memory_bytes", {"kind": "limit"}, 8),
        ("payload_oom_kills_total", {}, 3),
        ("credential_expiry_timestamp_seconds", {"kind": "token"}, 7),
        ("clock_jump_seconds_total", {}, 8.5),
        ("drain_budget_seconds", {}, 12),
        ("workdir_used_bytes", {}, 900),
    ],
)
def test_values(name: str, labels: dict[str, str], value: float) -> None:
    """Each figure is where it belongs."""
    assert (name, labels, value) in samples(text_of())


def test_pilots_of_a_node_have_no_series_in_common() -> None:
    """The node exporter refuses all files when two of them have the same series."""
    seen: set[str] = set()
    for slot in ("1", "2"):
        metrics = Metrics(slot)
        metrics.take(LOOK, NODE)
        lines = [line for line in metrics.text().decode().splitlines() if line[0] != "#"]
        series = {line.rpartition(" ")[0] for line in lines}
        assert not series & seen
        seen |= series


@pytest.mark.parametrize(
    ("state", "change"),
    [
        ("running", {}),
        ("stopping", {"closing": True}),
        ("starting", {"heard": {}}),
        ("idle", {"facts": {}, "counts": NO_COUNTS}),
        ("recovering", {"facts": {}}),
        ("fetching", {"counts": NO_COUNTS}),
        ("draining", {"facts": {"run": {"drain": {"draining": "SIGTERM"}}}}),
    ],
)
def test_states(state: str, change: dict[str, Any]) -> None:
    """Exactly one is 1."""
    found = [s for s in samples(text_of(replace(LOOK, **change))) if s[0] == "state"]
    assert [labels["state"] for _, labels, value in found if value] == [state]
    assert len(found) == 7


def test_alerts_name_metrics_that_exist() -> None:
    """Each alert's metrics and their labels are ours (or the node exporter's)."""
    found = samples(text_of())
    text = ALERTS.read_text()
    expressions = re.findall(r"^ +expr: (.+)$", text, re.MULTILINE)
    assert len(expressions) == text.count("- alert: ") == text.count("summary: ") >= 9
    for expression in expressions:
        for name, selector in re.findall(r"\bespilot_(\w+)(?:\{([^}]*)\})?", expression):
            if name == "slot":  # the name of the text file
                continue
            mine = [labels for sample, labels, _ in found if sample == name]
            assert mine, f"{name} in {expression}"
            for label in re.findall(r"(\w+)[=!]", selector):
                assert all(label in labels for labels in mine), f"{label} in {expression}"


def test_clocks() -> None:
    """A late look is lag; only what one clock alone counts is a jump, in either direction."""
    clocks = Clocks(1.0)
    for now_mono, now_unix in ((10.0, 500.0), (11.0, 501.1), (14.0, 504.1), (15.0, 604.1)):
        clocks.observe(now_mono, now_unix)
    assert (clocks.jumped_s, clocks.lag_s) == (pytest.approx(98.0 + 1.0), 0.0)
    clocks.observe(18.5, 600.0)
    assert clocks.lag_s == 2.5
    assert clocks.jumped_s == pytest.approx(99.0 + 7.6)
