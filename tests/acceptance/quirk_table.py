"""Every quirk of the built-in server away from its default, for each kind of job and each dialect.

A *case* is one quirk, with what else must happen for it to be seen. What no pilot ever provokes is
one case for all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from quirk_cells import KINDS, Cell

from espilot.server.options import FAULTS, Quirks

OFF, ON = False, True
BOTH = ("legacy", "v1")
UPDATE, UPDATE_RANGES = "pilot/update_job", "event/update_event_ranges"
ASK, ASK_RANGES = "pilot/acquire_jobs", "event/acquire_event_ranges"


@dataclass(frozen=True)
class Case:
    """Some switches that show one quirk. `heals_after` so many calls somebody mends the server.

    `ends` has the fate of the task where it is not finished, by kind. `kinds`: those whose jobs
    meet the quirk; to the pilot a jumbo job is an event job, so it has those of ranges and of the
    end of jobs. A normal job is what a merge job is, and the latter follows each event job.
    `is_missed`: no pilot makes the call that the fault hits.
    """

    switches: dict[str, Any]
    dialects: tuple[str, ...] = BOTH
    heals_after: int = 0
    ends: dict[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("normal", "event")
    is_missed: bool = False


RANGES = ("event", "jumbo")
LOST = {"normal": "failed"}
"""The one job of its task was lost: whether there is another is up to the task's system."""

CASES = (
    # Nobody provokes these: no JSON to legacy, true lengths and labels, no single or bulk updates
    # of other kinds, no version 0, whole archives, the right key, the right attempt and batch.
    Case(
        {
            "chunked_is_empty": OFF, "oserror_kills": OFF, "legacy_json_always_gunzip": OFF,
            "v1_exact_content_type": OFF, "v1_strict_types": OFF, "v1_single_storage_id_500": OFF,
            "v0_strings": OFF, "unparsable_quote_e": OFF, "strict_zip_keys": OFF,
            "statuses_need_panda_id": OFF, "attempt_check": OFF, "batch_id_check": OFF,
            "report_checks": OFF, "tar_hides_loose_files": OFF, "partial_merge_fails": ON,
        },
        kinds=KINDS,
    ),
    Case({"drop_legacy": 4, "dialects": "both"}, ("legacy",), kinds=KINDS),
    Case({"v1_text_plain": OFF}, ("v1",)),
    Case({"v1_repr_without_json_headers": OFF}, ("v1",)),
    Case({"caller_role": "pilot"}, ("legacy",)),
    Case({"caller_role": "pilot", "production_role_only": OFF}, ("v1",)),
    Case({"caller_role": "pilot"}, ("v1",), heals_after=8),
    Case({"caller_role": "user"}, heals_after=8),
    Case({"caller_role": "user", "legacy_plain_sentences": OFF}, ("legacy",), heals_after=8),
    Case({"need_origin": OFF}),
    Case({"reject_token": ON}, heals_after=8),
    Case({"ban_user": ON}, heals_after=8),
    Case({"acquire_short_timeout_no_jobs": OFF}, ("v1",)),
    Case({"acquire_always_bulk": OFF}, ("v1",)),
    Case({"guid_shift": OFF}, kinds=RANGES),
    Case({"legacy_invalid_state_ok": OFF, "metadata_fails": {UPDATE: 1}}, ("legacy",),
         kinds=("normal",)),
    Case({"v1_rates_divided": OFF}, ("v1",)),
    Case({"command": "debug,ls ."}),
    Case({"command": "tobekilled"}, heals_after=6, ends=LOST, kinds=KINDS),
    Case({"final_alreadydone": OFF, "drop_answer": {UPDATE: 4}}),
    Case({"v1_bulk_event_update_broken": OFF}, ("v1",), kinds=RANGES),
    Case({"v1_ranges_wrapped": ON}, ("v1",), kinds=RANGES),
    Case({"legacy_urlencoded": OFF}, ("legacy",)),
    Case({"true_for_noop": OFF, "drop_answer": {UPDATE_RANGES: 1}}, kinds=RANGES),
    Case({"orphan_tar_rows": OFF, "drop_answer": {UPDATE_RANGES: 2}}, kinds=RANGES),
    Case({"update_cap": 1}, kinds=RANGES),
    Case({"close_waiting_consumers": OFF}, kinds=RANGES),
    Case({"refuse_after_final": OFF}, kinds=RANGES),
    Case({"answer_delay_s": 0.1}),
    Case({"answer_delay_s": 2.5, "answer_delay": {UPDATE: 1}}),
    Case({"answer_delay_s": 2.5, "answer_delay": {UPDATE_RANGES: 1}}, kinds=RANGES),
    Case({"answer_delay_s": 2.5, "answer_delay": {ASK_RANGES: 1}}, kinds=RANGES),
    Case({"drop_answer": {ASK: 1}}, ends=LOST, kinds=KINDS),
    Case({"drop_answer": {UPDATE: 2}}, kinds=KINDS),
    Case({"drop_answer": {ASK_RANGES: 1}}, kinds=RANGES),
    Case({"drop_answer": {"system/is_alive": 1, "isAlive": 1}}, is_missed=True),
    Case({"drop_answer": {UPDATE_RANGES: 1, "event/get_event_range_statuses": 1}},
         kinds=RANGES),
    Case({"http_500": {"*": 5}}, kinds=KINDS),
    Case({"http_500": {UPDATE_RANGES: 3}}, kinds=RANGES),
    Case({"exception_as_timeout": {"*": 5}}),
    Case({"exception_as_timeout": {UPDATE_RANGES: 3}}, kinds=RANGES),
    Case({"jobs_error_as_none": {"*": 2}}),
    Case({"update_job_fails_quietly": {"*": 4}}),
    Case({"metadata_fails": {"*": 1}}, kinds=("normal",)),
    Case({"bulk_job_update_aborts": {"*": 1}}, is_missed=True),
    Case({"forget_job": {"*": 1}}, ends=LOST, kinds=KINDS),
    Case({"rollback_midway": {"*": 2}}, kinds=RANGES),
    Case({"rollback_at_commit": {"*": 2}}, kinds=RANGES),
    Case({"count_refresh_fails": {"*": 2}}, kinds=RANGES),
    Case({"empty_ranges": {"*": 1}}, kinds=RANGES),
    Case({"ranges_db_error": {"*": 2}}, kinds=RANGES),
)  # fmt: skip
ALONE = frozenset({"dialects", "caller_role", "command", "reject_token", "ban_user"})
"""Not in random sets: they end the talk, or choose who talks."""
N_SETS = 8


def cells_of(dialect: str) -> list[Cell]:
    """All cases of one dialect, for all kinds of jobs."""
    return [
        Cell(
            dialect,
            kind,
            tuple(sorted(case.switches.items())),
            heals_after=case.heals_after,
            ends=case.ends.get(kind, "finished"),
            takes_faults=not case.is_missed,
        )
        for case in CASES
        if dialect in case.dialects
        for kind in case.kinds
    ]


def random_cells() -> list[Cell]:
    """Sets of switches and faults, the same in every process; either dialect, or both at once."""
    return list(_random_cells(random.Random("quirks")))


def _random_cells(chance: random.Random) -> Iterator[Cell]:
    pool = {name: value for case in CASES for name, value in case.switches.items()
            if name not in ALONE}  # fmt: skip
    # Losing a job is a case of its own: here every job has to come to its end.
    pool.pop("forget_job")
    for n in range(N_SETS):
        names = chance.sample(sorted(set(pool) - set(FAULTS) - {"drop_legacy"}), 6)
        names += chance.sample(sorted(set(pool) & set(FAULTS)), 3)
        switches = {name: pool[name] for name in names}
        for name in set(names) & set(FAULTS):
            switches[name] = {chance.choice((UPDATE, UPDATE_RANGES, ASK_RANGES)): 2}
        switches["answer_delay_s"] = 0.2 if "answer_delay" in names else 0.0
        dialect = ("legacy", "v1", "both")[n % 3]
        if dialect == "both":
            switches["drop_legacy"] = chance.randrange(2, 12)
        for kind in KINDS:
            yield Cell(dialect, kind, tuple(sorted(switches.items())), label=f"set{n}")


def untested() -> set[str]:
    """Quirks that no case turns over."""
    told = {name for case in CASES for name in case.switches}
    return {entry.name for entry in fields(Quirks)} - told
