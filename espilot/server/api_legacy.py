"""The methods of the legacy API: parameters as strings in, answer out.

Everything that is booked is committed before an answer is made. What a method does is in the store;
here are its shapes and its own ways to fail.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from espilot.errors import MessageError
from espilot.server import legacy_answers
from espilot.server.legacy_answers import LegacyAnswer
from espilot.server.options import Faults, Quirks
from espilot.server.store import Store
from espilot.wire import panda_legacy as legacy
from espilot.wire import panda_v1
from espilot.wire.panda_legacy import Method
from espilot.wire.panda_reports import FINAL_STATUSES, RangeUpdate, read_updates
from espilot.wire.panda_v1 import JOB_STATES, Kind

Values = Mapping[str, str]
_LOG = logging.getLogger(__name__)
_DEFAULT_RANGES, _UNREADABLE_RANGES = 10, 8
_NO_WORKER_STATE = "the status of a worker is started or finished"
_NO_JOBS = "no jobs in PanDA"


class LegacyApi:
    """The API of one server. `now` is a clock in Unix seconds."""

    def __init__(
        self, store: Store, quirks: Quirks, faults: Faults, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._quirks = quirks
        self._faults = faults
        self._now = now

    def answer(self, method: Method, given: Mapping[str, str]) -> LegacyAnswer:
        """Carry out a method with the parameters as they came."""
        names = method.function, method.name
        for name in given:
            if name not in method.names:
                return _crash(f"{method.name}() got an unexpected keyword argument '{name}'")
        for name in method.required:
            if name not in given:
                return _crash(f"{method.name}() missing a required argument: '{name}'")
        if self._faults.take("http_500", *names):
            return _crash("an exception was asked for")
        if self._faults.take("exception_as_timeout", *names):
            return legacy_answers.code(legacy.TIME_OUT, "database timeout")
        values = {new: given[old] for old, new in method.names.items() if new and old in given}
        try:
            return _FUNCTIONS[method.name](self, values)
        except sqlite3.Error:
            _LOG.exception("database call failed", extra={"action": method.name})
            return legacy_answers.code(legacy.FAILED)

    def is_alive(self, values: Values) -> LegacyAnswer:
        """`isAlive`."""
        return LegacyAnswer(text=legacy.ALIVE)

    def get_job(self, values: Values) -> LegacyAnswer:
        """`getJob`: one flat definition, or `jobs` when a number was given, even 1."""
        if self._faults.take("jobs_error_as_none", "pilot/acquire_jobs", "getJob"):
            return legacy_answers.code(legacy.NO_JOBS, _NO_JOBS)
        jobs = self._store.acquire_jobs(_typed(panda_v1.ACQUIRE_JOBS, values), self._now())
        if not jobs:
            return legacy_answers.code(legacy.NO_JOBS, _NO_JOBS)
        if "n_jobs" in values:
            in_form = {"jobs": json.dumps(jobs)}
            return LegacyAnswer({"StatusCode": legacy.SUCCESS, "jobs": jobs}, in_form)
        return LegacyAnswer(jobs[0])

    def update_job(self, values: Values) -> LegacyAnswer:
        """`updateJob`."""
        return LegacyAnswer(self._update_job(values))

    def _update_job(self, values: Values) -> dict[str, Any]:
        given = _typed(panda_v1.UPDATE_JOB, values)
        usable = given.get("job_status") in JOB_STATES and "job_id" in given
        stored = "meta_data" not in given or not self._faults.take(
            "metadata_fails", "pilot/update_job", "updateJob"
        )
        if not usable or not stored:
            ok = self._quirks.legacy_invalid_state_ok
            return {"StatusCode": legacy.SUCCESS if ok else legacy.FAILED}
        if self._faults.take("update_job_fails_quietly", "pilot/update_job", "updateJob"):
            return {"StatusCode": legacy.FAILED}
        if self._faults.take("forget_job", "pilot/update_job", "updateJob"):
            self._store.forget_job(given["job_id"], self._now())
        command = self._store.update_job(given, self._now())
        return {"StatusCode": legacy.SUCCESS, "command": command}

    def update_jobs(self, values: Values) -> LegacyAnswer:
        """`updateJobsInBulk`: a pair, whose items are encoded twice."""
        try:
            items = json.loads(values["job_list"])
            answers = []
            for item in items:
                if self._faults.take("bulk_job_update_aborts", "updateJobsInBulk"):
                    return LegacyAnswer([False, "an exception was asked for"])
                named = {n: str(item[o]) for o, n in legacy.UPDATE_JOB.names.items() if o in item}
                answer = json.dumps(self._update_job(named))
                answers.append({"type": "json", "content": answer})
        except (ValueError, TypeError, RecursionError) as error:
            return LegacyAnswer([False, f"{type(error).__name__}"])
        return LegacyAnswer([True, answers])

    def get_status(self, values: Values) -> LegacyAnswer:
        """`getStatus`: blank-separated lists in a form."""
        rows = self._store.job_statuses(_ids(values["ids"]))
        states = " ".join(str(row["status"]).replace(" ", "") for row in rows)
        attempts = " ".join(str(row["attempt_number"]) for row in rows)
        return legacy_answers.code(legacy.SUCCESS, status=states, attemptNr=attempts)

    def check_job_status(self, values: Values) -> LegacyAnswer:
        """`checkJobStatus`: status and command of each job."""
        return legacy_answers.code(
            legacy.SUCCESS, data=self._store.job_commands(_ids(values["ids"]))
        )

    def get_ranges(self, values: Values) -> LegacyAnswer:
        """`getEventRanges`."""
        names = "event/acquire_event_ranges", "getEventRanges"
        if self._faults.take("ranges_db_error", *names):
            return legacy_answers.code(legacy.FAILED)
        wanted = _typed(panda_v1.ACQUIRE_RANGES, values)
        if "n_ranges" in values:
            wanted.setdefault("n_ranges", _UNREADABLE_RANGES)
        empty = self._faults.take("empty_ranges", *names) or "job_id" not in wanted
        ranges = [] if empty else self._store.acquire_ranges(wanted)
        fields = {"StatusCode": legacy.SUCCESS, "eventRanges": ranges}
        return LegacyAnswer(fields, {"eventRanges": json.dumps(ranges)})

    def update_range(self, values: Values) -> LegacyAnswer:
        """`updateEventRange`: only an accepted final status is a success."""
        status = values["event_range_status"]
        update = RangeUpdate(values["event_range_id"], status)
        entries, commands = self._store.update_ranges([update])
        if entries != [True] or status not in FINAL_STATUSES:
            return legacy_answers.code(legacy.FAILED)
        return legacy_answers.code(legacy.SUCCESS, Command=json.dumps(commands))

    def update_ranges(self, values: Values) -> LegacyAnswer:
        """`updateEventRanges`."""
        text = values.get("version", "0")
        version = int(text) if text in ("0", "1", "2") else 0
        try:
            updates = read_updates(values["event_ranges"], version)
        except MessageError:
            if not self._quirks.unparsable_quote_e:
                return legacy_answers.code(legacy.FAILED)
            return legacy_answers.code(legacy.SUCCESS, Returns='"', Command="E")
        entries, commands = self._store.update_ranges(updates, self._fault_of_update())
        if version == 0 and self._quirks.v0_strings:
            told = {"Returns": json.dumps(entries), "Command": json.dumps(commands)}
            return legacy_answers.code(legacy.SUCCESS, **told)
        fields = {"Returns": entries, "Command": dict(commands)}
        by_number = {int(panda_id): command for panda_id, command in commands.items()}
        in_form = {"Returns": repr(entries), "Command": repr(by_number)}
        return LegacyAnswer({"StatusCode": legacy.SUCCESS, **fields}, in_form)

    def _fault_of_update(self) -> str:
        names = "event/update_event_ranges", "updateEventRanges"
        faults = ("rollback_midway", "rollback_at_commit", "count_refresh_fails")
        return next((fault for fault in faults if self._faults.take(fault, *names)), "")

    def check_events(self, values: Values) -> LegacyAnswer:
        """`checkEventsAvailability`."""
        wanted = _typed(panda_v1.COUNT_RANGES, values)
        n = self._store.count_ready(wanted.get("job_id", 0), wanted.get("jobset_id", 0))
        return legacy_answers.code(legacy.SUCCESS, nEventRanges=n)

    def update_worker(self, values: Values) -> LegacyAnswer:
        """`updateWorkerPilotStatus`: an unknown state is answered with a sentence."""
        if values["status"] not in panda_v1.WORKER_STATES:
            if self._quirks.legacy_plain_sentences:
                return LegacyAnswer(text=_NO_WORKER_STATE)
            return legacy_answers.code(legacy.FAILED)
        if not _is_number(values["worker_id"]):
            return legacy_answers.code(legacy.FAILED)
        self._store.update_worker(values, self._now())
        return legacy_answers.code(legacy.SUCCESS)

    def range_statuses(self, values: Values) -> LegacyAnswer:
        """`get_events_status`: a bare object, or null."""
        try:
            items = json.loads(values["job_task_ids"])
            pairs = [(int(item["task_id"]), int(item["panda_id"])) for item in items]
            if any(abs(number) >= 2**63 for pair in pairs for number in pair):
                raise ValueError("number too large")
        except (ValueError, KeyError, TypeError, RecursionError):
            return LegacyAnswer(None)
        return LegacyAnswer(self._store.range_statuses(pairs))


def _crash(text: str) -> LegacyAnswer:
    return LegacyAnswer(text=text, status=500)


def _ids(text: str) -> list[int]:
    return [int(word) for word in text.replace(",", " ").split() if _is_number(word)][:10_000]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def _typed(call: panda_v1.Call, values: Values) -> dict[str, Any]:
    """The values that have their type; others are dropped, as are "NULL"s."""
    typed: dict[str, Any] = {}
    for name, text in values.items():
        kind = call.parameters[name].kind if name in call.parameters else Kind.STR
        value = _cast(kind, text)
        if value is not None and any("\ud800" <= char <= "\udfff" for char in text):
            continue
        if value is not None:
            typed[name] = value
    return typed


def _cast(kind: Kind, text: str) -> Any:
    if kind in (Kind.INT, Kind.NUMBER, Kind.FLOAT):
        try:
            number = float(text)
        except ValueError:
            return None
        if not abs(number) < 2**63:
            return None
        return int(text) if _is_number(text) else int(number) if kind is Kind.INT else number
    if kind is Kind.BOOL:
        return text in ("True", "true")
    return text


_FUNCTIONS: Mapping[str, Callable[[LegacyApi, Values], LegacyAnswer]] = MappingProxyType(
    {
        "isAlive": LegacyApi.is_alive,
        "getJob": LegacyApi.get_job,
        "updateJob": LegacyApi.update_job,
        "updateJobsInBulk": LegacyApi.update_jobs,
        "getStatus": LegacyApi.get_status,
        "checkJobStatus": LegacyApi.check_job_status,
        "getEventRanges": LegacyApi.get_ranges,
        "updateEventRange": LegacyApi.update_range,
        "updateEventRanges": LegacyApi.update_ranges,
        "checkEventsAvailability": LegacyApi.check_events,
        "get_events_status": LegacyApi.range_statuses,
        "updateWorkerPilotStatus": LegacyApi.update_worker,
    }
)
