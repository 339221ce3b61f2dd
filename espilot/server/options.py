"""What can be set on the built-in server: limits, and the quirks of real servers.

A quirk that is on by default is faithful behaviour which a test may switch off; faults are off by
default and hit the next n calls of a function, given by the name of either dialect, with or without
its module; `*` means any function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from espilot.server.brokerage import Endpoint, Queue


def _no_calls() -> Mapping[str, int]:
    return MappingProxyType({})


def quirk(default: Any, doc: str) -> Any:
    """A switch with its one-sentence description."""
    return field(default=default, metadata={"doc": doc})


def fault(doc: str) -> Any:
    """A fault, off by default, that hits a number of calls."""
    return field(default_factory=_no_calls, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class Quirks:
    """Switches of faithful behaviour, and injected faults."""

    dialects: str = quirk("both", "legacy, v1 or both; absent methods answer 403.")
    drop_legacy: int = quirk(-1, "The legacy dialect disappears after so many calls of it.")
    v1_text_plain: bool = quirk(True, "JSON answers of v1 are labelled as plain text.")
    v1_repr_without_json_headers: bool = quirk(
        True, "v1 answers with a Python literal unless a header equals JSON."
    )
    v1_exact_content_type: bool = quirk(True, "JSON with a charset suffix is read as a form.")
    v1_strict_types: bool = quirk(True, "An int is no float in v1.")
    legacy_json_always_gunzip: bool = quirk(True, "JSON bodies of legacy calls are gunzipped.")
    oserror_kills: bool = quirk(True, "Bad gzip or a short body ends all connections of a process.")
    chunked_is_empty: bool = quirk(True, "A request without a length has an empty body.")
    caller_role: str = quirk("production", "Role of every caller: production, pilot or user.")
    production_role_only: bool = quirk(True, "v1 refuses the pilot role.")
    legacy_plain_sentences: bool = quirk(
        True, "Legacy event calls refuse a role with a bare sentence."
    )
    need_origin: bool = quirk(True, "A token without the Origin header is refused.")
    reject_token: bool = quirk(False, "Every token is refused.")
    ban_user: bool = quirk(False, "Every caller is banned.")
    acquire_short_timeout_no_jobs: bool = quirk(True, "v1 finds no job within a timeout of 10 s.")
    acquire_always_bulk: bool = quirk(True, "v1 answers with a list of jobs even for one.")
    guid_shift: bool = quirk(True, "An empty first GUID shifts the list of GUIDs.")
    legacy_invalid_state_ok: bool = quirk(
        True, "Legacy answers a bad state or lost metadata with success and no command."
    )
    v1_rates_divided: bool = quirk(True, "v1 divides rates by 1024.")
    report_checks: bool = quirk(True, "A bad output report fails the job.")
    command: str = quirk("", "Command stored for every job that is handed out.")
    final_alreadydone: bool = quirk(True, "A repeated final update is answered alreadydone.")
    batch_id_check: bool = quirk(True, "Another batch id means that the job is to be killed.")
    attempt_check: bool = quirk(True, "Another attempt means that the job is to be killed.")
    v1_bulk_event_update_broken: bool = quirk(
        True, "The bulk update of v1 is booked, and its answer lost in a 500 body."
    )
    v1_single_storage_id_500: bool = quirk(True, "A storage id in the single update ends in 500.")
    v1_ranges_wrapped: bool = quirk(False, "v1 wraps ranges in an object.")
    v0_strings: bool = quirk(True, "Version-0 answers are JSON inside strings.")
    unparsable_quote_e: bool = quirk(True, "Unreadable updates are answered with a quote and E.")
    legacy_urlencoded: bool = quirk(
        True, "Some legacy methods answer with forms, whatever is asked."
    )
    true_for_noop: bool = quirk(True, "An update that changes nothing is answered true.")
    update_cap: int = quirk(100_000, "Ranges of one update beyond it are ignored.")
    strict_zip_keys: bool = quirk(True, "An archive without name or storage aborts the batch.")
    orphan_tar_rows: bool = quirk(True, "A repeat with another archive inserts a row.")
    close_waiting_consumers: bool = quirk(True, "A drained pool closes waiting jobs.")
    statuses_need_panda_id: bool = quirk(True, "The documented key of the status call fails.")
    refuse_after_final: bool = quirk(True, "Reports after the final update are refused.")
    partial_merge_fails: bool = quirk(False, "A unit with hopeless ranges fails even when partial.")
    tar_hides_loose_files: bool = quirk(
        True, "Archives of a job hide its loose files from merging."
    )
    answer_delay_s: float = quirk(0.0, "Seconds of a delayed answer; alone it delays every answer.")
    answer_delay: Mapping[str, int] = fault("Answer late.")
    drop_answer: Mapping[str, int] = fault("Book the call, then close the connection.")
    http_500: Mapping[str, int] = fault("A plain-text exception before anything is done.")
    exception_as_timeout: Mapping[str, int] = fault("Time-out, the sign of an exception.")
    jobs_error_as_none: Mapping[str, int] = fault("A database error, told as no jobs.")
    update_job_fails_quietly: Mapping[str, int] = fault("Success around StatusCode 30.")
    metadata_fails: Mapping[str, int] = fault("Metadata cannot be stored.")
    bulk_job_update_aborts: Mapping[str, int] = fault("A bulk update of jobs stops half-way.")
    forget_job: Mapping[str, int] = fault("The job of an update vanishes.")
    rollback_midway: Mapping[str, int] = fault("Nothing is stored; a short list and false.")
    rollback_at_commit: Mapping[str, int] = fault("Nothing is stored; a full list and false.")
    count_refresh_fails: Mapping[str, int] = fault("All is stored; a full list and false.")
    empty_ranges: Mapping[str, int] = fault("An empty list although ranges are ready.")
    ranges_db_error: Mapping[str, int] = fault("A database error while handing out ranges.")


FAULTS = tuple(entry.name for entry in fields(Quirks) if entry.default_factory is _no_calls)
"""Names of the switches that count calls."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits of the built-in server; times in seconds."""

    sent_timeout_s: float = 1800.0
    heartbeat_timeout_s: float = 7200.0
    holding_timeout_s: float = 48 * 3600.0
    urgent_holding_timeout_s: float = 3 * 3600.0
    """The same for jobs of high priority."""
    max_job_attempts: int = 3
    """A task fails after so many jobs in a row without any finished range."""
    queues: Mapping[str, Queue] = field(default_factory=dict)
    """Queues by name; one that is not there takes everything but jumbo jobs."""
    endpoints: Mapping[int, Endpoint] = field(default_factory=dict)
    """Storage endpoints by id, for the place of merge jobs."""
    quirks: Quirks = field(default_factory=Quirks)


class Faults:
    """Counts down the injected faults of one running server."""

    def __init__(self, quirks: Quirks) -> None:
        self._left = {name: dict(getattr(quirks, name)) for name in FAULTS}

    def take(self, fault: str, *functions: str) -> bool:
        """True when `fault` hits this call, known under some names (`module/function`, method)."""
        left = self._left[fault]
        for key in (*functions, *(name.rpartition("/")[2] for name in functions), "*"):
            if left.get(key, 0) > 0:
                left[key] -= 1
                return True
        return False
