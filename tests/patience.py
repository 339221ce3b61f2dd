"""Waiting for what will come, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], what: str, *, within_s: float = 10.0) -> None:
    """Wait until the condition holds; fail with `what` when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not in {within_s:g} s: {what}"
        threading.Event().wait(0.005)
