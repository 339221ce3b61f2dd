"""Settings: one frozen dataclass per section, and the job file of a local run.

Each field's `doc` is the sentence that `etc/espilot.toml` prints for it; a test compares them.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from espilot.errors import ConfigError
from espilot.sections import (
    DrainConfig,
    EndpointConfig,
    HarvesterConfig,
    IdentityConfig,
    JobsConfig,
    LimitsConfig,
    MetricsConfig,
    PackingConfig,
    PayloadConfig,
    ServerConfig,
    ServiceConfig,
    StageinConfig,
    StageoutConfig,
    TransferConfig,
    setting,
)
from espilot.task_section import TaskConfig, split_input

__all__ = [
    "DrainConfig",
    "EndpointConfig",
    "HarvesterConfig",
    "IdentityConfig",
    "JobsConfig",
    "LimitsConfig",
    "MetricsConfig",
    "PackingConfig",
    "PayloadConfig",
    "ServerConfig",
    "ServiceConfig",
    "Settings",
    "StageinConfig",
    "StageoutConfig",
    "TaskConfig",
    "TransferConfig",
    "credential_variables",
    "dump_settings",
    "read_file",
    "read_settings",
    "setting",
    "split_input",
]


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections together."""

    task: TaskConfig = field(default_factory=TaskConfig)
    payload: PayloadConfig = field(default_factory=PayloadConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    stageout: StageoutConfig = field(default_factory=StageoutConfig)
    stagein: StageinConfig = field(default_factory=StageinConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    drain: DrainConfig = field(default_factory=DrainConfig)
    harvester: HarvesterConfig = field(default_factory=HarvesterConfig)
    transfer: TransferConfig = field(default_factory=TransferConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)
    service: ServiceConfig = field(default_factory=ServiceConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    endpoints: Mapping[str, EndpointConfig] = field(
        default_factory=dict, metadata={"kind": EndpointConfig}
    )
    storage: str = field(default="", metadata={"doc": "URL or directory of the storage element."})
    recovery_dir: str = setting(
        "", "Where a drain spares what the storage does not take; may be on a shared file system."
    )

    @property
    def path_conventions(self) -> dict[int, int]:
        """The conventions of paths by the id of the endpoint."""
        return {each.id: each.path_convention for each in self.endpoints.values()}


def credential_variables(settings: Settings) -> frozenset[str]:
    """Names of the environment variables that hold credentials of endpoints."""
    texts = [each.credentials for each in settings.endpoints.values()]
    named = [text.removeprefix("env:").split(",") for text in texts if text.startswith("env:")]
    return frozenset(name.strip() for names in named for name in names)


T = TypeVar("T")


def read_file(path: Path) -> Settings:
    """The settings of a TOML file; `ConfigError` names the file, the key and the remedy."""
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return read_settings(table, str(path))


def read_settings(table: Mapping[str, Any], origin: str) -> Settings:
    """Settings from nested tables; `origin` is named in errors."""
    settings = _read_section(Settings, table, origin, "")
    for name, value in _numbers(settings):
        least = LEAST.get(name, 0)
        if not least <= value <= LARGEST:
            bound = f"at least {least}" if not value > LARGEST else f"at most {LARGEST}"
            raise ConfigError(f"{origin}: {name} is {value}, it must be {bound}")
    for name, endpoint in settings.endpoints.items():
        if unknown := sorted({*endpoint.activities} - {*ACTIVITIES}):
            raise ConfigError(
                f"{origin}: endpoints.{name}.activities: unknown {unknown[0]!r:.40}, "
                f"known are {', '.join(ACTIVITIES)}"
            )
    for name, choices in CHOICES.items():
        section, _, key = name.partition(".")
        value = getattr(getattr(settings, section), key)
        if value not in choices:
            raise ConfigError(f"{origin}: {name} is {value!r:.40}, it must be one of {choices}")
    inputs = [split_input(text) for text in settings.task.inputs]
    if len(inputs) > 1 and any(events is None for _, events in inputs):
        raise ConfigError(f"{origin}: with several task.inputs each needs its events: PATH:EVENTS")
    return settings


def dump_settings(settings: Settings) -> dict[str, Any]:
    """Settings as nested tables; `read_settings` reads them back."""
    return asdict(settings)


CHOICES: Mapping[str, tuple[str, ...]] = {
    "payload.stdout_over": ("cut", "end-job"),
    "limits.control_groups": ("auto", "no"),
    "stageout.on_trouble": ("finish-current", "abort-current"),
    "payload.executor": ("generic",),
    "payload.ranges": ("channel", "file"),
    "payload.outputs": ("reported", "renamed", "closed"),
    "stagein.access": ("copy", "direct"),
    "harvester.output": ("es_output", "zip_output"),
}
"""Settings that are one of a few words."""
ACTIVITIES = ("es_events", "es_failover", "pw", "es_events_read", "pl", "pls")
"""What endpoints are for: outputs, their fail-over, normal outputs, merge input, log archives, and
logs while a job runs."""
LEAST: Mapping[str, float] = {
    "task.events_per_range": 1,
    "task.max_attempts": 1,
    "payload.cores": 1,
    "payload.max_held": 1,
    "payload.restarts": 1,
    "payload.output_limit_bytes": 1,
    "packing.max_ranges": 1,
    "packing.max_bytes": 1,
    "stageout.parallel": 1,
    "stagein.parallel": 1,
    "stagein.attempts": 1,
    "stageout.attempts": 1,
    "stageout.circuit_failures": 1,
    "stageout.log_bytes": 1,
    "transfer.connect_s": 0.01,
    "transfer.idle_s": 0.01,
    "transfer.base_s": 0.01,
    "transfer.longest_s": 0.01,
    "transfer.bytes_per_s": 1,
    "transfer.part_bytes": 5 * 2**20,
    "transfer.part_threads": 1,
    "server.report_max_ranges": 1,
    "server.timeout_s": 0.01,
    "server.connect_timeout_s": 0.01,
    "server.heartbeat_s": 0.01,
    "harvester.heartbeat_s": 0.01,
    "harvester.poll_s": 0.01,
    "harvester.jobs": 1,
    "harvester.request_max_ranges": 1,
    "harvester.report_max_ranges": 1,
    "server.lost_after_s": 1,
    "drain.grace_s": 1,
    "drain.notice_s": 1,
    "drain.interrupt_s": 1,
    "jobs.pause_min_s": 0.01,
    "metrics.every_s": 1,
    "limits.live_ranges": 1,
    "limits.role_restarts": 1,
    "limits.silent_s": 2,
}
"""Least values where zero makes no sense; no number is negative."""
LARGEST = 2**62


def _numbers(settings: Settings) -> Iterator[tuple[str, float]]:
    for section, table in asdict(settings).items():
        if isinstance(table, dict):
            for key, value in table.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    yield f"{section}.{key}", value
    for name, endpoint in settings.endpoints.items():
        yield f"endpoints.{name}.id", endpoint.id
        yield f"endpoints.{name}.path_convention", endpoint.path_convention


def _read_section(kind: type[T], table: Mapping[str, Any], origin: str, prefix: str) -> T:
    known = {f.name: f for f in fields(cast(Any, kind))}
    values = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f", did you mean {prefix}{near[0]}?" if near else ""
            raise ConfigError(f"{origin}: unknown setting {name}{hint}")
        values[key] = _read_value(known[key], value, origin, name)
    return kind(**values)


def _read_value(field_: Any, value: Any, origin: str, name: str) -> Any:
    if callable(field_.default_factory) and is_dataclass(field_.default_factory):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{origin}: [{name}] is a section, not a value")
        return _read_section(cast(Any, field_.default_factory), value, origin, f"{name}.")
    if "kind" in field_.metadata:
        return _read_named(field_.metadata["kind"], value, origin, name)
    kind = str(field_.type)
    if kind.startswith("tuple"):
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise ConfigError(f"{origin}: {name} must be a list of strings")
        return tuple(value)
    if kind == "float" and type(value) is int and abs(value) <= LARGEST:
        return float(value)
    expected = {"int": int, "float": float, "str": str, "bool": bool}[kind]
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
        raise ConfigError(f"{origin}: {name} must be of type {kind}, it is {value!r:.60}")
    return value


def _read_named(kind: type[T], value: Any, origin: str, name: str) -> dict[str, T]:
    """Read a section for each name that the file's author has chosen."""
    if not isinstance(value, Mapping) or not all(isinstance(v, Mapping) for v in value.values()):
        raise ConfigError(f"{origin}: {name} holds sections: [{name}.NAME]")
    return {
        each: _read_section(kind, table, origin, f"{name}.{each}.") for each, table in value.items()
    }
