"""A look at a pilot as Prometheus metrics: names, help texts and labels in one place.

Each name is there from the first look on; what is not known yet, or does not apply, has no sample.

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
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from espilot import __version__
from espilot.histogram import read_histogram
from espilot.view.look import Look
from espilot.view.snapshot import by_state, totals

STATES = ("starting", "idle", "fetching", "running", "draining", "recovering", "stopping")
HANGS = {"end-client": ("range-hang",), "end-payload": ("hang", "no-progress", "payload-end"),
         "end-job": ("looping",)}  # fmt: skip
"""What is ended by which rules."""
Facts = Mapping[str, Any]
Rows = list[tuple[tuple[str, ...], float]]


class Metrics(Collector):
    """Shows the last look to whoever collects; times are Unix seconds."""

    def __init__(self, slot: str = "0") -> None:
        """`slot` tells the pilots of a node apart: a collector refuses the same series twice."""
        self._slot = slot
        self._families: list[Metric] = []
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def take(self, look: Look, node: Facts) -> None:
        """A look, and the node's figures: `lag_s`, `free_bytes` where they are known."""
        found = list(families(look, node, time.time(), time.monotonic()))
        for family in found:
            family.samples = [
                sample._replace(labels={**sample.labels, "slot": self._slot})
                for sample in family.samples
            ]
        self._families = found

    def collect(self) -> Iterator[Metric]:
        """The families of the last look."""
        return iter(self._families)

    def text(self) -> bytes:
        """All of them in the text format."""
        return generate_latest(self.registry)


def families(look: Look, node: Facts, now: float, now_mono: float) -> Iterator[Metric]:
    """All metric families of a look."""
    facts, run = look.facts, look.facts.get("run") or {}
    yield info("build", "Version of the pilot.", version=__version__,
               python=platform.python_version())  # fmt: skip
    ids = {name: str(run.get(name) or "") for name in ("panda_id", "task_id")}
    yield info("job", "The present job.", **ids, **(node.get("job") or {}))
    state = state_of(look, run)
    rows: Rows = [((name,), float(name == state)) for name in STATES]
    yield gauge("state", "1 for the state of the pilot.", rows, "state")
    yield from of_ranges(look, node)
    yield from of_story(node.get("story") or {})
    yield from of_time(facts, run, now)
    yield from of_payload(facts, now - now_mono)
    yield from of_memory(facts)
    yield from of_server(roles(facts, "event-server"))
    yield from of_storage(roles(facts, "stageout"))
    present = facts.get("present") or {}
    yield gauge("workdir_free_bytes", "Free space on the disk of the work directory.",
                one(node.get("free_bytes")))  # fmt: skip
    yield gauge("workdir_used_bytes", "What is in the work directory.", one(present.get("workdir")))


def state_of(look: Look, run: Facts) -> str:
    """One of `STATES`."""
    if look.closing:
        return "stopping"
    if (run.get("drain") or {}).get("draining"):
        return "draining"
    if not look.heard:
        return "starting"
    if not run.get("panda_id"):
        # What an earlier pilot left waits for the server's word.
        return "recovering" if look.counts.live else "idle"
    return "running" if look.counts.sent or run.get("phase") != "running" else "fetching"


def of_ranges(look: Look, node: Facts) -> Iterator[Metric]:
    """Ranges by state, and what became of them."""
    c = look.counts
    yield gauge("event_ranges", "Ranges on this node.", tally(by_state(c)), "state")
    ended = totals(c)
    ends = {name: ended[name] for name in ("finished", "failed", "fatal", "released")}
    yield counter("event_ranges", "Ranges that ended.", tally(ends), "result")
    yield counter("events_processed", "Events of finished ranges.", one(c.events))
    yield gauge("stageout_lag_seconds", "Age of the oldest output that the server does not know.",
                one(node.get("lag_s") or 0.0))  # fmt: skip
    yield gauge("stageout_backlog_ranges", "Outputs that are not on the storage.",
                one(c.done + c.packed))  # fmt: skip
    yield gauge("at_risk_ranges", "Ranges that would be lost if the node vanished.",
                one(node.get("at_risk") or 0))  # fmt: skip


def of_story(story: Facts) -> Iterator[Metric]:
    """What only the story of the ranges tells."""
    for name, text, key in (
        ("event_ranges_redispatched", "Ranges taken back and handed out again.", "redispatched"),
        ("event_ranges_lost", "Ranges that were processed in vain.", "ranges_lost"),
        ("events_lost", "Events that were processed in vain.", "events_lost"),
    ):
        yield counter(name, text, tally(story.get(key)), "reason")
    yield histogram("event_range_duration_seconds", "From hand-out to outcome.",
                    {"": story.get("durations")})  # fmt: skip
    yield histogram("range_buffer_wait_seconds", "From the server's answer to hand-out.",
                    {"": story.get("waits")})  # fmt: skip


def of_time(facts: Facts, run: Facts, now: float) -> Iterator[Metric]:
    """Start and known end; how the clocks and the loop go."""
    yield gauge("start_time_seconds", "When the pilot started.",
                one(float(facts.get("started_at") or now)))  # fmt: skip
    drain = run.get("drain") or {}
    left_s, source = drain.get("deadline_in_s"), str(drain.get("deadline_source") or "")
    rows: Rows = [] if left_s is None else [((source,), now + left_s)]
    yield gauge("deadline_timestamp_seconds", "When the pilot must be gone.", rows, "source")
    yield gauge("drain_budget_seconds", "What the end takes once no range is waited for.",
                one(drain.get("budget_s")))  # fmt: skip
    yield counter("clock_jump_seconds", "By how much clock and time of the day drew apart.",
                  one(facts.get("clock_jump_s", 0)))  # fmt: skip
    yield gauge("loop_lag_seconds", "How late the supervisor's last look was.",
                one(facts.get("loop_lag_s", 0)))  # fmt: skip


def of_payload(facts: Facts, unix_minus_mono: float) -> Iterator[Metric]:
    """The payload: its clients, what became of its starts, what the rules found."""
    told = roles(facts, "dispatcher")
    clients = int(told.get("clients") or 0)
    waiting = min(clients, int(told.get("waiting") or 0))
    workers = {"busy": clients - waiting, "waiting": waiting}
    yield gauge("payload_workers", "Clients of the payload.", tally(workers), "state")
    last = told.get("last_message_mono")
    spoke_at = unix_minus_mono + last if isinstance(last, float) and last > 0 else None
    yield gauge("payload_last_message_timestamp_seconds", "When it spoke last.", one(spoke_at))
    for name, text, key in (
        ("payload_ends", "Ends of the payload.", "payload_ends"),
        ("payload_restarts", "Further starts for the same job, by the end before.",
         "payload_restarts"),
        ("verdicts", "Findings of the rules of supervision.", "verdict_counts"),
    ):  # fmt: skip
        yield counter(name, text, tally(facts.get(key)), "reason")
    found = facts.get("verdict_counts") or {}
    hangs = {action: sum(found.get(rule, 0) for rule in rules) for action, rules in HANGS.items()}
    yield counter("payload_hangs", "Hangs, by what was ended.", tally(hangs), "action")


def of_memory(facts: Facts) -> Iterator[Metric]:
    """What the payload uses."""
    used, present = facts.get("resources") or {}, facts.get("present") or {}
    yield counter("payload_cpu_seconds", "CPU time of the payloads.", one(used.get("cpu_s", 0)))
    kinds = {kind: present.get(kind, 0) for kind in ("rss", "pss", "peak", "limit")}
    yield gauge("payload_memory_bytes", "Memory of the payload; limit 0 means none.",
                tally(kinds), "kind")  # fmt: skip
    ops = {"read": used.get("read_bytes", 0), "write": used.get("written_bytes", 0)}
    yield counter("payload_io_bytes", "Bytes that it read and wrote.", tally(ops), "op")
    yield counter("payload_oom_kills", "Processes that the kernel ended for lack of memory.",
                  one(facts.get("kernel_kills", 0)))  # fmt: skip
    yield gauge("payload_cpu_efficiency_ratio", "CPU time over that of its cores while it ran.",
                one(present.get("efficiency")))  # fmt: skip
    yield gauge("payload_gpu_utilization_ratio", "Not measured: there is no sample.", [])
    yield gauge("workdir_peak_bytes", "Most that was in the work directory.",
                one(used.get("max_workdir_bytes", 0)))  # fmt: skip


def of_server(worker: Facts) -> Iterator[Metric]:
    """Calls to the event server."""
    calls: dict[tuple[str, str], float] = {}
    for name, n in sorted(worker.items()):
        parts = name.split("_")
        if parts[0] == "calls" and len(parts) == 3:
            calls[parts[1], parts[2]] = n
    rows: Rows = [(key, n) for key, n in calls.items() if key[1] != "empty"]
    yield counter("server_requests", "Calls to the event server.", rows, "op", "result")
    empty = calls.get(("ranges", "empty"), 0.0)
    requests = {
        "ranges": calls.get(("ranges", "ok"), 0.0) - empty,
        "none": empty,
        "failed": calls.get(("ranges", "failed"), 0.0),
    }
    yield counter("range_requests", "Requests for ranges, by the answer.", tally(requests),
                  "result")  # fmt: skip
    yield histogram("server_request_duration_seconds", "How long calls took.",
                    worker.get("call_times") or {}, "op")  # fmt: skip
    yield gauge("server_last_success_timestamp_seconds", "When a call last succeeded.",
                one(worker.get("last_success_at") or None))  # fmt: skip
    yield gauge("credential_expiry_timestamp_seconds", "When a credential ends.",
                tally(worker.get("credentials")), "kind")  # fmt: skip


def of_storage(worker: Facts) -> Iterator[Metric]:
    """Uploads by endpoint."""
    uploads = worker.get("uploads") or {}
    rows: Rows = [((name, "ok"), each["bytes"]) for name, each in uploads.items()]
    yield counter("stageout_bytes", "Bytes put on the storage.", rows, "storage", "result")
    rows = [
        ((name, kind), n) for name, each in uploads.items() for kind, n in each["failures"].items()
    ]
    yield counter("stageout_retries", "Uploads that failed, by kind of failure.", rows,
                  "storage", "reason")  # fmt: skip
    yield counter("stageout_failover", "Archives that went to another endpoint than the first.",
                  one(worker.get("failovers", 0)))  # fmt: skip
    yield histogram("stageout_duration_seconds", "How long uploads took.",
                    {"": worker.get("upload_times")})  # fmt: skip
    yield gauge("stageout_backlog_bytes", "Bytes that are not on the storage.",
                one(worker.get("backlog_bytes", 0)))  # fmt: skip
    yield gauge("stageout_rate_bytes_per_second", "How fast uploads went lately.",
                one(worker.get("upload_rate")))  # fmt: skip
    yield gauge("stageout_trouble", "1 while the storage does not take outputs.",
                one(float(worker.get("trouble", 0))))  # fmt: skip


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


def histogram(name: str, text: str, found: Mapping[str, Any], *labels: str) -> Metric:
    """A histogram with one set of buckets for each label, from the facts of each."""
    family = HistogramMetricFamily(f"espilot_{name}", text, labels=labels)
    for label, facts in found.items():
        if facts:
            each, total = read_histogram(facts), 0
            buckets = []
            for bound, n in zip([*map(str, each.bounds), "+Inf"], each.counts, strict=True):
                total += n
                buckets.append((bound, float(total)))
            family.add_metric([label] if labels else [], buckets, each.sum_s)
    done: Metric = family
    return done


def one(value: float | None) -> Rows:
    """The one sample without labels; none of what is not known."""
    return [] if value is None else [((), value)]


def tally(found: Mapping[str, float] | None) -> Rows:
    """A sample for each value of the one label."""
    return [((label,), n) for label, n in (found or {}).items()]


def filled(family: Any, rows: Rows) -> Metric:
    """The family with a sample for each row."""
    for labels, value in rows:
        family.add_metric(labels, value)
    found: Metric = family
    return found
