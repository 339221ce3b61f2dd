"""The story of one range in plain sentences.

A line of the story is a mapping with `t`, `role`, `pid`, `what`, `ranges` and facts; facts below
`each` are lists in the order of `ranges`. What a line lacks, its sentence leaves out: stories of
other versions are told too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from espilot.model import RangeState, RangeView
from espilot.view.wording import clock_text, duration_text, plural, printable, size_text

Line = Mapping[str, Any]
NEAR = 3
MOST_FILES = 4
SCHEMA = "espilot.explanation/1"

PILOT = frozenset({"payload-started", "payload-ended", "verdict"})
"""What concerns every range that is in hand at that time."""
OPENING = frozenset({"sent"})
CLOSING = frozenset({"done", "failed", "fatal", "returned", "given-back", "reported"})


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to the range. `what` is the word of the story, `text` a sentence."""

    t: float
    since_s: float | None
    role: str
    pid: int
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Its steps in order of time, and where it is now."""

    range_id: str
    steps: tuple[Step, ...]
    now: str


def explain(range_id: str, lines: Iterable[Line], view: RangeView | None) -> Explanation:
    """The explanation from all lines of the story and the range's row in the queue."""
    told = sorted(lines, key=lambda line: float(line["t"]))
    steps: list[Step] = []
    for line, facts in select_lines(range_id, told):
        t = float(line["t"])
        since_s = t - steps[-1].t if steps else None
        text = sentence(str(line["what"]), facts)
        role, pid = str(line.get("role") or "?"), int(line.get("pid") or 0)
        steps.append(Step(t, since_s, role, pid, str(line["what"]), text))
    return Explanation(range_id, tuple(steps), where_now(steps, view))


def select_lines(range_id: str, lines: Iterable[Line]) -> list[tuple[Line, Mapping[str, Any]]]:
    """The lines about the range with its own facts, and the pilot's while it was in hand."""
    found: list[tuple[Line, Mapping[str, Any]]] = []
    in_hand = False
    for line in lines:
        what = line["what"]
        if range_id in line["ranges"]:
            found.append((line, own_facts(line, line["ranges"].index(range_id))))
            in_hand = what in OPENING or (in_hand and what not in CLOSING)
        elif in_hand and what in PILOT:
            found.append((line, line))
    return found


def own_facts(line: Line, at: int) -> dict[str, Any]:
    """The facts of one range of a line: the common ones and its own."""
    facts = {key: value for key, value in line.items() if key != "each"}
    facts["together"] = len(line["ranges"])
    each = line.get("each")
    for key, values in each.items() if isinstance(each, Mapping) else ():
        if isinstance(values, list) and at < len(values):
            facts[key] = values[at]
    return facts


def sentence(what: str, facts: Mapping[str, Any]) -> str:
    """What happened, in words."""
    write = SENTENCES.get(what)
    text = write(facts) if write is not None else other_sentence(what, facts)
    return printable(text)


def other_sentence(what: str, facts: Mapping[str, Any]) -> str:
    """A word that is not known: the word and its facts."""
    hidden = {"t", "role", "pid", "what", "ranges", "together"}
    rest = ", ".join(f"{key} {value}" for key, value in facts.items() if key not in hidden)
    return f"{what} ({rest})" if rest else what


def fetched(facts: Mapping[str, Any]) -> str:
    """The server handed it out."""
    text = f"fetched from the server for job {facts.get('job', '?')}"
    events = facts.get("events")
    if isinstance(events, list) and len(events) == 2:
        first, last = events
        text += f": event {first}" if first == last else f": events {first} to {last}"
        text += f" of {facts['lfn']}" if facts.get("lfn") else ""
    return text + company(facts)


def sent(facts: Mapping[str, Any]) -> str:
    """It went to a client."""
    client = f"process {facts['client']} of the payload" if facts.get("client") else "the payload"
    return f"sent to {client}, start {facts.get('epoch', '?')}"


def done(facts: Mapping[str, Any]) -> str:
    """Its output exists."""
    files = facts.get("paths") or [name for name, _ in facts.get("files") or ()]
    size = f", {size_text(facts['bytes'])}" if isinstance(facts.get("bytes"), int) else ""
    return f"processed: the payload reported {files_text(files)}{size}"


def failed(facts: Mapping[str, Any]) -> str:
    """The payload could not do it."""
    return f"failed: {facts.get('diag') or 'no reason was given'} (code {facts.get('code', '?')})"


def returned(facts: Mapping[str, Any]) -> str:
    """It is free again on this node."""
    suspect = ", to be handed out last and alone" if facts.get("suspect") else ""
    return f"taken back, to be handed out again: {facts.get('why') or 'no reason told'}{suspect}"


def given_back(facts: Mapping[str, Any]) -> str:
    """It is the server's again."""
    return f"given back to the server: {facts.get('why') or 'no reason told'}"


def packed(facts: Mapping[str, Any]) -> str:
    """It is in an archive."""
    files = [f"{name} ({size_text(size)})" for name, size in facts.get("files") or ()]
    what = f"packed {files_text(files)}" if files else "packed"
    return f"{what} into archive {facts.get('archive', '?')}{company(facts)}"


def dropped(facts: Mapping[str, Any]) -> str:
    """Its output was not as reported."""
    return f"not packed, it counts as failed: {facts.get('why', '?')} (code {facts.get('code')})"


def staged(facts: Mapping[str, Any]) -> str:
    """Its archive is safe."""
    size = f", {size_text(facts['size'])}" if isinstance(facts.get("size"), int) else ""
    check = f", adler32 {facts['adler32']}" if facts.get("adler32") else ""
    return (
        f"archive {facts.get('archive', '?')} is verified on the storage endpoint "
        f"{facts.get('storage', '?')} (id {facts.get('storage_id', '?')}{size}{check})"
    )


def reported(facts: Mapping[str, Any]) -> str:
    """The server knows."""
    how = "its statuses were asked for" if facts.get("checked") else "its answer was clean"
    where = f" in archive {facts['archive']}" if facts.get("archive") else ""
    why = f" ({facts['diag']}, code {facts.get('code')})" if facts.get("diag") else ""
    return f"reported as {facts.get('status', '?')}{where}{why}, and booked by the server ({how})"


def undecided(facts: Mapping[str, Any]) -> str:
    """The server did not decide."""
    return "reported, but not booked by the server: it is reported again"


def payload_started(facts: Mapping[str, Any]) -> str:
    """Another start of the payload."""
    return f"the payload was started (start {facts.get('epoch', '?')})"


def payload_ended(facts: Mapping[str, Any]) -> str:
    """The payload is gone."""
    return f"the payload of start {facts.get('epoch', '?')} ended: {facts.get('how', '?')}"


def verdict(facts: Mapping[str, Any]) -> str:
    """A rule found something."""
    return f"verdict by rule {facts.get('rule', '?')}: {facts.get('text', '?')}"


SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "fetched": fetched,
    "sent": sent,
    "done": done,
    "failed": failed,
    "fatal": failed,
    "returned": returned,
    "given-back": given_back,
    "packed": packed,
    "dropped": dropped,
    "staged": staged,
    "reported": reported,
    "undecided": undecided,
    "payload-started": payload_started,
    "payload-ended": payload_ended,
    "verdict": verdict,
}


def company(facts: Mapping[str, Any]) -> str:
    """How many others went the same way."""
    others = int(facts.get("together") or 1) - 1
    return f" (with {plural(others, 'other')})" if others else ""


def files_text(files: Iterable[str]) -> str:
    """Some files by name."""
    names = [str(name) for name in files]
    if not names:
        return "its output"
    more = len(names) - MOST_FILES
    return ", ".join(names[:MOST_FILES]) + (f" and {more} more" if more > 0 else "")


def where_now(steps: list[Step], view: RangeView | None) -> str:
    """Where the range is, by the queue; when it has left it, by the end of its story."""
    if view is not None:
        return printable(HERE[view.state](view))
    last = next((step for step in reversed(steps) if step.what not in PILOT), None)
    if last is not None and last.what == "reported":
        return "over: the server has booked it, it is no longer on this node"
    if last is not None and last.what == "given-back":
        return "the server's: it may be handed out again, to this or another pilot"
    return "no longer in the queue of this node; its story does not tell why"


HERE: Mapping[RangeState, Callable[[RangeView], str]] = {
    RangeState.READY: lambda view: "ready: on this node, waiting to be handed out",
    RangeState.SENT: lambda view: f"sent: in the hands of the payload, start {view.epoch}",
    RangeState.DONE: lambda view: (
        f"done: its output waits to be packed: {files_text(o.path for o in view.outputs)}"
    ),
    RangeState.PACKED: lambda view: (
        f"packed: its output is in the archive {view.archive}, which waits to be shipped"
    ),
    RangeState.STAGED: lambda view: (
        f"staged: its archive {view.archive} is on the storage, the server is to be told"
    ),
    RangeState.FAILED: lambda view: f"failed ({view.diag}, code {view.code}), to be reported",
    RangeState.FATAL: lambda view: f"fatal ({view.diag}, code {view.code}), to be reported",
}


def describe(explanation: Explanation) -> str:
    """The explanation as lines for people, times in local time."""
    lines = [f"range {printable(explanation.range_id)}", ""]
    for step in explanation.steps:
        since = "" if step.since_s is None else f"+{duration_text(max(0.0, step.since_s))}"
        role = printable(f"{step.role}[{step.pid}]")
        when = clock_text(step.t, milliseconds=True)
        lines.append(f"{when} {since:>12}  {role:<20} {step.text}")
    if not explanation.steps:
        lines.append("its story does not tell of it")
    return "\n".join([*lines, "", f"now: {explanation.now}", ""])


def as_document(explanation: Explanation, view: RangeView | None) -> dict[str, Any]:
    """The explanation as an object for JSON, `espilot.explanation/1`."""
    steps = [
        {"t": s.t, "since_s": s.since_s, "role": s.role, "pid": s.pid, "what": s.what,
         "text": s.text}
        for s in explanation.steps
    ]  # fmt: skip
    return {
        "schema": SCHEMA,
        "range": explanation.range_id,
        "state": None if view is None else view.state.value,
        "steps": steps,
        "now": explanation.now,
    }


def near_matches(sought: str, ids: Iterable[str]) -> list[str]:
    """The ids that are most like the sought one, at most `NEAR`, the likest first."""
    parts = sought.split("-")
    near = heapq.nsmallest(NEAR, ids, key=lambda each: distance(sought, parts, each))
    return [each for each in near if distance(sought, parts, each) < UNLIKE]


UNLIKE = (2, 0)
"""Ids that differ in so many of their parts have nothing to do with each other."""


def distance(sought: str, parts: list[str], other: str) -> tuple[float, float]:
    """How different two ids are: in how many parts, and by how much these are numbers apart."""
    if sought and (other.startswith(sought) or other.endswith(sought)):
        return (0, len(other) - len(sought))
    theirs = other.split("-")
    if len(theirs) != len(parts):
        return UNLIKE
    differing = [(a, b) for a, b in zip(parts, theirs, strict=True) if a != b]
    apart = sum(abs(int(a) - int(b)) for a, b in differing if a.isdecimal() and b.isdecimal())
    return (len(differing), apart)
