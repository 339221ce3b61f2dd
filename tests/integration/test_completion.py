"""Completion as the shells do it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
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


def require_shell(shell: str) -> None:
    """Skip where it is not installed, and say what stays untested."""
    if shutil.which(shell) is None:
        pytest.skip(f"NO {shell.upper()}: its completion is untested; install Debian's {shell}")


@pytest.mark.parametrize("script", ["zsh", "fish"], indirect=True)
def test_other_shells_can_read_it(script: Path) -> None:
    """The script is correct for the shell, where it is installed."""
    shell = script.suffix[1:]
    require_shell(shell)
    subprocess.run([shell, "-n", str(script)], timeout=30, check=True)


WORDS = [
    ("espilot sta", "status"),
    ("espilot check-payload --jun", "--junit"),
    ("espilot run --local jo", "job.toml"),
]


@pytest.mark.parametrize("script", ["fish"], indirect=True)
@pytest.mark.parametrize(("words", "found"), WORDS)
def test_fish_completes(script: Path, words: str, found: str) -> None:
    """fish completes commands, options and files."""
    require_shell("fish")
    (script.parent / "job.toml").write_text("")
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}; complete -C '{words}'"],
        cwd=script.parent, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [found]


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
@pytest.mark.parametrize(("words", "found"), WORDS)
def test_zsh_completes(script: Path, words: str, found: str) -> None:
    """zsh completes commands, options and files, when a person presses the tabulator."""
    require_shell("zsh")
    (script.parent / "job.toml").write_text("")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(script.parent)
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb"})
    try:
        start = (
            f"PROMPT=; autoload -Uz compinit; compinit -u -d dump; source {script}; echo rea''dy"
        )
        os.write(terminal, f"{start}\n".encode())
        read_until(terminal, "ready\r\n")
        os.write(terminal, f"{words}\t".encode())
        read_until(terminal, found)
    finally:
        os.close(terminal)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def read_until(terminal: int, wanted: str, within_s: float = 20.0) -> None:
    """Read what a terminal shows until the text is there."""
    seen, end_at = "", time.monotonic() + within_s
    while wanted not in seen:
        assert select.select([terminal], [], [], max(0.0, end_at - time.monotonic()))[0], seen
        seen += os.read(terminal, 4096).decode(errors="replace")
