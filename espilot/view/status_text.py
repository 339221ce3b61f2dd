"""A snapshot as aligned lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from espilot.view.snapshot import Resource, Snapshot, by_state
from espilot.view.wording import clock_text, duration_text, plural, printable, size_text

LABEL_WIDTH = 14
LAST_VERDICTS = 5


def describe(snapshot: Snapshot) -> str:
    """All that is known, the important first."""
    return "".join(f"{label + ':' if label else '':<{LABEL_WIDTH}} {printable(text)}\n"
                   for label, text in lines(snapshot))  # fmt: skip


def lines(s: Snapshot) -> Iterator[tuple[str, str]]:
    """Label and text of each line."""
    yield "state", state_text(s)
    if s.note:
        yield "note", s.note
    yield "job", job_text(s)
    yield "ranges", ", ".join(f"{n} {name}" for name, n in by_state(s.counts).items())
    yield "totals", totals_text(s)
    yield "at risk", risk_text(s)
    yield "stage-out", stageout_text(s)
    yield from told_lines(s)
    yield "places", f"work {s.places.workdir}, storage {s.places.storage}"
    yield "", f"state {s.places.state_dir}, log {s.places.log}"
    if s.next_step:
        yield "try next", s.next_step


def told_lines(s: Snapshot) -> Iterator[tuple[str, str]]:
    """What the pilot alone knows, as far as it has told."""
    if s.told_at is not None:
        yield "as told at", f"{clock_text(s.told_at)} by the pilot, which cannot be asked now"
    if s.rates:
        yield "rates", rates_text(s)
    told = s.told_at is not None or (s.running and not s.note)
    if told:
        yield "deadline", deadline_text(s)
        yield "storage", storage_text(s)
    if told and not s.verdicts:
        yield "verdicts", "none"
    for number, verdict in enumerate(s.verdicts[-LAST_VERDICTS:]):
        when = clock_text(float(verdict.get("t") or 0))
        yield "" if number else "verdicts", f"{when} {verdict.get('rule')}: {verdict.get('text')}"
    for number, resource in enumerate(s.resources):
        yield "" if number else "resources", resource_text(resource)


def state_text(s: Snapshot) -> str:
    """Whether somebody runs, and how the run stands."""
    if s.running:
        verb = f"draining ({s.deadline.draining})" if s.deadline.draining else "running"
        return f"{verb}, process {s.pid}"
    if s.run_state in ("finished", "failed"):
        return f"{s.run_state}; no pilot runs"
    return "no pilot runs, and the task is not finished"


def job_text(s: Snapshot) -> str:
    """The task, the job and its payload."""
    if not s.job.panda_id:
        return f"task {s.task!r}, no job just now"
    text = f"task {s.task!r}, job {s.job.panda_id}, phase {s.job.phase}"
    if s.job.payload:
        text += f", payload {s.job.payload} (start {s.job.epoch})"
    return text


def totals_text(s: Snapshot) -> str:
    """What ended."""
    c = s.counts
    text = f"{c.finished} of {s.total} ranges finished and reported"
    text += f" ({plural(c.events, 'event')}, {plural(c.archives, 'archive')}, {size_text(c.bytes)})"
    return text + f", {c.failed_total} failed, {c.fatal_total} fatal, {c.released} given back"


def risk_text(s: Snapshot) -> str:
    """What would be lost."""
    n, cpu_s = s.at_risk.ranges, s.at_risk.cpu_s
    return f"{plural(n, 'range')} / {cpu_s / 60:.1f} CPU-minutes would be lost if the node vanished"


def stageout_text(s: Snapshot) -> str:
    """What the storage does not have."""
    if not s.counts.done and not s.counts.packed:
        return "nothing waits for the storage"
    waiting = f"{plural(s.stageout.archives, 'archive')} ({size_text(s.stageout.bytes)})"
    return (
        f"{plural(s.counts.done, 'output')} to pack, {waiting} to ship; "
        f"the oldest waits for {duration_text(s.stageout.lag_s)}"
    )


def rates_text(s: Snapshot) -> str:
    """How fast it goes."""
    r = s.rates
    return (
        f"{r.get('ranges_per_s', 0):.2f} ranges/s made, {r.get('events_per_s', 0):.2f} events/s "
        f"reported, over the last {duration_text(r.get('window_s', 0))}"
    )


def deadline_text(s: Snapshot) -> str:
    """When it must be over."""
    d = s.deadline
    text = "none known" if d.in_s is None else f"in {duration_text(d.in_s)} ({d.source})"
    if d.draining and not s.running:
        text += f"; drained ({d.draining})"
    return f"{text}; drain step: {d.step}" if d.step else text


def storage_text(s: Snapshot) -> str:
    """Whether the storage takes what it gets."""
    reason = f" ({s.storage.reason})" if s.storage.reason else ""
    return f"{s.storage.state or 'not known'}{reason}"


def resource_text(resource: Resource) -> str:
    """A figure, and how much of its limit that is."""
    value = amount_text(resource.value, resource.unit)
    if not resource.limit:
        return f"{resource.name:<16} {value:>12}"
    share = resource.value / resource.limit
    limit = amount_text(resource.limit, resource.unit)
    return f"{resource.name:<16} {value:>12} of {limit} ({share:.0%})"


def amount_text(value: float, unit: str) -> str:
    """A value with its unit."""
    if unit == "bytes":
        return size_text(value)
    return duration_text(value) if unit == "s" else f"{value:.0f}"
