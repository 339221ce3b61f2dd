"""Random kills over a long run: `python tests/faults/chaos.py --seconds 600 --seed 1`.

Two lanes run jobs one after the other, each with its own built-in server and storage directory. In
each lane a killer picks, by the seed, a role and an instant: SIGKILL, now and then several roles
at once, everything at once, or SIGSTOP for some seconds. After a supervisor's death the same
command is started again. After each job the accounting oracle looks at the server's database, the
storage and the machine.

Progress goes to stderr. The last line of stdout is one JSON object; exit code 0 only if nothing is
lost, doubled, wrong or left behind, every job came to its end, and no process of the pilot met a
defect. After a failure the directory stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import chaos_oracle
import run_oracle
from chaos_jobs import JobPlan, draw_job
from chaos_oracle import Findings
from pilot_run import Run, Runner

WEIGHTS = {
    "dispatcher": 4,
    "event-server": 4,
    "stageout": 4,
    "builtin-server": 2,
    "launcher": 3,
    "payload": 4,
    "client": 6,
    "supervisor": 3,
    "everything": 1,
}
MEAN_GAP_S = 0.7
STOPS, BURSTS = 0.12, 0.2
"""Shares of the strikes that stop a role instead of killing it, and that are several at once."""
AWAITED_S = 2.0
DISTURBED_S = 25.0
"""So long a job is disturbed; then it is left alone, so that it comes to its end."""
PATIENCE_S = 120.0
"""So long a job that is left alone may take."""
TAIL_CHARS = 12_000


@dataclass(slots=True)
class Score:
    """What all lanes have done and found."""

    kills: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    starts: int = 0
    findings: Findings = field(default_factory=Findings)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class Stopped:
    """A process that was stopped, and until when."""

    pidfd: int
    until: float


class Killer:
    """Strikes one run at random moments."""

    def __init__(self, chance: Random, score: Score) -> None:
        self._chance = chance
        self._score = score
        self._next = time.monotonic() + chance.random()
        self._stopped: list[Stopped] = []
        self._awaited: dict[str, float] = {}
        self.strikes: list[str] = []

    def turn(self, run: Run) -> None:
        """Do what is due. A role that is not there is struck when it comes, if it comes soon."""
        now = time.monotonic()
        self.let_go()
        if now >= self._next:
            self._next = now + min(3.0, self._chance.expovariate(1.0 / MEAN_GAP_S))
            n = self._chance.randrange(2, 5) if self._chance.random() < BURSTS else 1
            for role in self._chance.choices(list(WEIGHTS), WEIGHTS.values(), k=n):
                self._awaited[role] = now + AWAITED_S
        for role, until in list(self._awaited.items()):
            if self._strike(run, role) or now >= until:
                del self._awaited[role]

    def let_go(self, *, all_of_them: bool = False) -> None:
        """Continue what was stopped long enough."""
        now = time.monotonic()
        for stopped in [s for s in self._stopped if all_of_them or s.until <= now]:
            send(stopped.pidfd, signal.SIGCONT)
            os.close(stopped.pidfd)
            self._stopped.remove(stopped)

    def _strike(self, run: Run, role: str) -> bool:
        """Kill or stop a role; False when it is not there."""
        run.note_runtime()
        if role == "everything":
            return self._note(role, "kill", kill_everything(run) > 0)
        pid = run.pid_of(role)
        try:
            pidfd = os.pidfd_open(pid) if pid else -1
        except ProcessLookupError:
            return False
        if pidfd < 0:
            return False
        if self._chance.random() < STOPS:
            until = time.monotonic() + self._chance.uniform(0.1, 6.0)
            self._stopped.append(Stopped(pidfd, until))
            return self._note(role, "stop", send(pidfd, signal.SIGSTOP))
        done = self._note(role, "kill", send(pidfd, signal.SIGKILL))
        os.close(pidfd)
        return done

    def _note(self, role: str, what: str, done: bool) -> bool:
        if done:
            self.strikes.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {what} {role}")
            with self._score.lock:
                counter = self._score.kills if what == "kill" else self._score.stops
                counter[role] += 1
        return done


def send(pidfd: int, number: int) -> bool:
    """Signal a process; False when it is gone."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def kill_everything(run: Run) -> int:
    """KILL all processes of a run at once; returns how many there were."""
    pids = [run.process.pid, *run_oracle.processes_of(run.workdir)]
    killed = 0
    for pid in dict.fromkeys(pids):
        try:
            os.kill(pid, signal.SIGKILL)
            killed += 1
        except ProcessLookupError:
            continue
    return killed


class Lane(threading.Thread):
    """Jobs one after the other, until the time is over or something is wrong."""

    def __init__(self, directory: Path, score: Score, *, seed: int, number: int, end: float):
        super().__init__(name=f"lane {number}")
        self._directory = directory
        self._score = score
        self._seed, self._number, self._end = seed, number, end

    def run(self) -> None:
        """Run jobs; a failure ends this lane and keeps its directory."""
        for round_ in range(1_000_000):
            if time.monotonic() >= self._end or self._score.failures:
                return
            directory = self._directory / f"lane-{self._number}-round-{round_}"
            directory.mkdir(parents=True)
            chance = Random(f"{self._seed} {self._number} {round_}")
            attempt = Attempt(directory, draw_job(chance), Killer(chance, self._score))
            try:
                found = attempt.run(self._end)
            except Exception as error:
                attempt.close()
                self._fail(attempt, round_, [f"{type(error).__name__}: {error}"])
                return
            attempt.close()
            with self._score.lock:
                self._score.jobs += 1
                self._score.starts += attempt.starts
                self._score.findings.add(found)
            if found.bad or attempt.defects:
                self._fail(attempt, round_, [*found.bad, *attempt.defects])
                return
            tell(
                f"lane {self._number} round {round_}: {found.finished} of {found.ranges} ranges, "
                f"{len(attempt.killer.strikes)} strikes, {attempt.starts} starts, "
                f"{attempt.wall_s:.1f} s ({attempt.plan.switches.strip()})"
            )
            shutil.rmtree(directory)

    def _fail(self, attempt: Attempt, round_: int, lines: list[str]) -> None:
        log = attempt.runner.runs[-1].log if attempt.runner.runs else ""
        tell(f"pilot's log, its end:\n{log[-TAIL_CHARS:]}\n")
        tell("strikes: " + ", ".join(attempt.killer.strikes))
        tell(f"FAILED: seed {self._seed}, lane {self._number}, round {round_}, kept in "
             f"{attempt.runner.directory} ({attempt.plan.switches.strip()})")  # fmt: skip
        for line in lines[:20]:
            tell(f"  {line}")
        with self._score.lock:
            self._score.failures += lines


class Attempt:
    """One job from its first start to the audit."""

    def __init__(self, directory: Path, plan: JobPlan, killer: Killer) -> None:
        self.runner = Runner(directory)
        self.plan = plan
        self.killer = killer
        self.starts = 0
        self.wall_s = 0.0
        self._runtimes: set[str] = set()

    def run(self, end: float) -> Findings:
        """Run it to its end under kills, and audit it."""
        started = time.monotonic()
        quiet_at = min(started + DISTURBED_S, end)
        run = self._start()
        while not self._is_over(run, quiet_at):
            if run.ended:
                self._runtimes |= run.runtimes
                run = self._start()
            if time.monotonic() < quiet_at:
                self.killer.turn(run)
            else:
                self.killer.let_go(all_of_them=True)
            assert time.monotonic() < quiet_at + PATIENCE_S, "the job does not come to its end"
            threading.Event().wait(0.01)
        self.killer.let_go(all_of_them=True)
        self.wall_s = time.monotonic() - started
        return self._audit(run)

    def close(self) -> None:
        """Leave no process and no stopped one behind."""
        self.killer.let_go(all_of_them=True)
        self.runner.close()

    @property
    def defects(self) -> list[str]:
        """The last lines of tracebacks in the pilot's log and on its stderr."""
        texts = [run.stderr for run in self.runner.runs] + [self.runner.runs[-1].log]
        return sorted({line for text in texts for line in tracebacks(text)})

    def _start(self) -> Run:
        self.starts += 1
        return self.runner.start(self.plan.text)

    def _is_over(self, run: Run, quiet_at: float) -> bool:
        """Whether the pilot has ended, and not by a kill or for its troubles."""
        if not run.ended:
            return False
        code = run.process.returncode
        assert code in (0, 1, -signal.SIGKILL), f"exit code {code}: {run.stderr[-2000:]}"
        if code == 1 and time.monotonic() > quiet_at + PATIENCE_S / 2:
            raise AssertionError(f"does not finish: {run.stdout[-1000:]} {run.stderr[-1000:]}")
        return code >= 0 and run_oracle.task_state(run.database) in ("finished", "failed")

    def _audit(self, run: Run) -> Findings:
        run.note_runtime()
        found = chaos_oracle.audit(run.database, run.storage, self.plan)
        found.orphans += chaos_oracle.orphans(run.workdir, run.state, self._runtimes | run.runtimes)
        return found


def tracebacks(text: str) -> list[str]:
    """What each traceback of a text ended with."""
    found = []
    for part in text.split("Traceback (most recent call last):")[1:]:
        lines = part.splitlines()[1:]
        last = next((line for line in lines if line and not line.startswith(" ")), "")
        found.append(f"traceback: {last[:300]}")
    return found


def tell(text: str) -> None:
    """Progress, for people."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def summary(score: Score, seed: int, seconds: float) -> dict[str, object]:
    """The object on the last line."""
    found = score.findings
    return {
        "schema": "espilot.chaos/1",
        "seed": seed,
        "seconds": round(seconds, 1),
        "jobs": score.jobs,
        "starts": score.starts,
        "kills": dict(sorted(score.kills.items())),
        "kills_total": score.kills.total(),
        "stops": dict(sorted(score.stops.items())),
        "ranges": found.ranges,
        "finished": found.finished,
        "failures": len(score.failures),
        "lost": len(found.lost),
        "doubled": len(found.doubled),
        "wrong_output": len(found.wrong_output),
        "orphans": len(found.orphans),
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="length (default: 600)")
    parser.add_argument("--seed", type=int, default=1, help="what is random (default: 1)")
    parser.add_argument("--lanes", type=int, default=2, help="jobs at the same time (default: 2)")
    parser.add_argument("--directory", type=Path, help="where to work (default: a temporary one)")
    args = parser.parse_args()
    directory = args.directory or Path(tempfile.mkdtemp(prefix="chaos-"))
    started = time.monotonic()
    score = Score()
    lanes = [
        Lane(directory, score, seed=args.seed, number=number, end=started + args.seconds)
        for number in range(args.lanes)
    ]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    if not score.failures:
        shutil.rmtree(directory, ignore_errors=True)
    sys.stdout.write(json.dumps(summary(score, args.seed, time.monotonic() - started)) + "\n")
    return 1 if score.failures else 0


if __name__ == "__main__":
    sys.exit(main())
