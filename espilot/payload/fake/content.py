"""What the fake payload writes, so that a checker can tell a right output from a wrong one."""

from __future__ import annotations


def expected_content(range_id: str, size_bytes: int) -> bytes:
    """Return the bytes of an output: the id and a newline, then dots; cut to the size."""
    head = header(range_id)
    return (head + b"." * (size_bytes - len(head)))[:size_bytes]


def header(range_id: str) -> bytes:
    """Return how an output begins."""
    return range_id.encode() + b"\n"
