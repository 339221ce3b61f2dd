"""Many pilots at one built-in server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_fifty_pilots_and_twenty_thousand_ranges() -> None:
    """In both dialects no range is handed out twice, none is lost, no request takes over 2 s."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "server"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    # The bench itself fails when a range was drawn twice or is not booked.
    assert done.returncode == 0, done.stderr
    rows = {row["case"]: row["value"] for row in map(json.loads, done.stdout.splitlines())}
    assert rows["legacy slowest"] < 2.0 and rows["v1 slowest"] < 2.0
