"""The pilot as one archive for factories: `tools/tarball.py OUTPUT.tar.gz`.

It unpacks to `pilot3/`, as wrappers want it: `pilot.py`, `PILOTVERSION`, `bin/espilot`, the package
and its dependencies. Pure packages are there once, compiled ones for each supported Python, so the
node needs a Python and nothing else: no pip, no network, no right to write there.
"""

from __future__ import annotations

import argparse
import compileall
import io
import py_compile
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP = "pilot3"
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
COMMON = "common"
PILOT_PY = '''\
"""The pilot under the name by which wrappers start one."""

import os

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "espilot")
with open(PATH) as file:
    # Not by runpy, which would hide the name that we were called by.
    exec(compile(file.read(), PATH, "exec"), {"__name__": "__main__", "__file__": PATH})
'''
PATHS = """
import sys  # noqa: E402

_TOP = __file__.rpartition("/espilot/")[0]
for _name in ("cp%d%d" % sys.version_info[:2], "common"):
    if f"{_TOP}/lib/{_name}" not in sys.path:
        sys.path.insert(0, f"{_TOP}/lib/{_name}")
"""
"""Added to the package, so that every process that imports it finds the dependencies."""


def requirements() -> list[str]:
    """What the package needs, without extras."""
    needed = metadata.requires("espilot") or []
    return [text for text in needed if "extra ==" not in text]


def download(python: str, directory: Path) -> list[Path]:
    """The wheels for one Python; a package without a wheel is an error."""
    target = directory / f"cp{python.replace('.', '')}"
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    argv += ["--implementation", "cp", "--python-version", python, "--dest", str(target)]
    for platform in PLATFORMS:
        argv += ["--platform", platform]
    subprocess.run([*argv, *requirements()], check=True)
    return sorted(target.glob("*.whl"))


def unpack(wheel: Path, library: Path) -> None:
    """One wheel's modules and its licences; scripts and headers stay out."""
    python = f"cp{library.name.removeprefix('cp')}"
    pure = wheel.name.endswith("-none-any.whl")
    target = library.with_name(COMMON if pure else python)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            place = place_of(name)
            if place and not name.endswith("/"):
                path = target / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))


def place_of(name: str) -> str:
    """Where a file of a wheel belongs below the library; "" for nowhere."""
    kept = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", name)
    return "" if re.match(r"[^/]+\.data/", kept) or ".." in kept.split("/") else kept


def copy_package(top: Path) -> None:
    """Our own package and commands."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "espilot", top / "espilot", ignore=ignore)
    shutil.copytree(ROOT / "etc", top / "etc", ignore=ignore)
    (top / "bin").mkdir()
    for name in ("espilot", "fake-payload"):
        shutil.copy2(ROOT / "bin" / name, top / "bin" / name)
    package = top / "espilot" / "__init__.py"
    package.write_text(package.read_text() + PATHS)
    (top / "pilot.py").write_text(PILOT_PY)
    (top / "pilot.py").chmod(0o755)
    (top / "PILOTVERSION").write_text(metadata.version("espilot") + "\n")


def compile_all(top: Path) -> None:
    """Byte code for the Python that runs us: nothing can be written there later.

    Unchecked, since unpacking may change the times of the sources.
    """
    compileall.compile_dir(
        top, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, workers=1
    )


def pack(top: Path, output: Path) -> None:
    """The archive, owned by nobody in particular, under its name only when it is whole."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mode |= 0o444 | (0o111 if entry.isdir() else 0)
        return entry

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        archive.add(top, TOP, filter=plain)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.tmp")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(output)


def build(output: Path, pythons: tuple[str, ...] = PYTHONS) -> None:
    """Make the archive for these Pythons."""
    with tempfile.TemporaryDirectory(prefix="espilot-tarball-") as name:
        directory = Path(name)
        top = directory / TOP
        copy_package(top)
        for python in pythons:
            for wheel in download(python, directory / "wheels"):
                unpack(wheel, top / "lib" / wheel.parent.name)
        compile_all(top)
        pack(top, output)


def main() -> int:
    """Make the archive that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("output", type=Path)
    parser.add_argument("--python", action="append", metavar="3.N", help="instead of all")
    args = parser.parse_args()
    try:
        build(args.output, tuple(args.python or PYTHONS))
    except subprocess.CalledProcessError:
        sys.exit("tarball: a package could not be downloaded as a wheel, see above")
    size_mb = args.output.stat().st_size / 1e6
    sys.stdout.write(f"{args.output} ({size_mb:.1f} MB)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
