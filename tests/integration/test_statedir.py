"""One pilot at a time, and what an earlier one left."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from espilot.config import Settings, TaskConfig
from espilot.errors import LocalError, UsageError
from espilot.model import EventRange, Job
from espilot.queue.store import Queue
from espilot.server.options import ServerOptions
from espilot.server.store import Store
from espilot.supervisor import statedir
from espilot.supervisor.resume import note_run, prepare_state
from espilot.supervisor.statedir import StateDir
from espilot.workers.context import Context
from espilot.workers.local_task import read_local_task


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    """A locked state directory."""
    state = StateDir(tmp_path / "state")
    yield state
    state.close()


def context_of(state: StateDir, name: str) -> Context:
    """A context for a task of this name."""
    task = TaskConfig(name=name, events=10)
    return Context(
        workdir=state.path.parent,
        state=state.path,
        runtime=state.runtime,
        storage=str(state.path.parent / "storage"),
        settings=Settings(task=task),
    )


def test_second_pilot_is_told_the_first(state: StateDir) -> None:
    """A state directory in use is refused with the pid of its pilot."""
    with pytest.raises(LocalError, match=f"process {os.getpid()}"):
        StateDir(state.path)


def test_runtime_directory_is_private_and_short(state: StateDir) -> None:
    """Only we may enter it, and socket paths in it fit into 107 bytes."""
    assert state.runtime.stat().st_mode & 0o777 == 0o700
    assert len(str(state.runtime)) < 40


def test_runtime_directory_of_a_dead_pilot_is_removed(tmp_path: Path) -> None:
    """What a killed predecessor left in /tmp goes when the next pilot starts."""
    first = StateDir(tmp_path / "state")
    record = (first.path / "pilot.json").read_text()
    left = first.runtime
    first.close()
    left.mkdir()
    (first.path / "pilot.json").write_text(record)
    second = StateDir(tmp_path / "state")
    try:
        assert not left.exists()
    finally:
        second.close()


def test_unfinished_task_goes_on(state: StateDir) -> None:
    """The same task is gone on with; its queue stays."""
    context = context_of(state, "one")
    assert not prepare_state(context)
    queue = Queue(context.queue)
    with queue.moves() as moves:
        moves.put_ranges([EventRange("1-2-3-1-1", 1, 1, "f", "g", "s")], now=1.0)
    queue.close()
    assert prepare_state(context)
    queue = Queue(context.queue)
    assert queue.counts().ready == 1
    queue.close()


def test_another_task_is_refused(state: StateDir) -> None:
    """An unfinished task is not overwritten by another one; the error names it."""
    prepare_state(context_of(state, "one"))
    with pytest.raises(UsageError, match="unfinished task 'one'"):
        prepare_state(context_of(state, "two"))


@pytest.mark.parametrize("name", ["one", "two"])
def test_finished_task_makes_room(state: StateDir, name: str) -> None:
    """After a task is over, the next run starts anew, also with another task."""
    context = context_of(state, "one")
    prepare_state(context)
    note_run(context, "finished")
    (context.state / "server.sqlite").touch()
    assert not prepare_state(context_of(state, name))
    assert not (context.state / "server.sqlite").exists()


def test_lesson_12_unreported_work_of_a_finished_task_is_kept(state: StateDir) -> None:
    """What is not reported yet is never thrown away, whatever the record says."""
    context = context_of(state, "one")
    prepare_state(context)
    queue = Queue(context.queue)
    with queue.moves() as moves:
        moves.set_job(Job(1, 2, 3, 1, 1, ("o",), "log"), "settling", {})
    queue.close()
    note_run(context, "failed")
    assert prepare_state(context)


@pytest.mark.parametrize("text", ["", "{", '{"state": "running"}', '{"task": 3, "state": 4}'])
def test_lost_record_does_not_cost_a_live_queue(state: StateDir, text: str) -> None:
    """Without a usable record, what is live is gone on with; another task is refused."""
    context = context_of(state, "one")
    prepare_state(context)
    store = Store(context.database, ServerOptions(), now=1.0)
    store.create_task(read_local_task(context.settings), 1.0)
    store.close()
    queue = Queue(context.queue)
    with queue.moves() as moves:
        moves.set_job(Job(1, 2, 3, 1, 1, ("o",), "log"), "running", {})
        moves.put_ranges([EventRange("1-2-3-1-1", 1, 1, "f", "g", "s")], now=1.0)
    queue.close()
    (state.path / "run.json").write_text(text)
    with pytest.raises(UsageError, match="unfinished task"):
        prepare_state(context_of(state, "two"))
    assert prepare_state(context)
    queue = Queue(context.queue)
    assert queue.counts().ready == 1
    queue.close()


def test_noted_channels_are_removed(tmp_path: Path) -> None:
    """The sockets that killed dispatchers left go, all of them; a file of such a name stays."""
    names = [f"test-{uuid.uuid4().hex}" for _ in range(4)]
    paths = [statedir.channel_path(name) for name in names]
    first = StateDir(tmp_path)
    for name, path in zip(names[:3], paths[:3], strict=True):
        statedir.note_channel(tmp_path, name)
        with socket.socket(socket.AF_UNIX) as each:
            each.bind(str(path))
    paths[1].unlink()
    statedir.note_channel(tmp_path, names[3])
    paths[3].touch()
    assert statedir.channels_of(statedir.read_record(tmp_path)) == [names[0], names[2], names[3]]
    first.close()
    try:
        assert [path.exists() for path in paths] == [False, False, False, True]
    finally:
        paths[3].unlink()


def test_damaged_record_of_channels_is_ignored() -> None:
    """Names that are no names of sockets in /tmp are left out."""
    assert statedir.channels_of({"channels": ["a/../b", 3, "", "x"]}) == ["x"]
    assert statedir.channels_of({"channels": "x"}) == []
