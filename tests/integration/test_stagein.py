"""Stage-in: which input is called corrupt, what has room, and what a stop means."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from espilot.core.retry import Backoff
from espilot.errors import LocalError, StorageDiffers, StorageFatal, StorageRetryable
from espilot.executors.stagein import ADLER_DIFFERS, STAGEIN_FAILED, Failure, StageIn
from espilot.logs import open_log
from espilot.ports import Storage
from espilot.wire.jobfiles import JobInput
from espilot.workers.inputs import Sources

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
    storages: dict[str, Storage],
    *,
    pause: Callable[[float], bool] = lambda _: False,
    max_s: float = 0.0,
) -> StageIn:
    """One that tries twice."""
    directory.mkdir(exist_ok=True)
    return StageIn(
        Sources(storages, {}),
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
    (failure,) = stage_in(tmp_path / "in", storages).fetch([wanted])  # type: ignore[arg-type]
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
