"""How a pilot is, in sentences: what is the matter, why, and what helps. The worst come first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from espilot.view.chronicle import Chronicle
from espilot.view.snapshot import Resource, Snapshot
from espilot.view.wording import duration_text, plural, printable

LEVELS = ("bad", "warn", "note", "ok")
NEAR_LIMIT = 0.8
SILENT_FACTOR, SILENT_LEAST_S = 5.0, 30.0
SERVER_SILENT_S = 1800.0
LATE_S = 120.0
MOST_FAILURES = 3
DONE_WITH = ("finished", "failed")


@dataclass(frozen=True, slots=True)
class Finding:
    """`level` is one of `LEVELS`; `remedy` what to do, or ""."""

    level: str
    text: str
    remedy: str = ""


def examine(s: Snapshot, chronicle: Chronicle) -> list[Finding]:
    """All there is to say, the worst first; at least one sentence."""
    found = [
        Finding(each.level, printable(each.text), printable(each.remedy))
        for part in (of_run, of_storage, of_payload, of_failures, of_limits, of_server, of_verdicts)
        for each in part(s, chronicle)
    ]
    if not any(each.level in ("bad", "warn") for each in found):
        found.append(Finding("ok", "Nothing is wrong."))
    return sorted(found, key=lambda each: LEVELS.index(each.level))


def of_run(s: Snapshot, chronicle: Chronicle) -> Iterator[Finding]:
    """Whether somebody is there."""
    if s.note:
        yield Finding("warn", f"Not all is known: {s.note}.", s.next_step)
    if not s.running and s.run_state not in DONE_WITH:
        text = "No pilot runs, and the task is not finished."
        yield Finding("bad", text, s.next_step and f"Go on with it: {s.next_step}")
    if not s.running and s.run_state == "failed":
        told = "The reasons are below." if chronicle.failures else ""
        log = told or f"The reasons are in {s.places.log}."
        yield Finding("bad", "The run has failed.", log)
    if s.deadline.draining:
        step = f", step {s.deadline.step}" if s.deadline.step else ""
        text = f"The pilot drains ({s.deadline.draining}{step}): no more ranges are fetched."
        yield Finding("note", text, "What it leaves is taken up by espilot recover.")


def of_storage(s: Snapshot, chronicle: Chronicle) -> Iterator[Finding]:
    """Whether outputs become safe."""
    if s.storage.state in ("trouble", "given-up"):
        reason = s.storage.reason or "no reason told"
        text = f"The storage does not take outputs: {reason}."
        kept = "Check its credentials, space and address; outputs are kept for when it recovers."
        yield Finding("bad" if s.storage.state == "given-up" else "warn", text, kept)
    if s.storage.state == "behind":
        text = f"The storage is slower than the payload: {s.storage.reason}."
        yield Finding("warn", text, "It goes on by itself; more uploads at a time may help.")
    if s.running and s.stageout.lag_s > LATE_S:
        lag = duration_text(s.stageout.lag_s)
        text = f"The oldest output waits for the storage since {lag}."
        yield Finding(
            "warn", text, "More uploads at a time: [stageout] parallel; see the log for slow ones."
        )
    if chronicle.undecided:
        text = (
            f"The server left {plural(chronicle.undecided, 'report')} undecided; they are repeated."
        )
        yield Finding("note", text)


def of_payload(s: Snapshot, chronicle: Chronicle) -> Iterator[Finding]:
    """Whether the payload works."""
    if chronicle.starts > 1:
        text = f"The payload was started {chronicle.starts} times."
        last = next((m for m in reversed(chronicle.marks) if m[1] == "end"), None)
        why = f" The last: {last[2]}." if last else ""
        well = last is not None and last[2].endswith(": exit code 0")
        where = "" if well else f"Its output: {s.places.workdir}/payload-*/payload.stderr"
        yield Finding("note" if well else "warn", text + why, where)
    median_s = chronicle.median_s
    if s.running and s.counts.sent and median_s is not None:
        silent_s = s.taken_at - max(chronicle.last_outcome, chronicle.first_t)
        if silent_s > max(SILENT_LEAST_S, SILENT_FACTOR * median_s):
            text = (
                f"No outcome from the payload for {duration_text(silent_s)}, "
                f"{silent_s / max(median_s, 1e-3):.1f} times what a range takes in the middle."
            )
            yield Finding("warn", text, f"See what it does: espilot dump {s.places.state_dir}")


def of_failures(s: Snapshot, chronicle: Chronicle) -> Iterator[Finding]:
    """Why ranges failed."""
    for (code, diag), n in chronicle.failures.most_common(MOST_FAILURES):
        example = chronicle.example[code, diag]
        many = "1 range failed" if n == 1 else f"{n:,} times a range failed"
        text = f"{many}: {diag} (code {code})."
        yield Finding("warn", text, f"One of them: espilot explain {example} {s.places.state_dir}")
    if chronicle.returned:
        text = f"{chronicle.returned:,} times a range was taken back, to be handed out again."
        yield Finding("note", text)


def of_limits(s: Snapshot, chronicle: Chronicle) -> Iterator[Finding]:
    """What comes near its limit."""
    for resource in s.resources:
        share = share_of(resource)
        if share is not None and share >= NEAR_LIMIT:
            level = "bad" if share >= 1 else "warn"
            text = f"{resource.name[:1].upper()}{resource.name[1:]} is at {share:.0%} of its limit."
            yield Finding(level, text, "The limits are in the section [limits] of the settings.")


def share_of(resource: Resource) -> float | None:
    """How much of its limit is used; None without a limit."""
    return resource.value / resource.limit if resource.limit else None


def of_server(s: Snapshot, chronicle: Chronicle) -> Iterator[Finding]:
    """Whether the server answers."""
    heard_at = s.roles.get("event-server", {}).get("last_success_at")
    if s.running and isinstance(heard_at, int | float):
        silent_s = max(0.0, s.taken_at - heard_at)
        if silent_s > SERVER_SILENT_S:
            text = f"The server has not answered for {duration_text(silent_s)}."
            yield Finding("bad", text, "Check its address and the credentials; see the log.")
        else:
            yield Finding("ok", f"The server answered {silent_s:.0f} s ago.")


def of_verdicts(s: Snapshot, chronicle: Chronicle) -> Iterator[Finding]:
    """What the rules of supervision found last."""
    for verdict in s.verdicts[-MOST_FAILURES:]:
        level = "note" if verdict.get("action") == "note" else "warn"
        text = f"Verdict by rule {verdict.get('rule')}: {verdict.get('text')}"
        yield Finding(level, text, str(ACTIONS.get(str(verdict.get("action")), "")))
    if not s.verdicts and not s.running:
        for _, kind, text in chronicle.marks:
            if kind == "verdict":
                yield Finding("note", text.capitalize())


ACTIONS = {
    "end-client": "That process of the payload was ended; its range goes on elsewhere.",
    "end-payload": "The payload was ended, and is started again while it may.",
    "end-job": "The job ends; what was made is shipped.",
    "fail-range": "The range is reported as failed.",
    "cut": "Head and tail of the file are kept beside it.",
}
"""What the pilot has done about it."""
