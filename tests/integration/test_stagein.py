"""Stage-in: which input is called corrupt, what has room, and what a stop means."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from espilot.config import Settings
from espilot.core.retry import Backoff
from espilot.errors import (
    InputError,
    LocalError,
    MessageError,
    StorageDiffers,
    StorageFatal,
    StorageRetryable,
)
from espilot.executors.merge import missing_members
from espilot.executors.stagein import ADLER_DIFFERS, NO_SPACE, STAGEIN_FAILED, Failure, StageIn
from espilot.logs import open_log
from espilot.task_section import TaskConfig
from espilot.wire.jobfiles import JobInput, read_inputs
from espilot.workers.context import Context
from espilot.workers.inputs import Sources, local_files

DATA = b"what an event has become\n" * 40
ADLER32 = f"{zlib.adler32(DATA):08x}"
ARCHIVE = JobInput("a.tar", True, len(DATA), ADLER32, storage_id=5, endpoint="main")


class Failing:
    """A storage that gives nothing, for one reason."""

    url, storage_id = "failing:", 5

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked = 0

    def get(self, name: str, target: Path, *, size_bytes: int, adler32: str) -> None:
        """Fail."""
        self.asked += 1
        raise self.error


def stage_in(
    directory: Path,
    storages: Mapping[str, Any],
    *,
    pause: Callable[[float], bool] = lambda _: False,
    max_s: float = 0.0,
    local: Mapping[str, Path] | None = None,
) -> StageIn:
    """One that tries twice."""
    directory.mkdir(exist_ok=True)
    return StageIn(
        Sources(storages, local or {}),
        directory,
        Backoff(0.0, max_s, attempts=2),
        parallel=1,
        log=open_log("executor", directory.parent / "log"),
        pause=pause,
    )


def failure_with(tmp_path: Path, *errors: Exception, wanted: JobInput = ARCHIVE) -> Failure:
    """How it fails with storages `main`, `other1`, ... that fail so."""
    names = ["main", *(f"other{n}" for n in range(1, len(errors)))]
    storages = {name: Failing(error) for name, error in zip(names, errors, strict=True)}
    for name in names[1:]:
        storages[name].storage_id = 6
    (failure,) = stage_in(tmp_path / "in", storages).fetch([wanted])
    return failure


@pytest.mark.parametrize(
    "error",
    [StorageRetryable("busy, HTTP 503"), StorageFatal("HTTP 403"), LocalError("no room here")],
)
def test_what_another_storage_lacks_is_not_corrupt(tmp_path: Path, error: Exception) -> None:
    """An archive whose storage is down is not lost because the other storage never had it."""
    failure = failure_with(tmp_path, error, StorageDiffers("not there"))
    assert (failure.corrupt, failure.code, failure.text) == (False, STAGEIN_FAILED, str(error))


def test_what_its_own_storage_lacks_is_corrupt(tmp_path: Path) -> None:
    """The named storage has the last word, whatever ails the others."""
    failure = failure_with(tmp_path, StorageDiffers("not there"), StorageRetryable("busy"))
    assert (failure.corrupt, failure.code, failure.text) == (True, ADLER_DIFFERS, "not there")


@pytest.mark.parametrize(
    ("second", "corrupt"), [(StorageDiffers("not there"), True), (StorageFatal("403"), False)]
)
def test_without_a_named_storage_all_must_lack_it(
    tmp_path: Path, second: Exception, corrupt: bool
) -> None:
    """Where nobody knows the place, one storage that did not answer may be the place."""
    nowhere = JobInput("a.tar", True, len(DATA), ADLER32)
    failure = failure_with(tmp_path, StorageDiffers("not there"), second, wanted=nowhere)
    assert failure.corrupt is corrupt


@pytest.mark.parametrize("inputs", [(), ("near/in.root",)])
def test_input_that_is_a_link_is_itself(tmp_path: Path, inputs: tuple[str, ...]) -> None:
    """A link gives what it leads to, not a file of its own name beside that."""
    near, far = tmp_path / "job" / "near", tmp_path / "far"
    near.mkdir(parents=True)
    far.mkdir()
    (far / "blob-8812").write_bytes(DATA)
    (far / "in.root").write_bytes(b"of somebody else")
    link = near / "in.root" if inputs else tmp_path / "job" / "in.root"
    link.symlink_to(far / "blob-8812")
    settings = Settings(task=TaskConfig(inputs=inputs))
    context = Context(tmp_path, tmp_path, tmp_path, "", settings, jobdir=tmp_path / "job")
    wanted = [JobInput("in.root")]
    local = local_files(context, wanted)
    getter = stage_in(tmp_path / "in", {}, local=local)
    assert getter.fetch(wanted) == []
    assert (tmp_path / "in" / "in.root").read_bytes() == DATA
    assert Path(Sources({}, local).address_of(wanted[0])).read_bytes() == DATA


def test_inputs_that_are_there_need_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second start on a disk that the first one has filled finds its inputs; others find none."""
    monkeypatch.setattr("espilot.executors.stagein.free_bytes", lambda _: len(DATA) - 1)
    getter = stage_in(tmp_path / "in", {"main": Failing(StorageFatal("not to be asked"))})
    (tmp_path / "in" / "a.tar").write_bytes(DATA)
    assert getter.fetch([ARCHIVE]) == []
    (tmp_path / "in" / "a.tar").write_bytes(DATA[1:])
    with pytest.raises(InputError, match="are free") as caught:
        getter.fetch([ARCHIVE])
    assert caught.value.code == NO_SPACE


def test_pause_that_a_storage_asks_for_is_bounded(tmp_path: Path) -> None:
    """A server's Retry-After counts, up to the longest pause of our own."""
    pauses: list[float] = []
    for asked_s in (3.0, 86400.0):
        storage = Failing(StorageRetryable("busy", retry_after_s=asked_s))
        getter = stage_in(
            tmp_path / "in",
            {"main": storage},
            pause=lambda pause_s: bool(pauses.append(pause_s)),
            max_s=5.0,
        )
        assert len(getter.fetch([ARCHIVE])) == 1
    assert 3.0 <= pauses[0] <= 5.0
    assert pauses[1:] == [5.0]


def test_input_that_a_stop_leaves_waiting_is_not_corrupt(tmp_path: Path) -> None:
    """A file that may still come late is not lost because the job was ended meanwhile."""
    storage = Failing(StorageDiffers("not there"))
    getter = stage_in(tmp_path / "in", {"main": storage}, pause=lambda _: True)
    (failure,) = getter.fetch([ARCHIVE])
    assert (failure.corrupt, failure.code, storage.asked) == (False, STAGEIN_FAILED, 1)


def test_direct_access_without_storages(tmp_path: Path) -> None:
    """An input of which no place is known is an error that names it."""
    with pytest.raises(InputError, match=r"input a\.tar: no storage is known"):
        Sources({}, {}).address_of(ARCHIVE)


def test_name_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    """Before anybody looks for the file."""
    name = "\u00e9" * 200
    with pytest.raises(OSError, match="too long"):
        (tmp_path / name).is_file()
    with pytest.raises(MessageError, match="inFiles"):
        read_inputs({"inFiles": name})
    with pytest.raises(MessageError, match="writeToFile"):
        missing_members({"inFiles": "a", "writeToFile": f"lst:{name}"}, [], tmp_path)
