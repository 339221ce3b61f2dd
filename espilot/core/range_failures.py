"""Failures of ranges that the dispatcher finds itself: nobody has reported them so."""

from __future__ import annotations

from espilot.model import FailedRange

CRASH_CODE = 1227
"""Pilot error code of a range with which the payload died twice."""
OUTPUT_CODE = 1303
"""Pilot error code of an output that cannot be taken (file operation failed)."""
REPORT_CODE = 1220
"""Pilot error code of a range whose outcome nobody can read (unknown payload failure)."""
MAX_CHARS = 500


def died_again(range_id: str, times: int) -> FailedRange:
    """The payload has died so often with this range alone in hand."""
    diag = f"the payload died {times} times while it had this range in hand"
    return FailedRange(range_id, False, CRASH_CODE, diag)


def not_writable(range_id: str, why: object) -> FailedRange:
    """The dialect of whoever asked cannot carry the range."""
    return FailedRange(range_id, False, OUTPUT_CODE, str(why)[:MAX_CHARS])


def report_refused(range_id: str, why: object) -> FailedRange:
    """Its outcome was reported, in a message that cannot be used."""
    diag = f"the report of its outcome cannot be used: {why}"
    return FailedRange(range_id, False, REPORT_CODE, diag[:MAX_CHARS])
