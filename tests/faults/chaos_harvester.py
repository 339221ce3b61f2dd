"""Random kills beside Harvester: `python tests/faults/chaos_harvester.py --seconds 60 --seed 1`.

Pilots and a reader that behaves as Harvester exchange ranges as files while both are killed at
random: one worker for a job (OneToOne), then two that share a job (OneToMany), half of the time
each. Then they are left alone until every range is finished: what a worker that ends has not
reported goes to the next one.

Progress goes to stderr. The last line of stdout is one JSON object; exit code 0 only if nothing is
lost, doubled, wrong or left behind, each pilot has had exactly the ranges that were handed to it,
and no process of a pilot met a defect. After a failure the directory stays.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import chaos_oracle
import harvester_reader
from chaos import Killer, Score, tell, tracebacks
from chaos_jobs import QUICK
from harvester_reader import FIRST_JOB, Books
from pilot_run import FAKE, Run, Runner, job_text

READER = Path(harvester_reader.__file__)
MODES = {"OneToOne": 1, "OneToMany": 2}
"""Workers at the same time."""
READER_GAP_S = 1.5
PATIENCE_S = 180.0
"""So long a round may take when it is left alone."""
MOST_WORKERS = 40
KINDS = ("lost", "doubled", "wrong_output", "torn", "repeated")
TAIL_CHARS = 8_000


@dataclass(slots=True)
class Tally:
    """What all rounds have done."""

    ranges: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODES, 0))
    found: dict[str, list[str]] = field(
        default_factory=lambda: {kind: [] for kind in (*KINDS, "orphans", "defects")}
    )
    rounds: int = 0
    workers: int = 0
    reports: int = 0
    reader_kills: int = 0

    @property
    def bad(self) -> list[str]:
        """All findings, a line each."""
        return [f"{kind}: {line}" for kind, lines in self.found.items() for line in lines]


class Reader:
    """The process that plays Harvester; killed now and then, and started again."""

    def __init__(self, directory: Path, chance: Random) -> None:
        self._argv = [sys.executable, str(READER), str(directory)]
        self._chance = chance
        self._process = self._start()
        self._next = 0.0
        self.kills = 0

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._argv, stdin=subprocess.DEVNULL)

    def turn(self, *, strike: bool) -> None:
        """Kill it if that is due, and see that it runs."""
        now = time.monotonic()
        if strike and now >= self._next:
            self._next = now + self._chance.expovariate(1.0 / READER_GAP_S)
            self.close()
            self.kills += 1
        code = self._process.poll()
        assert code in (None, -signal.SIGKILL), f"the reader ended with {code}"
        if code is not None:
            self._process = self._start()

    def close(self) -> None:
        """KILL it."""
        self._process.kill()
        self._process.wait()


class Pilot:
    """One worker: its access point, and the starts of its pilot."""

    def __init__(self, directory: Path, place: Path, job: str, killer: Killer) -> None:
        directory.mkdir()
        self.name = place.name
        self.runner = Runner(directory)
        self.killer = killer
        self._place = place
        self._job = job
        self._runtimes: set[str] = set()
        self.run = self._start()

    def _start(self) -> Run:
        return self.runner.start(self._job, "--harvester", str(self._place))

    def turn(self, *, strike: bool) -> bool:
        """Strike, start again what was killed; True when it has come to its end."""
        if not self.run.ended:
            if strike:
                self.killer.turn(self.run)
            else:
                self.killer.let_go(all_of_them=True)
            return False
        self._runtimes |= self.run.runtimes
        if self.run.process.returncode in (0, 1) or self.run.stdout.endswith("}\n"):
            return True
        code = self.run.process.returncode
        assert code == -signal.SIGKILL, f"exit code {code}: {self.run.stderr[-2000:]}"
        self.run = self._start()
        return False

    def orphans(self) -> list[str]:
        """What it has left: of its own, and temporary files in the access point."""
        found = chaos_oracle.orphans(self.run.workdir, self.run.state, self._runtimes)
        return found + [str(path) for path in self._place.rglob(".*")]

    def close(self) -> None:
        """Leave no process."""
        self.killer.let_go(all_of_them=True)
        self.runner.close()

    @property
    def defects(self) -> list[str]:
        """Tracebacks in its log and on its stderr."""
        texts = [run.stderr for run in self.runner.runs] + [self.run.log]
        return sorted({line for text in texts for line in tracebacks(text)})


class Round:
    """One task in one mode, from its first worker to its last range."""

    def __init__(self, directory: Path, mode: str, ranges: int, *, seed: str, score: Score) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._mode = mode
        self._ranges = ranges
        self._chance = Random(seed)
        self._score = score
        self._kind = self._chance.choice(("es_output", "es_output", "zip_output"))
        self._output_bytes = self._chance.choice((100, 100, 5000))
        self.books: Books = harvester_reader.make_books(
            directory,
            ranges=ranges,
            output_bytes=self._output_bytes,
            seed=self._chance.randrange(10**6),
            kind=self._kind,
        )
        self._running: list[Pilot] = []
        self.pilots: list[Pilot] = []
        self._reader = Reader(directory, Random(f"{seed} reader"))

    def run(self, tally: Tally, quiet_at: float) -> None:
        """Exchange all ranges, then audit; `quiet_at` is when the kills end."""
        while True:
            now = time.monotonic()
            assert now < quiet_at + PATIENCE_S, f"does not come to its end: {self._standing()}"
            self._reader.turn(strike=now < quiet_at)
            self._add_workers()
            if not self._running:
                break
            for pilot in list(self._running):
                if pilot.turn(strike=now < quiet_at) and self._is_closed(pilot):
                    self._running.remove(pilot)
                    self._audit(pilot, tally)
            threading.Event().wait(0.01)
        self._sum_up(tally)

    def close(self) -> None:
        """Leave no process."""
        for pilot in self.pilots:
            pilot.close()
        self._reader.close()
        self.books.db.close()

    def _standing(self) -> dict[str, int]:
        rows = self.books.db.execute("SELECT status, count(*) FROM range GROUP BY status")
        return {str(status): int(n) for status, n in rows}

    def _add_workers(self) -> None:
        """As many as the mode wants, while there is anything to do."""
        ready = self._standing().get("ready", 0)
        while ready and len(self._running) < MODES[self._mode]:
            number = len(self.pilots)
            assert number < MOST_WORKERS, f"too many workers: {self._standing()}"
            # One job of one worker, or one job that all workers share.
            job = FIRST_JOB + (number if self._mode == "OneToOne" else 0)
            prefetch = self._chance.random() < 0.5
            place = harvester_reader.add_worker(
                self._directory, self.books, f"w{number}", job, prefetch=prefetch
            )
            killer = Killer(Random(self._chance.random()), self._score)
            pilot = Pilot(self._directory / f"pilot-{number}", place, self._job_text(), killer)
            self.pilots.append(pilot)
            self._running.append(pilot)

    def _job_text(self) -> str:
        switches = f"--clients 2 --outsize {self._output_bytes} --outstanding 3"
        waits = {"poll_s": 0.05, "ask_again_s": 0.5, "lost_s": 5.0, "heartbeat_s": 0.5}
        return job_text(
            f"{FAKE} {switches}",
            events=1,
            payload={
                "term_grace_s": 1.0, "exit_grace_s": 5.0, "hang_s": 4.0, "restarts": 1000,
                "restart_window_s": 1.0,
            },
            packing={"max_ranges": self._chance.choice((10, 40, 200)), "max_age_s": 0.5},
            harvester={"output": self._kind, **waits},
            **QUICK,
        )  # fmt: skip

    def _is_closed(self, pilot: Pilot) -> bool:
        """Whether the reader knows that the worker has ended, and has read all."""
        state = self.books.one("SELECT state FROM worker WHERE name = ?", pilot.name)
        return str(state).startswith("ended")

    def _audit(self, pilot: Pilot, tally: Tally) -> None:
        """What the pilot says it had must be what was handed to it."""
        told = pilot.run.summary["ranges"]
        handed = self.books.one("SELECT count(*) FROM handed WHERE worker = ?", pilot.name)
        finished = self.books.one(
            "SELECT count(*) FROM handed WHERE worker = ? AND fate = 'finished'", pilot.name
        )
        if (told["total"], told["finished"]) != (handed, finished):
            tally.found["lost"].append(
                f"{pilot.name}: {handed} handed, {finished} finished, the pilot says {told}"
            )
        tally.found["orphans"] += pilot.orphans()
        tally.found["defects"] += pilot.defects
        tell(f"  {self._mode} {pilot.name}: {told}, {len(pilot.runner.runs)} starts, "
             f"{len(pilot.killer.strikes)} strikes")  # fmt: skip

    def _sum_up(self, tally: Tally) -> None:
        for kind, text in self.books.db.execute("SELECT kind, text FROM finding"):
            tally.found[kind].append(text)
        standing = self._standing()
        if standing != {"finished": self._ranges}:
            tally.found["lost"].append(f"{self._mode}: at the end {standing}")
        for number, path, kind in self.books.db.execute("SELECT number, path, kind FROM range"):
            if not Path(path or "/").is_file() or kind != self._kind:
                tally.found["lost"].append(f"range {number}: {path} is not there at the end")
        tally.ranges[self._mode] += standing.get("finished", 0)
        tally.rounds += 1
        tally.workers += len(self.pilots)
        tally.reader_kills += self._reader.kills
        places = self._directory / "ap"
        tally.reports += len(list(places.glob("*/event_status.dump.json.read.*")))


def run_all(args: argparse.Namespace, directory: Path, score: Score, tally: Tally) -> None:
    """Rounds of each mode until its half of the time is over, at least one."""
    for mode in MODES:
        end = time.monotonic() + args.seconds / 2
        for number in range(1_000_000):
            if tally.bad or (number and time.monotonic() >= end):
                break
            name = f"{mode}-{number}"
            seed = f"{args.seed} {name}"
            round_ = Round(directory / name, mode, args.ranges, seed=seed, score=score)
            try:
                round_.run(tally, end)
            except Exception as error:
                tally.found["defects"].append(f"{type(error).__name__}: {error}")
            finally:
                round_.close()
            if tally.bad:
                explain(round_, directory / name)
                break
            shutil.rmtree(directory / name)


def explain(round_: Round, directory: Path) -> None:
    """What helps to find out what happened."""
    for pilot in round_.pilots:
        tell(f"{pilot.name}, strikes: {', '.join(pilot.killer.strikes)}")
        tell(f"its log, the end:\n{pilot.run.log[-TAIL_CHARS:]}\n")
    tell(f"FAILED, kept in {directory}")


def summary(tally: Tally, score: Score, seed: int, seconds: float) -> dict[str, Any]:
    """The object on the last line."""
    return {
        "schema": "espilot.chaos-harvester/1",
        "seed": seed,
        "seconds": round(seconds, 1),
        "rounds": tally.rounds,
        "workers": tally.workers,
        "kills": {**dict(sorted(score.kills.items())), "reader": tally.reader_kills},
        "kills_total": score.kills.total() + tally.reader_kills,
        "stops": dict(sorted(score.stops.items())),
        "ranges": tally.ranges,
        "reports": tally.reports,
        **{kind: len(lines) for kind, lines in tally.found.items()},
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="with kills (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="what is random (default: 1)")
    parser.add_argument("--ranges", type=int, default=10_000, help="of a round (default: 10000)")
    parser.add_argument("--directory", type=Path, help="where to work (default: a temporary one)")
    args = parser.parse_args()
    directory = args.directory or Path(tempfile.mkdtemp(prefix="chaos-harvester-"))
    started = time.monotonic()
    score, tally = Score(), Tally()
    run_all(args, directory, score, tally)
    for line in tally.bad[:20]:
        tell(line)
    if not tally.bad:
        shutil.rmtree(directory, ignore_errors=True)
    told = summary(tally, score, args.seed, time.monotonic() - started)
    sys.stdout.write(json.dumps(told) + "\n")
    return 1 if tally.bad else 0


if __name__ == "__main__":
    sys.exit(main())
