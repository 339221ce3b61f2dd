"""The archive for factories: unpacked anywhere, read-only, with the node's own Python alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("311", "312", "313")
IMPORTS = (
    "import lmdb, zmq, msgpack._cmsgpack, isal.isal_zlib, requests, ijson.backends.yajl2_c, boto3; "
)
LOOP_UP = """\
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 1))
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The archive, unpacked and without any right to write."""
    directory = tmp_path_factory.mktemp("tarball")
    archive = directory / "pilot3.tar.gz"
    tool = [sys.executable, str(ROOT / "tools" / "tarball.py"), str(archive)]
    made = subprocess.run(tool, capture_output=True, text=True, timeout=540, check=False)
    if "could not be downloaded" in made.stderr:
        pytest.skip(f"NO TARBALL: wheels cannot be downloaded here: {made.stderr[-300:]}")
    assert made.returncode == 0, made.stderr
    place = directory / "some where" / "else"
    place.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(place)], check=True)
    top = place / "pilot3"
    subprocess.run(["chmod", "-R", "a-w", str(top)], check=True)
    yield top
    subprocess.run(["chmod", "-R", "u+w", str(top)], check=True)


def node_python() -> str:
    """The node's own Python, without what our environment has installed."""
    return str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")


def run_there(top: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the archive in an empty environment; without network where we may."""
    argv = [node_python(), *arguments]
    if os.geteuid() == 0 and Path("/usr/bin/unshare").exists():
        argv = ["/usr/bin/unshare", "--net", node_python(), "-I", "-c", LOOP_UP, *argv]
    return subprocess.run(
        argv,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_a_wrapper_looks_for(unpacked: Path) -> None:
    """`pilot.py` and `PILOTVERSION` are there, and nothing may be written."""
    assert (unpacked / "pilot.py").is_file()
    assert (unpacked / "PILOTVERSION").read_text().strip()
    assert not any(path.stat().st_mode & 0o222 for path in unpacked.rglob("*"))


def test_compiled_packages_for_every_python(unpacked: Path) -> None:
    """Each supported Python has each compiled dependency, built for it and for manylinux."""
    for version in PYTHONS:
        names = [path.name for path in (unpacked / "lib" / f"cp{version}").rglob("*.so")]
        assert len(names) >= 5
        assert all(f"cpython-{version}-x86_64" in n or "abi3" in n for n in names), names
    assert not list((unpacked / "lib" / "common").rglob("*.so"))


def test_it_runs_with_the_nodes_python(unpacked: Path, tmp_path: Path) -> None:
    """In an empty environment, without pip and network, commands run and all packages load from
    the archive."""
    told = run_there(unpacked, tmp_path, str(unpacked / "bin" / "espilot"), "--version")
    assert told.returncode == 0 and told.stdout.startswith("espilot "), told.stderr
    code = f"import sys; sys.path.insert(0, {str(unpacked)!r}); import espilot; {IMPORTS}"
    code += "print(lmdb.__file__, zmq.__file__, requests.__file__, sep='\\n')"
    loaded = run_there(unpacked, tmp_path, "-I", "-S", "-c", code)
    assert loaded.returncode == 0, loaded.stderr
    places = loaded.stdout.splitlines()
    assert len(places) == 3 and all(p.startswith(f"{unpacked}/lib/") for p in places), places


def test_another_python_is_told(unpacked: Path, tmp_path: Path) -> None:
    """A Python without its packages in the archive ends with 65 and one line, if there is no
    other."""
    code = (
        "import sys, runpy; sys.version_info = (3, 9, 2, 'final', 0); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    path = str(unpacked / "bin" / "espilot")
    told = subprocess.run(
        [node_python(), "-c", code, path, "--version"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 65
    assert told.stderr == "espilot: this is Python 3.9, it needs Python 3.11, 3.12, 3.13\n"
