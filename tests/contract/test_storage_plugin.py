"""A storage of another package: found by its entry point, held to the contract, used in a run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from espilot.adapters.storage import PLUGIN_GROUP, open_storage
from espilot.adapters.storage.contract import CHECKS, Subject
from espilot.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))
from pilot_run import FAKE, job_text, runner_in

PLUGIN = '''
import shutil
import zlib
from pathlib import Path

from espilot.errors import StorageFatal, StorageRetryable


class Shelf:
    """A directory, named by shelf:/PATH."""

    def __init__(self, endpoint):
        self.url = endpoint.url
        self.storage_id = endpoint.storage_id
        self._path = Path(endpoint.url.partition(":")[2])

    def put(self, source, name, *, size_bytes, adler32, crc32=""):
        target = self._file(name)
        try:
            data = source.read_bytes()
        except OSError as error:
            raise StorageFatal(f"{self.url}: cannot read {name}: {error.strerror}") from error
        self._require(name, data, size_bytes, adler32)
        self._path.mkdir(parents=True, exist_ok=True)
        temporary = self._path / f".{name}"
        temporary.write_bytes(data)
        temporary.replace(target)

    def verify(self, name, *, size_bytes, adler32):
        file = self._file(name)
        data = file.read_bytes() if file.exists() else b""
        self._require(name, data, size_bytes, adler32)

    def get(self, name, target, *, size_bytes, adler32):
        self.verify(name, size_bytes=size_bytes, adler32=adler32)
        shutil.copyfile(self._file(name), target)

    def delete(self, name):
        self._file(name).unlink(missing_ok=True)

    def url_of(self, name):
        return f"{self.url}/{self._file(name).name}"

    def close(self):
        pass

    def _file(self, name):
        if not name.isprintable() or "/" in name or name[:1] in ("", ".") or len(name) > 200:
            raise StorageFatal(f"{self.url}: cannot use the name {ascii(name)[:80]}")
        return self._path / name

    def _require(self, name, data, size_bytes, adler32):
        if (len(data), f"{zlib.adler32(data):08x}") != (size_bytes, adler32):
            raise StorageRetryable(f"{self.url}: {name} is not what it should be")
'''
ENTRIES = f"""\
[{PLUGIN_GROUP}]
shelf = shelf_storage:Shelf
hollow = shelf_storage:NoSuchName
broken = no_such_module:Anything
"""


def install(directory: Path) -> Path:
    """Put the package where `pip install --target` would."""
    package, facts = directory / "shelf_storage", directory / "shelf_storage-1.0.dist-info"
    for each in (package, facts):
        each.mkdir(parents=True)
    (package / "__init__.py").write_text(PLUGIN)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf-storage\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRIES)
    return directory


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package, importable in this process."""
    monkeypatch.syspath_prepend(str(install(tmp_path / "site")))
    importlib.invalidate_caches()
    yield tmp_path / "site"
    sys.modules.pop("shelf_storage", None)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Subject], None], installed: Path, tmp_path: Path) -> None:
    """The suite of the contract runs against a storage that a plug-in made."""
    shelf, local = tmp_path / "shelf", tmp_path / "local"
    local.mkdir()

    def listing() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in shelf.glob("*")}

    check(Subject(open_storage(f"shelf:{shelf}", storage_id=7), local, listing))


@pytest.mark.parametrize("scheme", ["hollow", "broken"])
def test_plugin_that_cannot_be_loaded(installed: Path, scheme: str) -> None:
    """A plug-in without its module or its class is named, with what is missing."""
    with pytest.raises(ConfigError, match=r"plug-in .* cannot be imported: .*(NoSuchName|no_such)"):
        open_storage(f"{scheme}:/x")


def test_unknown_scheme(installed: Path) -> None:
    """A scheme that nobody knows is answered with what is installed."""
    with pytest.raises(ConfigError, match=r"unknown kind 'gopher'.*shelf:"):
        open_storage("gopher:/x")


def test_whole_run(tmp_path: Path) -> None:
    """The pilot ships to the storage of a plug-in, which all its processes find."""
    site = install(tmp_path / "site")
    with runner_in(tmp_path) as runner:
        text = job_text(f"{FAKE} --outsize 1000", events=60)
        shelf = tmp_path / "shelf"
        run = runner.start(text, "--storage", f"shelf:{shelf}", env={"PYTHONPATH": str(site)})
        run.storage = shelf
        run.require_finished(60, size_bytes=1000)
