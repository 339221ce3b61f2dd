"""All cases of a check: the first as the gate, then the others side by side."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from espilot.adapters import process
from espilot.adapters.disk import remove_path
from espilot.adapters.loop import Loop
from espilot.check.cases import CASES, PLAIN, Case
from espilot.check.findings import BLOCKING
from espilot.check.session import Session
from espilot.check.wishes import Result, Wishes
from espilot.errors import LocalError, UsageError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of all cases."""

    wishes: Wishes
    results: tuple[Result, ...]
    wall_s: float

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not any(result.findings.all() for result in self.results)

    @property
    def dialects(self) -> list[str]:
        """The dialects that were spoken."""
        return sorted({dialect for result in self.results for dialect in result.dialects})


def chosen_cases(names: Sequence[str]) -> list[Case]:
    """The cases of these names, all without one; `UsageError` names one that is not there."""
    known = {case.name: case for case in CASES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"there is no case {unknown[0]!r:.40}; cases are {', '.join(known)}")
    return [case for case in CASES if not names or case.name in names]


@contextmanager
def directory_of(kept: Path | None) -> Iterator[Path]:
    """Where the cases work: a directory to be kept, or a temporary one.

    `UsageError` when the former is not empty, `LocalError` when it cannot be made.
    """
    try:
        if kept is not None:
            kept.mkdir(parents=True, exist_ok=True)
            if next(kept.iterdir(), None) is not None:
                raise UsageError(f"--workdir {kept} is not empty; give a new directory")
            yield kept.resolve()
            return
        made = Path(tempfile.mkdtemp(prefix="espilot-check-"))
    except OSError as error:
        raise LocalError(f"cannot make the work directory: {error.strerror}") from None
    try:
        yield made.resolve()
    finally:
        remove_path(made)


class Campaign:
    """One check. `on_result` hears of each case when it is over."""

    def __init__(
        self,
        wishes: Wishes,
        cases: Sequence[Case],
        directory: Path,
        *,
        jobs: int,
        on_result: Callable[[Result], None],
    ) -> None:
        self._wishes = wishes
        self._directory = directory
        self._jobs = jobs
        self._on_result = on_result
        self._order = [case.name for case in cases]
        self._waiting = deque(cases)
        self._running: dict[int, Session] = {}
        self._results: dict[str, Result] = {}
        self._loop = Loop()

    def run(self) -> Verdict:
        """Run all cases; returns when the last payload is gone."""
        started = time.monotonic()
        with process.DeathPipe() as pipe:
            self._death_fd = pipe.read_fd
            try:
                self._start_some()
                while self._running:
                    self._loop.turn()
            finally:
                for session in self._running.values():
                    session.close()
        results = tuple(self._results[name] for name in self._order)
        return Verdict(self._wishes, results, time.monotonic() - started)

    def _start_some(self) -> None:
        gate = PLAIN.name in self._order and PLAIN.name not in self._results
        while self._waiting and len(self._running) < (1 if gate else self._jobs):
            case = self._waiting.popleft()
            session = Session(
                case,
                self._wishes,
                self._directory / case.name,
                loop=self._loop,
                death_fd=self._death_fd,
            )
            self._running[session.pid] = session
            self._loop.on_readable(session.pidfd, self._reap)

    def _reap(self) -> None:
        for pid, code in process.reap():
            session = self._running.get(pid)
            if session is not None:
                self._loop.forget(session.pidfd)
                session.reaped(code, self._end)

    def _end(self, session: Session) -> None:
        del self._running[session.pid]
        self._take(session.result)
        if session.case is PLAIN and (blocking := session.result.findings.codes() & BLOCKING):
            for case in self._waiting:
                self._take(Result(case, skipped=f"{PLAIN.name} has {', '.join(sorted(blocking))}"))
            self._waiting.clear()
        self._start_some()

    def _take(self, result: Result) -> None:
        self._results[result.case.name] = result
        self._on_result(result)
