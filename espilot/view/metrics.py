"""A look at a pilot as Prometheus metrics: names, help texts and labels in one place.

No label has an unbounded set of values; job and task ids are in the one info series only. States of
ranges have the names that they have everywhere.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from espilot import __version__
from espilot.view.look import Look
from espilot.view.snapshot import by_state, totals

STATES = ("starting", "idle", "fetching", "running", "draining", "recovering", "stopping")
Facts = Mapping[str, Any]
Rows = list[tuple[tuple[str, ...], float]]


class Metrics(Collector):
    """Shows the last look to whoever collects; times are Unix seconds."""

    def __init__(self) -> None:
        self._families: list[Metric] = []
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def take(self, look: Look, node: Facts) -> None:
        """A look, and the node's figures: `lag_s`, `free_bytes` where they are known."""
        self._families = list(families(look, node, time.time(), time.monotonic()))

    def collect(self) -> Iterator[Metric]:
        """The families of the last look."""
        return iter(self._families)

    def text(self) -> bytes:
        """All of them in the text format."""
        return generate_latest(self.registry)


def families(look: Look, node: Facts, now: float, now_mono: float) -> Iterator[Metric]:
    """All metric families of a look."""
    run = look.facts.get("run") or {}
    yield info("build", "Version of the pilot.", version=__version__,
               python=platform.python_version())  # fmt: skip
    ids = {name: str(run.get(name) or "") for name in ("panda_id", "task_id")}
    yield info("job", "The present job.", **ids)
    state = state_of(look, run)
    rows: Rows = [((name,), float(name == state)) for name in STATES]
    yield gauge("state", "1 for the state of the pilot.", rows, "state")
    yield from of_ranges(look, node)
    yield from of_time(look.facts, run, now)
    yield from of_payload(look.facts, run, now - now_mono)
    yield from of_server(roles(look.facts, "event-server"))
    yield from of_storage(roles(look.facts, "stageout"))
    if node.get("free_bytes") is not None:
        yield gauge("workdir_free_bytes", "Free space on the disk of the work directory.",
                    [((), node["free_bytes"])])  # fmt: skip


def state_of(look: Look, run: Facts) -> str:
    """One of `STATES`."""
    if look.closing:
        return "stopping"
    if (run.get("drain") or {}).get("draining"):
        return "draining"
    if not look.heard:
        return "starting"
    if not run.get("panda_id"):
        return "idle"
    return "running" if look.counts.sent or run.get("phase") != "running" else "fetching"


def of_ranges(look: Look, node: Facts) -> Iterator[Metric]:
    """Ranges by state, and what became of them."""
    c = look.counts
    rows: Rows = [((name,), n) for name, n in by_state(c).items()]
    yield gauge("event_ranges", "Ranges on this node.", rows, "state")
    ended = totals(c)
    rows = [((name,), ended[name]) for name in ("finished", "failed", "fatal", "released")]
    yield counter("event_ranges", "Ranges that ended.", rows, "result")
    yield counter("events_processed", "Events of finished ranges.", [((), c.events)])
    lost = look.facts.get("lost") or {}
    rows = [((reason,), n) for reason, n in lost.items()]
    yield counter("event_ranges_lost", "Ranges that were processed in vain.", rows, "reason")
    yield gauge("stageout_lag_seconds", "Age of the oldest output that the server does not know.",
                [((), node.get("lag_s") or 0.0)])  # fmt: skip
    yield gauge("stageout_backlog_ranges", "Outputs that are not on the storage.",
                [((), c.done + c.packed)])  # fmt: skip
    yield gauge("at_risk_ranges", "Ranges that would be lost if the node vanished.",
                [((), node.get("at_risk") or 0)])  # fmt: skip


def of_time(facts: Facts, run: Facts, now: float) -> Iterator[Metric]:
    """Start and known end."""
    yield gauge("start_time_seconds", "When the pilot started.",
                [((), float(facts.get("started_at") or now))])  # fmt: skip
    drain = run.get("drain") or {}
    left_s, source = drain.get("deadline_in_s"), str(drain.get("deadline_source") or "")
    rows: Rows = [] if left_s is None else [((source,), now + left_s)]
    yield gauge("deadline_timestamp_seconds", "When the pilot must be gone.", rows, "source")


def of_payload(facts: Facts, run: Facts, unix_minus_mono: float) -> Iterator[Metric]:
    """The payload: life, last message, what it used."""
    life = str(run.get("life") or "idle")
    yield gauge("payload_workers", "1 for the payload's life.", [((life,), 1.0)], "state")
    last = roles(facts, "dispatcher").get("last_message_mono")
    if isinstance(last, float) and last > 0:
        yield gauge("payload_last_message_timestamp_seconds", "When it spoke last.",
                    [((), unix_minus_mono + last)])  # fmt: skip
    used = facts.get("resources") or {}
    yield counter("payload_cpu_seconds", "CPU time of the payloads.", [((), used.get("cpu_s", 0))])
    kinds = {"rss": "max_rss_bytes", "pss": "max_pss_bytes"}
    rows: Rows = [((kind,), used.get(name, 0)) for kind, name in kinds.items()]
    yield gauge("payload_memory_peak_bytes", "Most memory that it had.", rows, "kind")
    ops = {"read": "read_bytes", "write": "written_bytes"}
    rows = [((op,), used.get(name, 0)) for op, name in ops.items()]
    yield counter("payload_io_bytes", "Bytes that it read and wrote.", rows, "op")
    yield gauge("workdir_peak_bytes", "Most that was in the work directory.",
                [((), used.get("max_workdir_bytes", 0))])  # fmt: skip
    rows = [((reason,), n) for reason, n in (facts.get("payload_ends") or {}).items()]
    yield counter("payload_ends", "Ends of the payload.", rows, "reason")
    rows = [((rule,), n) for rule, n in (facts.get("verdict_counts") or {}).items()]
    yield counter("verdicts", "Findings of the rules of supervision.", rows, "reason")


def of_server(worker: Facts) -> Iterator[Metric]:
    """Calls to the event server."""
    rows: Rows = []
    for name, n in sorted(worker.items()):
        parts = name.split("_")
        if parts[0] == "calls" and len(parts) == 3:
            rows.append(((parts[1], parts[2]), n))
    yield counter("server_requests", "Calls to the event server.", rows, "op", "result")
    last = worker.get("last_success_at")
    if last:
        yield gauge("server_last_success_timestamp_seconds", "When a call last succeeded.",
                    [((), last)])  # fmt: skip


def of_storage(worker: Facts) -> Iterator[Metric]:
    """Uploads by endpoint."""
    uploads = worker.get("uploads") or {}
    rows: Rows = [((name, "ok"), each["bytes"]) for name, each in uploads.items()]
    yield counter("stageout_bytes", "Bytes put on the storage.", rows, "storage", "result")
    rows = [((name, "failed"), each["failed"]) for name, each in uploads.items()]
    yield counter("stageout_retries", "Uploads that failed.", rows, "storage", "reason")
    trouble = float(worker.get("trouble", 0))
    yield gauge("stageout_trouble", "1 while the storage does not take outputs.", [((), trouble)])


def roles(facts: Facts, name: str) -> Facts:
    """The figures of one role."""
    return (facts.get("roles") or {}).get(name) or {}


def info(name: str, text: str, **values: str) -> Metric:
    """An info series."""
    return InfoMetricFamily(f"espilot_{name}", text, value=values)


def gauge(name: str, text: str, rows: Rows, *labels: str) -> Metric:
    """A gauge with one sample for each row."""
    return filled(GaugeMetricFamily(f"espilot_{name}", text, labels=labels), rows)


def counter(name: str, text: str, rows: Rows, *labels: str) -> Metric:
    """A counter; its name gets `_total`."""
    return filled(CounterMetricFamily(f"espilot_{name}", text, labels=labels), rows)


def filled(family: Any, rows: Rows) -> Metric:
    """The family with a sample for each row."""
    for labels, value in rows:
        family.add_metric(labels, value)
    found: Metric = family
    return found
