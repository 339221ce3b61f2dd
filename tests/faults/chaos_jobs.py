"""The jobs of a chaos run: each one drawn by seed, with the fake payload and small archives."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from pilot_run import FAKE, job_text

FAULTS = (
    "",
    "",
    "",
    "--fail-every 9",
    "--parse-error-every 11",
    "--missing-file 8",
    "--empty-file 8",
    "--path-outside 9",
    "--garbage 5",
    "--oversize 13",
    "--report-twice 3",
    "--report-unknown 4",
    "--crash-after 15",
    "--crash-after 15 --crash-how segv",
    "--exit-early 20",
    "--hang-after 25",
    "--orphans 2 --spawn 1",
    "--ignore-term",
)
"""What the payload itself does wrong, in some jobs. A change after the report is not among them:
whether the pilot looks before or after it is chance, and both are right."""

QUICK: dict[str, dict[str, Any]] = {
    "server": {"retry_min_s": 0.05, "retry_max_s": 0.3, "timeout_s": 3.0, "heartbeat_s": 2.0},
    "stageout": {"retry_min_s": 0.05, "retry_max_s": 0.3, "storage_wait_s": 60.0},
    "limits": {
        "silent_s": 2.5,
        "role_restarts": 1000,
        "role_window_s": 1.0,
        "work_ahead_s": 0.5,
        "settle_s": 60.0,
    },
}
"""A role may die as often as it likes, and nothing waits long."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """One job, and what its outputs must be."""

    text: str
    events: int
    names: tuple[str, ...]
    size_bytes: int
    switches: str


def draw_job(chance: Random) -> JobPlan:
    """A job of some seconds for two cores."""
    clients, delay_ms = chance.choice((1, 2, 2, 3)), chance.choice((0, 5, 15, 30))
    size_bytes = chance.choice((100, 100, 3000, 200_000))
    names = chance.choice((("output",), ("output",), ("output", "output2")))
    events = chance.randrange(60, 300)
    switches = (
        f"--clients {clients} --delay-ms {delay_ms} --jitter-ms 5 --outsize {size_bytes}"
        f" --nfiles {len(names)} --dialect {chance.choice(('text', 'native'))}"
        f" --outstanding {chance.choice((1, 1, 3))} {chance.choice(FAULTS)}"
    )
    payload = {
        "cores": clients,
        "term_grace_s": 1.0,
        "exit_grace_s": 5.0,
        "hang_s": 4.0,
        "restarts": 1000,
        "restart_window_s": 1.0,
    }
    text = job_text(
        f"{FAKE} {switches}",
        events=events,
        # Every death of the payload may cost the ranges in its hands an attempt.
        task={"max_attempts": 100, "outputs": list(names)},
        payload=payload,
        packing={
            "max_ranges": chance.choice((3, 10, 40)),
            "max_age_s": chance.choice((0.1, 0.5, 1.5)),
        },
        **QUICK,
    )
    return JobPlan(text, events, names, size_bytes, switches)
