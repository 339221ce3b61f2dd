"""The whole pilot at servers of either dialect, with many quirks at once; what it tells of its job,
and what it answers when it is asked."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pilot_run import FAKE, job_text
from test_server_faults import pilot_and_server

EVENTS = 60
JOB = job_text(f"{FAKE} --clients 2 --delay-ms 15", events=EVENTS, server={"timeout_s": 3.0})
SWITCHES = {
    "v1_text_plain": False, "v1_repr_without_json_headers": False, "v1_exact_content_type": False,
    "v1_strict_types": False, "legacy_json_always_gunzip": False, "oserror_kills": False,
    "chunked_is_empty": False, "guid_shift": False, "legacy_invalid_state_ok": False,
    "acquire_always_bulk": False, "final_alreadydone": False, "attempt_check": False,
    "v1_bulk_event_update_broken": False, "v1_single_storage_id_500": False,
    "v1_ranges_wrapped": True, "v0_strings": False, "legacy_urlencoded": False,
    "true_for_noop": False, "orphan_tar_rows": False, "close_waiting_consumers": False,
    "refuse_after_final": False, "update_cap": 7, "drop_legacy": 9,
}  # fmt: skip
FAULTS = {
    "http_500": "*", "exception_as_timeout": "acquire_event_ranges", "drop_answer": "update_job",
    "jobs_error_as_none": "*", "update_job_fails_quietly": "*", "metadata_fails": "*",
    "rollback_midway": "*", "rollback_at_commit": "*", "count_refresh_fails": "*",
    "ranges_db_error": "*", "answer_delay": "acquire_event_ranges",
}  # fmt: skip


def draw_quirks(seed: int) -> dict[str, Any]:
    """Some switches and some faults of a few calls each."""
    chance = random.Random(seed)
    switches = {name: SWITCHES[name] for name in chance.sample(sorted(SWITCHES), 6)}
    faults = {
        name: {FAULTS[name]: chance.randint(1, 3)} for name in chance.sample(sorted(FAULTS), 4)
    }
    dialects = "both" if "drop_legacy" in switches else chance.choice(("both", "legacy", "v1"))
    return {"dialects": dialects, "answer_delay_s": 0.3 if "answer_delay" in faults else 0.0,
            **switches, **faults}  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_many_quirks_at_once(tmp_path: Path, seed: int) -> None:
    """Whatever the server's quirks, each range ends booked once or free, and the job ends."""
    quirks = draw_quirks(seed)
    print(f"seed {seed}: {quirks}")  # noqa: T201 (shown when the test fails)
    with pilot_and_server(tmp_path, JOB, **quirks) as (run, _):
        run.require_finished(EVENTS)


@pytest.mark.parametrize("dialects", ["legacy", "v1"])
def test_what_is_told_of_a_job(tmp_path: Path, dialects: str) -> None:
    """The final update has times, figures and the ranges' counts; questions are answered, confined
    to the work directory."""
    job = job_text(f"{FAKE} --clients 2 --delay-ms 40", events=EVENTS, server={"timeout_s": 3.0})
    with pilot_and_server(tmp_path, job, dialects=dialects, command="ls payload-1") as (run, _):
        run.require_finished(EVENTS)
        with closing(sqlite3.connect(run.database, timeout=20)) as db:
            told = json.loads(db.execute("SELECT pilot_fields FROM job").fetchone()[0])
    assert told["job_status"] == "finished" and told["n_events"] == EVENTS
    assert told["start_time"] <= told["end_time"] and len(told["end_time"]) == 19
    assert f"ranges_finished={EVENTS}" in told["job_metrics"]
    assert told["pilot_timing"].count("|") == 5
    [(log, facts)] = json.loads(told["job_output_report"]).items()
    assert log.startswith("log.") and facts["fsize"] == (run.storage / log).stat().st_size
    assert told["job_sub_status"] == "all_success"
    assert "entries" in told["stdout"]


WORKER = {"harvester_id": "H", "worker_id": 17}


@pytest.mark.parametrize("dialects", ["legacy", "v1"])
@pytest.mark.parametrize("fault", ["", "http_500", "drop_answer"])
def test_worker_of_a_harvester_tells_start_and_end(
    tmp_path: Path, dialects: str, fault: str
) -> None:
    """The server hears of both, once; one that fails to hear changes nothing."""
    job = job_text(f"{FAKE} --clients 2", events=20, server={"timeout_s": 3.0}, identity=WORKER)
    quirks = {fault: {"update_worker_status": 9}} if fault else {}
    with pilot_and_server(tmp_path, job, dialects=dialects, **quirks) as (run, _):
        run.require_finished(20)
        log = run.log
        with closing(sqlite3.connect(run.database, timeout=20)) as db:
            query = "SELECT harvester_id, worker_id, state FROM worker"
            told = [] if fault == "http_500" else db.execute(query).fetchall()
    if not fault:
        assert log.count("worker state told state=started") == 1
        assert log.count("worker state told state=finished") == 1
    else:
        assert log.count("worker state not told") >= 1
    assert told == ([] if fault == "http_500" else [("H", "17", "finished")])


def test_worker_state_is_not_told_where_nobody_wants_it(tmp_path: Path) -> None:
    """Without both names, or when it is switched off (-k), the server hears nothing."""
    job = job_text(f"{FAKE} --clients 2", events=20, identity=WORKER | {"tell_worker": False})
    with pilot_and_server(tmp_path, job) as (run, _):
        run.require_finished(20)
        assert "worker state" not in run.log
