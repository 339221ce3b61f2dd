"""Figures and times in words for people."""

from __future__ import annotations

import time


def size_text(size_bytes: float) -> str:
    """`512 B`, `1.5 MB`: powers of ten, as disks and files are counted."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def duration_text(duration_s: float) -> str:
    """`0.25 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if duration_s < 10:
        return f"{duration_s:.2f} s"
    whole = int(duration_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def clock_text(t: float, *, milliseconds: bool = False) -> str:
    """Local time of a Unix time: `2026-11-22 10:00:00`, with milliseconds if asked."""
    try:
        text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))
    except (OverflowError, ValueError, OSError):
        return f"time {t:.0f}"
    return f"{text}.{int(t % 1 * 1000):03d}" if milliseconds else text


def plural(n: int, noun: str) -> str:
    """`1 range`, `2 ranges`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def printable(text: object) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in str(text))
