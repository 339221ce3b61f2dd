"""Settings: one frozen dataclass per section, and the job file of a local run.

Each field's comment is the sentence that `etc/espilot.toml` prints for it; a test compares them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from espilot.errors import ConfigError, UsageError


def setting(default: Any, doc: str) -> Any:
    """A dataclass field with its one-sentence description."""
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class PayloadConfig:
    """[payload]: how the payload is started and restarted."""

    command: str = setting("", "Command of a payload that speaks a dialect of the channel.")
    exec: str = setting("", "Command template run once per range, for payloads without a protocol.")
    cores: int = setting(1, "Processes that work at the same time.")
    output_limit_bytes: int = setting(500 * 10**9, "Largest single output file.")
    stdout_limit_bytes: int = setting(2 * 2**30, "Largest stdout or stderr of the payload.")
    hang_s: float = setting(7200.0, "No message and no CPU use for so long means: hung.")
    restarts: int = setting(5, "Starts within restart_window_s after which the payload is given up.")
    restart_window_s: float = setting(600.0, "Window for counting restarts.")
    term_grace_s: float = setting(30.0, "From SIGTERM to SIGKILL when the payload is stopped.")
    exit_grace_s: float = setting(1800.0, "How long the payload may live after it heard that no more ranges come.")
    max_held: int = setting(64, "Ranges that one client may hold at once.")


@dataclass(frozen=True, slots=True)
class PackingConfig:
    """[packing]: when outputs become an archive; whatever limit is reached first."""

    max_ranges: int = setting(500, "Ranges in one archive.")
    max_bytes: int = setting(2 * 10**9, "Bytes in one archive.")
    max_age_s: float = setting(600.0, "Longest time that an output waits to be packed.")


@dataclass(frozen=True, slots=True)
class StageoutConfig:
    """[stageout]: uploads."""

    parallel: int = setting(2, "Uploads at the same time.")
    attempts: int = setting(3, "Tries of one upload within one stage-out.")
    retry_min_s: float = setting(1.0, "Shortest pause between two tries.")
    retry_max_s: float = setting(60.0, "Longest pause between two tries.")
    give_up_after: int = setting(2, "Failed stage-outs in a row after which no more ranges are taken.")
    storage_wait_s: float = setting(600.0, "How long clients wait in storage trouble before they hear that no more ranges come.")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """[server]: the event server."""

    url: str = setting("", "Address of the server; empty in a local run, which brings its own.")
    timeout_s: float = setting(120.0, "Longest duration of one call.")
    connect_timeout_s: float = setting(100.0, "Longest time to connect.")
    heartbeat_s: float = setting(600.0, "Pause between two heartbeats of an event job.")
    retry_min_s: float = setting(1.0, "Shortest pause after a failed call.")
    retry_max_s: float = setting(60.0, "Longest pause after a failed call.")
    site: str = setting("ESPILOT", "Name of the queue (computing site) in job requests.")
    report_max_ranges: int = setting(1000, "Ranges in one report.")


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """[limits]: of the whole pilot."""

    workdir_bytes: int = setting(16336 * 2**20, "Largest size of the work directory, outputs and logs included.")
    wall_s: float = setting(0.0, "Longest run; 0 means no limit.")
    live_ranges: int = setting(20000, "Most ranges on the node at the same time.")
    work_ahead_s: float = setting(2.0, "Seconds of work that are fetched ahead.")


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """[task]: what a local run processes."""

    name: str = setting("task", "Name of the task, used in file names.")
    events: int = setting(0, "Number of events.")
    events_per_range: int = setting(1, "Events in one range.")
    outputs: tuple[str, ...] = setting(("output",), "Output names, one per output stream.")
    inputs: tuple[str, ...] = setting((), "Input files; none for generators.")
    max_attempts: int = setting(3, "Tries of one range before it counts as failed.")
    task_id: int = setting(0, "Number of the task; 0 lets the server choose.")


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections together."""

    task: TaskConfig = field(default_factory=TaskConfig)
    payload: PayloadConfig = field(default_factory=PayloadConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    stageout: StageoutConfig = field(default_factory=StageoutConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    storage: str = field(default="", metadata={"doc": "URL or directory of the storage element."})
