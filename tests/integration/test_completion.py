"""Completion as the shells do it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from espilot.cli.main import main


@pytest.fixture
def script(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Path:
    assert main(["completion", request.param]) == 0
    path = tmp_path / f"espilot.{request.param}"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("espilot sta", "status"),
        ("espilot run --ev", "--events"),
        ("espilot run --local jo", "job.toml"),
    ],
)
def test_bash_completes(script: Path, words: str, found: str) -> None:
    """bash completes commands, options and files."""
    (script.parent / "job.toml").write_text("")
    lines = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={words.count(' ')}; _espilot; "
    done = subprocess.run(
        ["bash", "-c", lines + 'printf "%s\\n" "${COMPREPLY[@]}"'],
        cwd=script.parent, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [found]


@pytest.mark.parametrize("script", ["zsh", "fish"], indirect=True)
def test_other_shells_can_read_it(script: Path) -> None:
    """The script is correct for the shell, where it is installed."""
    shell = script.suffix[1:]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(script)], timeout=30, check=True)
