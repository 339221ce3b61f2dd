"""The one line that `systemctl status` shows."""

from __future__ import annotations

from dataclasses import replace

from espilot.view.snapshot import NO_COUNTS
from espilot.view.status_line import status_line

COUNTS = replace(NO_COUNTS, finished=312, sent=8, done=1, packed=2)


def test_at_work() -> None:
    """Job, what is safe, what is in work, the rate, what is at risk."""
    run = {"panda_id": 4711, "phase": "running", "life": "running", "storage": "ok"}
    line = status_line(COUNTS, {"run": run, "rates": {"events_per_s": 5.2}}, 0.0)
    assert line == (
        "job 4711 (running, payload running) · 312 reported · 8 running · 5.2 ev/s · tail 3"
    )


def test_trouble_and_drain_are_said() -> None:
    """Why it drains and how far it is, the storage's trouble, and until when."""
    run = {
        "panda_id": 0,
        "storage": "given-up",
        "drain": {"draining": "SIGTERM (15)", "step": "upload", "deadline_in_s": 60.0},
    }
    line = status_line(COUNTS, {"run": run}, 0.0)
    assert line.startswith("draining (SIGTERM (15), upload) · waiting for a job")
    assert "storage given-up" in line
    assert "drain by " in line
    assert "\n" not in line


def test_without_facts() -> None:
    """Before anything is known there is a line too."""
    assert status_line(NO_COUNTS, {}, 0.0) == "waiting for a job · 0 reported · 0 running · tail 0"
