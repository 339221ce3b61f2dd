"""What shall be checked, and what came of one case. No I/O."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from espilot.check.cases import Case, Input
from espilot.check.findings import Findings
from espilot.config import PayloadConfig, Settings, TaskConfig


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is checked: the command and the bounds. `exec`: a command template for each range.

    A command with `{ranges}` in it reads files of ranges.
    """

    words: tuple[str, ...]
    exec: bool = False
    dialect: str = "auto"
    timeout_s: float = 20.0
    cores: int = 2
    inputs: Sequence[Input] = ()
    log_limit_bytes: int = 2**20
    memory_growth_bytes: int = 64 * 2**20
    stray_limit_bytes: int = 2**20

    def settings(self) -> Settings:
        """The settings of a pilot that runs this payload."""
        command = shlex.join(self.words)
        payload = PayloadConfig(
            command="" if self.exec else command,
            exec=command if self.exec else "",
            # Our runner reports what such a command has made.
            ranges="file" if "{ranges}" in command and not self.exec else "channel",
            cores=self.cores,
            term_grace_s=self.timeout_s,
        )
        return Settings(task=TaskConfig(name="check", events=1), payload=payload)


@dataclass(slots=True)
class Result:
    """What came of one case."""

    case: Case
    findings: Findings = field(default_factory=Findings)
    wall_s: float = 0.0
    ranges: int = 0
    finished: int = 0
    failed: int = 0
    messages: int = 0
    dialects: set[str] = field(default_factory=set)
    skipped: str = ""
