"""A job definition may hold whatever a server writes as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espilot.model import Job
from espilot.queue.store import Queue

ODD = ['{"x": "\\ud800"}', '{"\\udc00": 1}', '{"x": 18446744073709551616}', '{"x": [1.5, null]}']


@pytest.mark.parametrize("text", ODD)
def test_the_queue_keeps_any_definition(tmp_path: Path, text: str) -> None:
    """Half a surrogate pair or a huge number, also where nobody looks, costs no job."""
    definition = json.loads(text)
    job = Job(1, 2, 3, 4, 5, ("o",), "log", ("in",), definition=definition)
    queue = Queue(tmp_path, map_bytes=4 << 20)
    with queue.moves() as moves:
        moves.set_job(job, "running", {"before": {"done": 1}})
    record = queue.job()
    queue.close()
    assert record is not None
    assert record.job == job and record.facts == {"before": {"done": 1}}
