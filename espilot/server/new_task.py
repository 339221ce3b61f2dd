"""What a task is made from: a request or a `[task]` table, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espilot.errors import UsageError
from espilot.wire.jobdef import is_lfn

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOST_RANGES = 10_000_000
_MOST_EVENTS = 10**15
_MOST_UNITS = 100_000
_FLAGS = ("ap", "at", "de", "df", "mo")
_TEXT_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be made. `inputs` are (LFN, events); a generator has none.

    `events_per_job` cuts it into units, 0 makes one of all. With a `merge_transformation` each
    complete unit is merged. `flags`: `ap` accept partial results, `at` all events were fine
    already, `de` do not discard events, `df` only failures cost an attempt, `mo` merge near the
    storage. With `jumbo_jobs` so many jumbo jobs work beside the others until fewer than
    `jumbo_off_below` events are left. `job` is a whole job definition (JSON), which all jobs of the
    task have then, but for their ids.
    """

    name: str
    events: int
    events_per_range: int = 1
    outputs: tuple[str, ...] = ("output",)
    inputs: tuple[tuple[str, int], ...] = ()
    max_attempts: int = 3
    core_count: int = 1
    consumers: int = 1
    task_id: int = 0
    events_per_job: int = 0
    merge_transformation: str = ""
    merge_parameters: str = ""
    flags: tuple[str, ...] = ()
    jumbo_jobs: int = 0
    jumbo_off_below: int = 0
    priority: int = 1000
    job: str = ""


def read_new_task(values: Mapping[str, Any]) -> NewTask:
    """A task from a request or a `[task]` table. Errors: `UsageError` that names the key."""
    inputs = _read_inputs(values.get("inputs") or (), values.get("events") or 0)
    task = NewTask(
        name=str(values.get("name") or "task"),
        events=_number(values, "events", 0, 0, _MOST_EVENTS) or sum(n for _, n in inputs),
        events_per_range=_number(values, "events_per_range", 1, 1, _MOST_EVENTS),
        outputs=_read_outputs(values.get("outputs") or ("output",)),
        inputs=inputs,
        max_attempts=_number(values, "max_attempts", 3, 1, 1000),
        core_count=_number(values, "core_count", 1, 1, 100_000),
        consumers=_number(values, "consumers", 1, 1, 1000),
        task_id=_number(values, "task_id", 0, 0, 10**15),
        events_per_job=_number(values, "events_per_job", 0, 0, _MOST_EVENTS),
        merge_transformation=_text(values, "merge_transformation"),
        merge_parameters=_text(values, "merge_parameters"),
        flags=_read_flags(values.get("flags") or ()),
        jumbo_jobs=_number(values, "jumbo_jobs", 0, 0, 1000),
        jumbo_off_below=_number(values, "jumbo_off_below", 0, 0, _MOST_EVENTS),
        priority=_number(values, "priority", 1000, 0, 100_000),
        job=str(values.get("job") or ""),
    )
    _check_task(task)
    return task


def _check_task(task: NewTask) -> None:
    if not _NAME.fullmatch(task.name):
        raise UsageError(f"task.name: letters, digits, '._-' only, not {task.name!r:.80}")
    if task.events < 1:
        raise UsageError("task.events: at least 1 event is needed")
    if task.inputs and task.events != sum(n for _, n in task.inputs):
        raise UsageError(f"task.events: {task.events} is not the sum of the inputs' events")
    if task.events_per_job % task.events_per_range:
        raise UsageError("task.events_per_job: not a multiple of task.events_per_range")
    if task.events_per_job and task.events // task.events_per_job > _MOST_UNITS:
        raise UsageError(f"task.events_per_job: more than {_MOST_UNITS} units; make it larger")
    if task.events // task.events_per_range > _MOST_RANGES:
        raise UsageError(f"task.events_per_range: more than {_MOST_RANGES} ranges; make it larger")


def _number(values: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"task.{name}: a number from {low} to {high}, not {value!r:.40}")
    return value


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name) or ""
    if not isinstance(value, str) or len(value) > _TEXT_LIMIT:
        raise UsageError(f"task.{name}: a text of at most {_TEXT_LIMIT} characters")
    return value


def _read_flags(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or any(flag not in _FLAGS for flag in value):
        raise UsageError(f"task.flags: a list of {', '.join(_FLAGS)}")
    return tuple(value)


def _read_outputs(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= 100:
        raise UsageError("task.outputs: a list of 1 to 100 file names")
    for name in value:
        if not isinstance(name, str) or not is_lfn(name):
            raise UsageError(f"task.outputs: not a plain file name: {name!r:.80}")
    if len(set(value)) != len(value):
        raise UsageError("task.outputs: a name appears twice")
    return tuple(value)


def _read_inputs(value: Any, events: Any) -> tuple[tuple[str, int], ...]:
    """Inputs sorted by LFN, because event numbers count over the sorted list."""
    if not isinstance(value, list | tuple) or len(value) > 100_000:
        raise UsageError("task.inputs: a list of {lfn, events}")
    if len(value) == 1 and isinstance(value[0], str):
        value = [{"lfn": value[0], "events": events}]
    inputs = []
    for item in value:
        if not isinstance(item, Mapping) or not isinstance(item.get("lfn"), str):
            raise UsageError("task.inputs: each needs lfn and events when there are several")
        if not is_lfn(item["lfn"]):
            raise UsageError(f"task.inputs: not a plain file name: {item['lfn']!r:.80}")
        inputs.append((item["lfn"], _number(item, "events", 0, 1, _MOST_EVENTS)))
    if len({lfn for lfn, _ in inputs}) != len(inputs):
        raise UsageError("task.inputs: a file appears twice")
    return tuple(sorted(inputs))
