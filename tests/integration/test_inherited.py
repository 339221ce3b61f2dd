"""Processes that were below us before we started anything are not the payload's."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, subprocess, sys
from espilot.adapters import process
from espilot.supervisor.payload import inherited_processes, sweep_strangers
helper = subprocess.Popen(["sleep", "300"])
inherited = inherited_processes()
stranger = subprocess.Popen(["sleep", "300"])
killed = sweep_strangers(set(), inherited)
print(killed, stranger.wait(20), helper.poll())
helper.kill()
helper.wait()
"""


def test_a_helper_of_whoever_became_us_is_spared() -> None:
    """A wrapper that starts a helper and then becomes the pilot by exec keeps it."""
    argv = [sys.executable, "-c", CODE]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["1", "-9", "None"]
