"""The accounting oracle as counts: what of a run is lost, doubled, wrong, or left behind.

Only the server's database, the storage and the machine are believed, nothing that the pilot says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import run_oracle
from chaos_jobs import JobPlan
from run_oracle import Books, Range

from espilot.payload.fake.content import expected_content

_CHANNEL = re.compile(r"EventService_EventRanges-[0-9a-f]{32}")


@dataclass(slots=True)
class Findings:
    """What is not as it must be, each entry a line for people."""

    ranges: int = 0
    finished: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong_output: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    @property
    def bad(self) -> list[str]:
        """All of them."""
        kinds = ("lost", "doubled", "wrong_output", "orphans")
        return [f"{kind}: {line}" for kind in kinds for line in getattr(self, kind)]

    def add(self, other: Findings) -> None:
        """Take over the findings of another run."""
        self.ranges += other.ranges
        self.finished += other.finished
        for kind in ("lost", "doubled", "wrong_output", "orphans"):
            getattr(self, kind).extend(getattr(other, kind))


def audit(database: Path, storage: Path, plan: JobPlan) -> Findings:
    """Compare books and storage of a task whose pilot has ended."""
    books = run_oracle.read_books(database)
    found = Findings(ranges=plan.events)
    contents = {name: _open_archive(storage, name, books, found) for name in books.archives}
    keys = [each.key for each in books.ranges]
    if len(keys) != plan.events or len(set(keys)) != plan.events:
        found.lost.append(f"{plan.events} ranges, the server has {len(set(keys))} in {len(keys)}")
    for each in books.ranges:
        _audit_range(each, contents, plan, found)
    _audit_archives(books, contents, found)
    return found


def _open_archive(
    storage: Path, name: str, books: Books, found: Findings
) -> dict[str, bytes] | None:
    """The members of a reported archive; None when it is not whole on the storage."""
    try:
        return run_oracle.read_archive(storage, books.archives[name])
    except FileNotFoundError:
        return None
    except AssertionError as error:
        found.wrong_output.append(f"archive {name}: {error}")
        return {}


def _audit_range(
    each: Range, contents: dict[str, dict[str, bytes] | None], plan: JobPlan, found: Findings
) -> None:
    if each.fate == "sent":
        found.lost.append(f"{each.id} is held by a job that is over")
    if each.fate != "finished":
        return
    found.finished += 1
    members = contents.get(each.archive or "")
    if members is None:
        found.lost.append(f"{each.id} is booked as finished, {each.archive} is not on the storage")
        return
    for name in plan.names:
        data = members.get(f"{name}.{each.id}")
        if data is None:
            found.lost.append(f"{name}.{each.id} is not in {each.archive}")
        elif data != expected_content(each.id, plan.size_bytes):
            found.wrong_output.append(f"{name}.{each.id} in {each.archive}")


def _audit_archives(
    books: Books, contents: dict[str, dict[str, bytes] | None], found: Findings
) -> None:
    """No range lies in two reported archives, and none that is not finished in one."""
    finished = {each.key for each in books.ranges if each.fate == "finished"}
    where: dict[tuple[int, int], set[str]] = {}
    for archive, members in contents.items():
        for name in members or ():
            where.setdefault(_key_of(name), set()).add(archive)
    for key, archives in where.items():
        if len(archives) > 1:
            found.doubled.append(f"range {key} lies in {sorted(archives)}")
        if key not in finished:
            found.wrong_output.append(f"range {key} is not finished but lies in {archives}")


def _key_of(member: str) -> tuple[int, int]:
    """File and process number of the range that a member belongs to."""
    fields = member.rpartition(".")[2].split("-")
    return int(fields[2]), int(fields[3])


def orphans(workdir: Path, state: Path, runtimes: set[str]) -> list[str]:
    """Processes, sockets and files that an ended run has left."""
    found = [f"process {pid} {what}" for pid, what in run_oracle.processes_of(workdir).items()]
    found += [str(path) for path in _sockets(workdir, runtimes) if path.exists()]
    found += [str(path) for path in _runtime_directories(workdir)]
    found += [str(path) for path in (state / "archives").glob("*")]
    found += [str(path) for path in (state / "archives").glob(".*")]
    found += [str(path) for path in (workdir / "storage").glob(".*")]
    found += [str(path) for path in state.glob(".*.tmp")]
    return sorted(set(found))


def _sockets(workdir: Path, runtimes: set[str]) -> Iterator[Path]:
    log = workdir / "logs" / "pilot.log"
    names = set(_CHANNEL.findall(log.read_text(errors="replace"))) if log.exists() else set()
    yield from (Path("/tmp", f"zmq_{name}") for name in names)
    yield from (Path(runtime) for runtime in runtimes)


def _runtime_directories(workdir: Path) -> Iterator[Path]:
    """Runtime directories whose context names this work directory."""
    for directory in Path("/tmp").glob("espilot-*"):
        try:
            texts = [path.read_text() for path in directory.glob("context-*.json")]
            contexts = [json.loads(text) for text in texts]
        except (OSError, ValueError):
            # Another pilot's, which goes away or is being written just now.
            continue
        if any(context.get("workdir") == str(workdir) for context in contexts):
            yield directory
