"""The accounting of a run: what the server booked, what lies on the storage, what was left behind.

Nothing of the pilot's own bookkeeping is believed: the server's database, the archives on the
storage and the processes of the machine are looked at.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from espilot.payload.fake.content import expected_content

FINISHED, DONE, MERGED = 3, 6, 9
_CHANNEL = re.compile(r"EventService_EventRanges-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Range:
    """One range as the server knows it: its last attempt, its owner and its archive."""

    key: tuple[int, int]
    id: str
    fate: str
    archive: str | None
    error_diag: str | None


@dataclass(slots=True)
class Account:
    """All ranges of a task by their fate, and the members of the archives that the server lists."""

    ranges: list[Range] = field(default_factory=list)
    members: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def with_fate(self, fate: str) -> list[Range]:
        """The ranges that ended so: `finished`, `failed`, `fatal`, or `ready`, `sent`."""
        return [each for each in self.ranges if each.fate == fate]

    def content_of(self, range_id: str) -> dict[str, bytes]:
        """The outputs of one range by member name, from the archive that was reported for it."""
        archive = next(each.archive for each in self.ranges if each.id == range_id)
        assert archive is not None
        members = self.members[archive]
        return {name: data for name, data in members.items() if name.endswith(f".{range_id}")}


@dataclass(frozen=True, slots=True)
class Books:
    """What the server's database says: the last attempt of each range, and the archives by name."""

    ranges: list[Range]
    archives: dict[str, sqlite3.Row]
    task: sqlite3.Row


def read_books(database: Path) -> Books:
    """Read the database of a server that serves one task."""
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    try:
        rows = db.execute("SELECT * FROM event WHERE copied = 0").fetchall()
        archives = db.execute("SELECT * FROM archive").fetchall()
        task = db.execute("SELECT * FROM task").fetchone()
    finally:
        db.close()
    by_name = {row["lfn"]: row for row in archives}
    assert len(by_name) == len(archives), "an archive is listed twice"
    return Books([_read_range(row) for row in rows], by_name, task)


def take_account(database: Path, storage: Path, *, doubles: bool = False) -> Account:
    """Read the books and the storage, and require that they agree with one another.

    `doubles`: a range may lie in a second reported archive, beside the one that counts.
    """
    books = read_books(database)
    account = Account(books.ranges)
    keys = [each.key for each in account.ranges]
    assert len(set(keys)) == len(keys) == books.task["total"], "a range twice, or missing"
    for name, archive in books.archives.items():
        account.members[name] = read_archive(storage, archive)
    if not doubles:
        _require_each_finished_once(account)
    for name in ("finished", "failed", "fatal"):
        assert len(account.with_fate(name)) == books.task[name], name
    return account


def require_contents(account: Account, *, lfns: tuple[str, ...], size_bytes: int = 100) -> None:
    """Require that every finished range has exactly the outputs that the fake payload makes."""
    for each in account.with_fate("finished"):
        wanted = {f"{lfn}.{each.id}": expected_content(each.id, size_bytes) for lfn in lfns}
        assert account.content_of(each.id) == wanted, each.id


def require_nothing_left(
    workdir: Path, state: Path, runtimes: set[str], *, archives: frozenset[str] = frozenset()
) -> None:
    """Require that no process, socket or file of a run is left but the named archives."""
    left = processes_of(workdir)
    assert not left, f"processes left: {left}"
    text = (workdir / "logs" / "pilot.log").read_text() if (workdir / "logs").exists() else ""
    sockets = [Path("/tmp", f"zmq_{name}") for name in set(_CHANNEL.findall(text))]
    sockets += [Path(each) for each in runtimes]
    assert not [str(each) for each in sockets if each.exists()]
    found = {each.name for each in (state / "archives").glob("*")}
    allowed = archives | {f"{name}.json" for name in archives}
    strange = {each for each in found if not any(each.startswith(name[:-4]) for name in archives)}
    assert not strange, f"files in state/archives: {strange}, expected {allowed}"


def processes_of(workdir: Path) -> dict[int, str]:
    """Live processes and zombies of ours that name the work directory, by pid."""
    found = {}
    needle = os.fsencode(str(workdir))
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            names_it = needle in command or needle in (entry / "environ").read_bytes()
        except (OSError, ProcessLookupError):
            continue
        if names_it:
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")[:120]
    return found


def children_of(pid: int) -> dict[int, str]:
    """The children of a process, by pid, with their command lines (empty for zombies)."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, ProcessLookupError):
            continue
        if int(stat[1]) == pid:
            found[int(entry.name)] = command
    return found


def booked(database: Path) -> int:
    """How many ranges the server has booked as finished so far."""
    return task_value(database, "finished")


def task_value(database: Path, column: str) -> int:
    """One number of the task's row; 0 while there is none."""
    return int(_task_field(database, column) or 0)


def task_state(database: Path) -> str:
    """How the task stands; "" while there is none."""
    return str(_task_field(database, "state") or "")


def _task_field(database: Path, column: str) -> object:
    try:
        db = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5.0)
    except sqlite3.Error:
        return None
    try:
        row = db.execute(f"SELECT {column} FROM task").fetchone()
    except sqlite3.Error:
        return None
    finally:
        db.close()
    return row[0] if row else None


def queued(state: Path) -> dict[str, int]:
    """The counts of the shared queue of a run that is over."""
    from espilot.queue.store import Queue

    queue = Queue(state / "queue")
    try:
        counts = queue.counts()
        return {name: getattr(counts, name) for name in counts.__slots__}
    finally:
        queue.close()


def summary_of(stdout: str) -> dict[str, object]:
    """The summary object on the last line of stdout."""
    summary = json.loads(stdout.splitlines()[-1])
    assert isinstance(summary, dict)
    return summary


def _read_range(row: sqlite3.Row) -> Range:
    key = (row["file_id"], row["process_id"])
    range_id = (
        f"{row['task_id']}-{row['owner']}-{row['file_id']}-{row['process_id']}-{row['attempt_nr']}"
    )
    return Range(key, range_id, _fate_of(row), row["tar_lfn"], row["error_diag"])


def _fate_of(row: sqlite3.Row) -> str:
    """The fate by the row alone, as a reader of the books would tell it."""
    status, attempts = row["status"], row["attempt_nr"]
    if status in (FINISHED, DONE, MERGED):
        return "finished"
    if status in (1, 2):
        return "sent"
    left = attempts - (1 if status == 7 else 0)
    if row["fatal"]:
        return "fatal"
    return "ready" if left > 0 else "failed"


def read_archive(storage: Path, row: sqlite3.Row) -> dict[str, bytes]:
    """The members of an archive, after its size and checksum were compared with the report."""
    path = storage / row["lfn"]
    data = path.read_bytes()
    assert len(data) == row["size_bytes"], path
    assert f"{zlib.adler32(data):08x}" == row["adler32"], path
    members: dict[str, bytes] = {}
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            assert member.name not in members, f"{member.name} twice in {path}"
            file = tar.extractfile(member)
            assert file is not None
            members[member.name] = file.read()
    return members


def _require_each_finished_once(account: Account) -> None:
    """Each finished range lies in its archive, and nowhere else among those that are reported."""
    where: dict[str, list[str]] = {}
    for archive, members in account.members.items():
        for name in members:
            where.setdefault(name, []).append(archive)
    finished = account.with_fate("finished")
    for each in finished:
        assert each.archive in account.members, f"{each.id}: archive {each.archive} not reported"
        mine = [name for name in account.members[each.archive] if name.endswith(f".{each.id}")]
        assert mine, f"{each.id} is not in {each.archive}"
        for name in mine:
            assert where[name] == [each.archive], name
    ids = {each.id for each in finished}
    strangers = [name for name in where if name.rpartition(".")[2] not in ids]
    assert not strangers, f"in reported archives, but not finished: {strangers[:5]}"


def last_update(database: Path) -> dict[str, object]:
    """What the last update of the newest job told, under the v1 names."""
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        row = db.execute("SELECT pilot_fields FROM job ORDER BY panda_id DESC LIMIT 1").fetchone()
    finally:
        db.close()
    fields = json.loads(row[0])
    assert isinstance(fields, dict)
    return fields
