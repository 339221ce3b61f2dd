"""Every command that the documents show is run, page by page, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pilot_run import ESPILOT, ROOT, end_processes_of

PAGES = ["README.md", "docs/tutorial.md", "docs/payload-guide.md", "docs/embedding.md"]
NOT_HERE = ("make ", "git ", "cd ", ". .venv", "espilot page", "espilot top", "espilot server")
"""What installs, and what does not end by itself: they have tests of their own."""
PAGE_S = 400.0


def script_of(page: str) -> str:
    """The shell blocks of a page, without the lines that are not for a test."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text(), flags=re.M | re.S)
    lines = "".join(blocks).splitlines()
    return "\n".join(line for line in lines if not line.startswith(NOT_HERE)) + "\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty directory, with the program on the PATH."""
    (tmp_path / "bin").mkdir()
    for name, command in (("espilot", " ".join(ESPILOT)), ("python3", sys.executable)):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
    (tmp_path / "here").mkdir()
    yield tmp_path / "here"
    end_processes_of(tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page(place: Path, page: str) -> None:
    """They work in the order of the page, each with exit code 0, and say what the page says."""
    script = script_of(page)
    path = os.pathsep.join((str(place.parent / "bin"), str(Path(sys.executable).parent)))
    done = subprocess.run(
        ["bash", "-e", "-u", "-x", "-o", "pipefail", "-c", script],
        cwd=place, capture_output=True, text=True, timeout=PAGE_S,
        env={**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr


def test_the_pages_show_commands() -> None:
    """A test that runs nothing would find nothing: the blocks are there."""
    assert script_of("docs/tutorial.md").count("espilot ") >= 12
    assert "espilot run --local" in script_of("README.md")
