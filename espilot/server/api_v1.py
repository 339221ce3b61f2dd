"""The functions of the v1 API, and the local ones beside it: parameters in, answer out.

Everything that is booked is committed before an answer is made.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from espilot.errors import MessageError, UsageError
from espilot.server import answers, parameters
from espilot.server.answers import Answer
from espilot.server.options import Faults, Quirks
from espilot.server.store import Store
from espilot.server.tasks import read_new_task
from espilot.wire.panda_legacy import METHODS
from espilot.wire.panda_reports import FINAL_STATUSES, IGNORED_STATUSES, RangeUpdate, read_updates
from espilot.wire.panda_v1 import JOB_STATES, UPDATE_JOB

Values = Mapping[str, Any]
LEGACY_NAMES = {method.function: method.name for method in METHODS.values()}
_LOG = logging.getLogger(__name__)


class Api:
    """The API of one server. `now` is a clock in Unix seconds."""

    def __init__(
        self, store: Store, quirks: Quirks, faults: Faults, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._quirks = quirks
        self._faults = faults
        self._now = now

    def answer(self, name: str, values: Values) -> Answer:
        """Carry out `module/function` with checked parameters."""
        names = name, LEGACY_NAMES.get(name, name)
        if self._faults.take("http_500", *names):
            return answers.crash("an exception was asked for")
        if self._faults.take("exception_as_timeout", *names):
            return answers.fail(answers.TIME_OUT)
        try:
            return _FUNCTIONS[name](self, values)
        except UsageError as error:
            return answers.fail(f"Argument error: {error}")
        except sqlite3.Error:
            _LOG.exception("database call failed", extra={"action": name})
            return answers.fail(answers.DATABASE_ERROR)

    def is_alive(self, values: Values) -> Answer:
        """`system/is_alive`."""
        return answers.succeed(None)

    def acquire_jobs(self, values: Values) -> Answer:
        """`pilot/acquire_jobs`: always the bulk form, even for one job."""
        timeout = values["timeout"]
        hasty = timeout is not None and timeout <= 10
        if hasty and self._quirks.acquire_short_timeout_no_jobs:
            return answers.fail(answers.NO_JOBS)
        if self._faults.take("jobs_error_as_none", "pilot/acquire_jobs", "getJob"):
            return answers.fail(answers.NO_JOBS)
        jobs = self._store.acquire_jobs(values, self._now())
        if not jobs:
            return answers.fail(answers.NO_JOBS)
        if len(jobs) == 1 and not self._quirks.acquire_always_bulk:
            return answers.succeed(jobs[0])
        return answers.succeed({"StatusCode": 0, "jobs": jobs})

    def get_job_status(self, values: Values) -> Answer:
        """`pilot/get_job_status`."""
        return answers.succeed(self._store.job_statuses(values["job_ids"]))

    def update_job(self, values: Values) -> Answer:
        """`pilot/update_job`: success is true even when the server failed."""
        names = "pilot/update_job", "updateJob"
        if values["job_status"] not in JOB_STATES:
            return answers.fail("invalid job status", {"StatusCode": 50})
        if values["meta_data"] and self._faults.take("metadata_fails", *names):
            diag = "the metadata cannot be stored"
            return answers.succeed({"StatusCode": 30, "ErrorDiag": diag})
        if self._faults.take("update_job_fails_quietly", *names):
            return answers.succeed({"StatusCode": 30})
        if self._faults.take("forget_job", *names):
            self._store.forget_job(values["job_id"], self._now())
        command = self._store.update_job(self._given(values), self._now())
        return answers.succeed({"StatusCode": 0, "command": command})

    def _given(self, values: Values) -> dict[str, Any]:
        """What was given of a job update."""
        given = {name: value for name, value in values.items() if value is not None}
        if self._quirks.v1_rates_divided:
            for name in (key for key in given if key.startswith("rate_")):
                given[name] = given[name] / 1024
        return given

    def update_jobs(self, values: Values) -> Answer:
        """`pilot/update_jobs_bulk`: what was updated before an exception stays so."""
        done = []
        items = values["job_list"]
        for item in items if isinstance(items, list) else []:
            if self._faults.take("bulk_job_update_aborts", "pilot/update_jobs_bulk"):
                return answers.fail("an exception was asked for", [])
            try:
                checked = parameters.check(UPDATE_JOB, item, strict=self._quirks.v1_strict_types)
            except (parameters.BadRequest, parameters.BrokenRequest, TypeError) as error:
                return answers.fail(f"failed: {error}"[:200], [])
            done.append(self.update_job(checked).envelope)
        return answers.succeed(done)

    def update_worker(self, values: Values) -> Answer:
        """`pilot/update_worker_status`: success even when there is no such worker."""
        self._store.update_worker(values, self._now())
        return answers.succeed(None)

    def count_ranges(self, values: Values) -> Answer:
        """`event/get_available_event_range_count`."""
        n = self._store.count_ready(values["job_id"], values["jobset_id"])
        return answers.succeed(n)

    def range_statuses(self, values: Values) -> Answer:
        """`event/get_event_range_statuses`."""
        try:
            pairs = self._read_pairs(values["job_task_ids"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return answers.fail(answers.DATABASE_ERROR)
        return answers.succeed(self._store.range_statuses(pairs))

    def _read_pairs(self, text: str) -> list[tuple[int, int]]:
        """(task, job) pairs; the documented key `job_id` is not the one that the code needs."""
        pairs = []
        for item in json.loads(text):
            if not self._quirks.statuses_need_panda_id and "panda_id" not in item:
                item = {**item, "panda_id": item["job_id"]}
            pair = int(item["task_id"]), int(item["panda_id"])
            if max(map(abs, pair)) >= 2**63:
                raise ValueError("number too large")
            pairs.append(pair)
        return pairs

    def acquire_ranges(self, values: Values) -> Answer:
        """`event/acquire_event_ranges`: a bare list."""
        names = "event/acquire_event_ranges", "getEventRanges"
        if self._faults.take("ranges_db_error", *names):
            return answers.fail(answers.DATABASE_ERROR)
        if self._faults.take("empty_ranges", *names):
            return answers.succeed([])
        ranges = self._store.acquire_ranges(values)
        if self._quirks.v1_ranges_wrapped:
            return answers.succeed({"StatusCode": 0, "eventRanges": ranges})
        return answers.succeed(ranges)

    def update_range(self, values: Values) -> Answer:
        """`event/update_single_event_range`: as version 0; the map of commands is a string."""
        status = values["event_range_status"]
        update = RangeUpdate(values["event_range_id"], status)
        entries, commands = self._store.update_ranges([update])
        data = {"Command": json.dumps(commands)}
        if entries != [False] and status in FINAL_STATUSES:
            return answers.succeed(data)
        if status in IGNORED_STATUSES:
            return Answer(success=None, data=data)
        return answers.fail(answers.DATABASE_ERROR, data)

    def update_ranges(self, values: Values) -> Answer:
        """`event/update_event_ranges`: booked, then answered as broken servers do."""
        version = values["version"] or 0
        broken = self._quirks.v1_bulk_event_update_broken
        try:
            updates = read_updates(values["event_ranges"], version)
        except MessageError:
            if not self._quirks.unparsable_quote_e:
                return answers.fail("event_ranges is not JSON")
            return answers.answer_unreadable_update(broken=broken)
        entries, commands = self._store.update_ranges(updates, self._fault_of_update())
        in_strings = version == 0 and self._quirks.v0_strings
        return answers.answer_bulk_update(entries, commands, broken=broken, in_strings=in_strings)

    def _fault_of_update(self) -> str:
        names = "event/update_event_ranges", "updateEventRanges"
        faults = ("rollback_midway", "rollback_at_commit", "count_refresh_fails")
        return next((fault for fault in faults if self._faults.take(fault, *names)), "")

    def set_command(self, values: Values) -> Answer:
        """`local/set_command`: what the job's pilot shall hear; "" takes it back."""
        self._store.set_command(values["job_id"], values["command"])
        return answers.succeed(None)

    def create_task(self, values: Values) -> Answer:
        """`local/create_task`."""
        return answers.succeed(self._store.create_task(read_new_task(values), self._now()))

    def task_status(self, values: Values) -> Answer:
        """`local/task_status`."""
        return answers.succeed(self._store.task_status(values["task_id"]))

    def event_rows(self, values: Values) -> Answer:
        """`local/event_rows`."""
        return answers.succeed(self._store.event_rows(values["task_id"]))


_FUNCTIONS: Mapping[str, Callable[[Api, Values], Answer]] = MappingProxyType(
    {
        "system/is_alive": Api.is_alive,
        "pilot/acquire_jobs": Api.acquire_jobs,
        "pilot/get_job_status": Api.get_job_status,
        "pilot/update_job": Api.update_job,
        "pilot/update_jobs_bulk": Api.update_jobs,
        "pilot/update_worker_status": Api.update_worker,
        "event/get_available_event_range_count": Api.count_ranges,
        "event/get_event_range_statuses": Api.range_statuses,
        "event/acquire_event_ranges": Api.acquire_ranges,
        "event/update_single_event_range": Api.update_range,
        "event/update_event_ranges": Api.update_ranges,
        "local/create_task": Api.create_task,
        "local/set_command": Api.set_command,
        "local/task_status": Api.task_status,
        "local/event_rows": Api.event_rows,
    }
)
