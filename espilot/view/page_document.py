"""What the live page shows, as one object for JSON: `espilot.page/1`.

The same object feeds the page over the network and the frozen report. All figures are text
already, so that page, terminal and report say the same; the page itself only draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from espilot.view.cells import FAILED, FATAL, STATES, count_states
from espilot.view.chronicle import Chronicle
from espilot.view.forecast import Forecast, forecast
from espilot.view.health import examine, share_of
from espilot.view.snapshot import Snapshot
from espilot.view.status_text import (
    amount_text,
    deadline_text,
    job_text,
    state_text,
    storage_text,
)
from espilot.view.wording import duration_text, plural, printable, size_text

SCHEMA = "espilot.page/1"
RATE_BINS = 20
Document = dict[str, Any]


def document(s: Snapshot, chronicle: Chronicle, log: Sequence[str] = ()) -> Document:
    """The page of one pilot; `log` are lines of its log that people should see."""
    expected = forecast_of(s, chronicle)
    health = examine(s, chronicle)
    letters = bytes(chronicle.cells.letters)
    total = max(s.total, len(letters))
    return {
        "schema": SCHEMA,
        "noun": "range",
        "taken_at": s.taken_at,
        "running": s.running,
        "ended_at": None if s.running else chronicle.last_t or None,
        "title": printable(f"task {s.task}" if s.task else "pilot"),
        "state": {"text": printable(state_text(s)), "level": health[0].level},
        "tiles": list(tiles(s, chronicle, expected)),
        "forecast": forecast_document(expected, rate_of(s, chronicle)),
        "health": [asdict(each) for each in health],
        "legend": [asdict(each) for each in STATES],
        "map": {
            "total": total,
            "beyond": chronicle.cells.beyond,
            "counts": count_states(letters, total - len(letters)),
        },
        "cells": letters.decode(),
        "lanes": chronicle.lanes.document(s.taken_at if s.running else chronicle.last_t),
        "work": work_of(s, chronicle),
        "history": history_of(chronicle),
        "deadline_at": deadline_at(s),
        "stageout": [list(each) for each in stageout_rows(s, chronicle)],
        "resources": resource_rows(s),
        "facts": [[label, printable(text)] for label, text in fact_rows(s)],
        "tables": [],
        "marks": [[t, kind, printable(text)] for t, kind, text in chronicle.marks],
        "log": [printable(line) for line in log],
    }


def work_of(s: Snapshot, chronicle: Chronicle) -> Document:
    """What is in work: number on the map and since when (Unix s); `median_s` of the latest."""
    running = chronicle.lanes.running() if s.running else []
    median_s = chronicle.median_s
    return {
        "median_s": None if median_s is None else round(median_s, 3),
        "cells": [[cell, round(since, 2)] for cell, since in running],
    }


def forecast_of(s: Snapshot, chronicle: Chronicle) -> Forecast:
    """By the supervisor's rate, else by the last part of the story."""
    c = s.counts
    safe, lost = c.finished + c.staged, lost_of(s, chronicle)
    rate = rate_of(s, chronicle)
    if s.running:
        return forecast(
            total=s.total,
            finished=safe,
            lost=lost,
            rate=rate,
            now=s.taken_at,
            deadline_in_s=s.deadline.in_s,
        )
    left = max(0, s.total - safe - lost)
    if left:
        return Forecast(
            f"{left:,} of {s.total:,} ranges are left, and nobody works on them.", False
        )
    return forecast(
        total=s.total, finished=safe, lost=lost, rate=0.0, now=s.taken_at, deadline_in_s=None
    )


def forecast_document(expected: Forecast, rate: float) -> Document:
    """The forecast for the page; `rate` is ranges per second."""
    return {"text": expected.text, "good": expected.good, "rate": round(rate, 4)}


def lost_of(s: Snapshot, chronicle: Chronicle) -> int:
    """Ranges that stand as failed now: the queue counts each try, the map each range."""
    c, cells = s.counts, chronicle.cells
    tries = c.failed_total + c.fatal_total + c.failed + c.fatal
    on_map = cells.count(FAILED) + cells.count(FATAL)
    return tries if cells.beyond or not len(cells) else min(tries, on_map)


def rate_of(s: Snapshot, chronicle: Chronicle) -> float:
    """Ranges made per second: as the supervisor says, else by the last part of the story."""
    return float(s.rates.get("ranges_per_s") or 0.0) or recent_rate(chronicle)


def recent_rate(chronicle: Chronicle) -> float:
    """Ranges made per second in the last bins of the story."""
    history = chronicle.history
    made = history.series.get("made")
    if made is None or history.start is None or chronicle.last_t <= history.start:
        return 0.0
    last = int((chronicle.last_t - history.start) / history.width_s)
    first = max(0, last - RATE_BINS)
    return sum(made[first : last + 1]) / (
        chronicle.last_t - history.start - first * history.width_s
    )


def tiles(s: Snapshot, chronicle: Chronicle, expected: Forecast) -> Iterator[dict[str, str]]:
    """The few figures that matter most: label, value, note and level."""
    c, risk = s.counts, s.at_risk
    safe = c.finished + c.staged
    share = f"{safe / s.total:.0%} of {s.total:,} ranges" if s.total else "ranges"
    yield tile("Safe", f"{safe:,}", f"{share}, {c.finished:,} reported", "ok")
    yield tile(
        "At risk",
        f"{risk.ranges:,}",
        f"ranges / {risk.cpu_s / 60:,.1f} CPU-minutes would be lost if the node vanished",
        "warn" if risk.ranges else "ok",
    )
    yield tile("In work", f"{c.sent:,}", f"{c.ready:,} ready on this node", "note")
    lost = lost_of(s, chronicle)
    again = c.failed_total + c.fatal_total + c.failed + c.fatal - lost
    tries = f"{again:,} more failed and were tried again, " if again > 0 else ""
    note = f"{tries}{c.released:,} given back"
    yield tile("Failed", f"{lost:,}", note, "bad" if lost else "ok")
    rate = rate_of(s, chronicle)
    median_s = chronicle.median_s
    each = f"a range takes {duration_text(median_s)}" if median_s is not None else "no range ended"
    yield tile("Pace", pace_text(rate), f"ranges made; {each}", "note")
    late = duration_text(s.stageout.lag_s) if c.done or c.packed else "none"
    waiting = (
        f"{plural(c.done, 'output')} to pack, {plural(s.stageout.archives, 'archive')} to ship"
    )
    yield tile("Stage-out lag", late, waiting, "note")
    if s.running:
        left = "none" if s.deadline.in_s is None else f"in {duration_text(s.deadline.in_s)}"
        note = s.deadline.source or "ends when the task does"
        yield tile("Deadline", left, note, "note")


def pace_text(rate: float) -> str:
    """Ranges per minute."""
    per_minute = rate * 60
    if per_minute >= 10_000:
        return f"{per_minute / 1000:,.1f}k /min"
    return f"{per_minute:,.0f} /min" if per_minute >= 100 else f"{per_minute:.1f} /min"


def tile(label: str, value: str, note: str, level: str) -> dict[str, str]:
    """One of them."""
    return {"label": label, "value": value, "note": printable(note), "level": level}


def history_of(chronicle: Chronicle) -> Document:
    """Made and reported ranges by bins of time; trailing bins without anything are left out."""
    history = chronicle.history
    names = ("made", "reported", "failed")
    series = {name: history.series.get(name, []) for name in names}
    start = history.start or 0.0
    n = int(max(0.0, chronicle.last_t - start) / history.width_s) + 1
    return {
        "from": start,
        "width_s": history.width_s,
        **{name: [int(x) for x in sums[:n]] for name, sums in series.items()},
    }


def deadline_at(s: Snapshot) -> float | None:
    """Unix time of the deadline."""
    return None if s.deadline.in_s is None else s.taken_at + s.deadline.in_s


def stageout_rows(s: Snapshot, chronicle: Chronicle) -> Iterator[tuple[str, str]]:
    """What became safe and what waits."""
    c = s.counts
    yield "outputs to pack", f"{c.done:,}"
    yield "archives to ship", f"{s.stageout.archives:,} ({size_text(s.stageout.bytes)})"
    yield "oldest waits for", duration_text(s.stageout.lag_s) if c.done or c.packed else "–"
    yield "archives reported", f"{c.archives:,} ({size_text(c.bytes)})"
    for name, size_bytes in chronicle.storages.most_common(8):
        yield f"shipped to {printable(name)}", size_text(size_bytes)
    facts = s.roles.get("stageout", {})
    for label, key in (("packs", "pack_rate"), ("uploads", "upload_rate")):
        if isinstance(facts.get(key), int | float):
            yield label, f"{size_text(facts[key])}/s"
    if s.running:
        yield "storage", printable(storage_text(s))


def resource_rows(s: Snapshot) -> list[Document]:
    """What is used, against its limit where it has one."""
    return [
        {
            "name": each.name,
            "value": amount_text(each.value, each.unit),
            "limit": amount_text(each.limit, each.unit) if each.limit else "",
            "share": None if (share := share_of(each)) is None else round(share, 4),
        }
        for each in s.resources
    ]


def fact_rows(s: Snapshot) -> Iterator[tuple[str, str]]:
    """Who and where."""
    yield "job", job_text(s)
    if s.running:
        yield "deadline", deadline_text(s)
    yield "events", f"{s.counts.events:,} reported"
    for role, pid in s.pids.items():
        yield role, f"process {pid}"
    yield "work directory", s.places.workdir
    yield "state directory", s.places.state_dir
    yield "storage", s.places.storage
    yield "log", s.places.log
    if s.next_step:
        yield "try next", s.next_step


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Document:
    """What turns one document into the other; of the map only the pieces that changed."""
    changed = {key: value for key, value in new.items() if key != "cells" and old.get(key) != value}
    before, after = str(old.get("cells", "")), str(new.get("cells", ""))
    if before != after:
        changed["patch"] = list(patches(before, after))
    return changed


PIECE = 200


def patches(before: str, after: str) -> Iterator[tuple[int, str]]:
    """Where pieces of `after` differ, and what stands there."""
    for at in range(0, len(after), PIECE):
        piece = after[at : at + PIECE]
        if before[at : at + PIECE] != piece:
            yield at, piece
