"""Which settings may change while the pilot runs, and who must be told.

Rules:
* What only the supervisor asks for counts from its next look on.
* Stage-out settings count when its worker was replaced: archives that wait are shipped by the new
  one, under their own names. The payload does not notice.
* All else (server, places, payload command, ...) keeps its value until a restart, and is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from espilot.config import Settings, dump_settings, read_settings

AT_ONCE = (
    "drain.grace_s", "drain.notice_s", "drain.interrupt_s", "jobs.least_left_s",
    "limits.workdir_bytes", "limits.workdir_grace", "limits.memory_bytes",
    "limits.memory_every_s", "limits.processes", "limits.no_progress_s", "limits.silent_s",
    "limits.settle_s", "payload.hang_s", "payload.term_grace_s", "payload.exit_grace_s",
    "payload.stdout_limit_bytes", "payload.stdout_over", "service.stop_max_s",
)  # fmt: skip
"""The supervisor's own."""
BY_STAGEOUT = ("stageout", "packing", "transfer", "endpoints")
"""Sections that only the stage-out worker uses."""


@dataclass(frozen=True, slots=True)
class Change:
    """The settings to go on with; names of what changed, and of what must wait for a restart."""

    settings: Settings
    changed: tuple[str, ...]
    refused: tuple[str, ...]
    stageout: bool


def plan_reload(present: Settings, wanted: Settings) -> Change:
    """What of the wanted settings comes into force."""
    changed, refused = [], []
    settings = present
    for name in sorted(differences(present, wanted)):
        section = name.partition(".")[0]
        if name in AT_ONCE or section in BY_STAGEOUT:
            changed.append(name)
            settings = take(settings, wanted, name)
        else:
            refused.append(name)
    stageout = any(name.partition(".")[0] in BY_STAGEOUT for name in changed)
    return Change(settings, tuple(changed), tuple(refused), stageout)


def take(settings: Settings, wanted: Settings, name: str) -> Settings:
    """The settings with one value of the others."""
    section, _, key = name.partition(".")
    table, new = dump_settings(settings), dump_settings(wanted)
    if key:
        table[section][key] = new[section][key]
    else:
        table[section] = new[section]
    return read_settings(table, "the settings")


def differences(present: Settings, wanted: Settings) -> Iterator[str]:
    """Names of the settings that differ; sections that the author has named count as one."""
    before, after = asdict(present), asdict(wanted)
    for section, value in before.items():
        if is_dataclass(getattr(present, section)):
            yield from (f"{section}.{key}" for key in different(value, after[section]))
        elif value != after[section]:
            yield section


def different(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Keys whose values differ."""
    return (key for key, value in before.items() if value != after[key])
