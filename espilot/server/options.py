"""What can be set on the built-in server: limits, and the quirks of real servers.

A quirk that is on by default is faithful behaviour which a test may switch off; faults are off by
default and hit the next n calls of a function (`module/function`, or the bare function name).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


def _no_calls() -> Mapping[str, int]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Quirks:
    """Switches of faithful behaviour, and injected faults."""

    v1_bulk_event_update_broken: bool = True
    """The bulk update is booked, and its answer lost in a 500 body."""
    v1_single_storage_id_500: bool = True
    v1_text_plain: bool = True
    v1_repr_without_json_headers: bool = True
    v1_exact_content_type: bool = True
    v1_strict_types: bool = True
    v1_ranges_wrapped: bool = False
    acquire_short_timeout_no_jobs: bool = True
    statuses_need_panda_id: bool = True
    refuse_after_final: bool = True
    final_alreadydone: bool = True
    attempt_check: bool = True
    report_checks: bool = True
    true_for_noop: bool = True
    close_waiting_consumers: bool = True
    update_cap: int = 100_000
    answer_delay_s: float = 0.0
    drop_answer: Mapping[str, int] = field(default_factory=_no_calls)
    """Book the call, then close the connection without an answer."""
    http_500: Mapping[str, int] = field(default_factory=_no_calls)
    """Answer a plain-text exception before anything is done."""
    exception_as_timeout: Mapping[str, int] = field(default_factory=_no_calls)
    """Answer "TimeOut", the sign of an exception in the server's database thread."""
    empty_ranges: Mapping[str, int] = field(default_factory=_no_calls)
    """Success with an empty list although ranges are ready."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits of the built-in server; times in seconds."""

    sent_timeout_s: float = 1800.0
    heartbeat_timeout_s: float = 7200.0
    holding_timeout_s: float = 48 * 3600.0
    max_job_attempts: int = 3
    """A task fails after so many jobs in a row without any finished range."""
    quirks: Quirks = field(default_factory=Quirks)


class Faults:
    """Counts down the injected faults of one running server."""

    def __init__(self, quirks: Quirks) -> None:
        self._left = {
            name: dict(getattr(quirks, name))
            for name in ("drop_answer", "http_500", "exception_as_timeout", "empty_ranges")
        }

    def take(self, fault: str, function: str) -> bool:
        """True when `fault` hits this call of `module/function`."""
        left = self._left[fault]
        for key in (function, function.rpartition("/")[2]):
            if left.get(key, 0) > 0:
                left[key] -= 1
                return True
        return False
