"""What is looked at, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from espilot.config import Settings


class State(Enum):
    """What came of one check."""

    OK = "ok"
    BAD = "bad"
    """Something must be done; the finding says what."""
    SKIPPED = "skipped"
    """There is nothing to be checked."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The settings and places of a pilot. Files that settings name count from `jobdir`."""

    settings: Settings
    jobdir: Path
    workdir: Path
    storage: str
    environ: Mapping[str, str]

    @property
    def state(self) -> Path:
        """Its state directory."""
        return self.workdir / "state"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` says what to do where it is bad."""

    name: str
    state: State
    text: str
    fix: str = ""


class Fault(Exception):
    """Something must be done; the second argument says what."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.text = text
        self.fix = fix


class Nothing(Exception):
    """There is nothing to be checked; the text says why."""
