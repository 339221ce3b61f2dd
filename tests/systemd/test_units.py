"""The files for systemd, checked by systemd's own tools, without a machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "etc" / "systemd"
EXAMPLES = sorted((UNITS / "examples").glob("*.conf"))
EXPOSURE = {
    "10-strict.conf": 1.6, "20-container.conf": 2.5, "30-gpu.conf": 2.0, "40-credentials.conf": 2.0,
}  # fmt: skip
"""At most, with that drop-in; of the newest one systemd 252 knows no key."""

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="SKIPPED: no systemd-analyze on this machine"
)


def unit_tree(tmp_path: Path, drop_ins: Sequence[Path] = ()) -> Path:
    """The units with a program that exists, as the checks want it."""
    for name in ("espilot@.service", "espilot.target", "espilot.slice"):
        text = (UNITS / name).read_text().replace("/usr/bin/espilot", "/bin/true")
        (tmp_path / name).write_text(text)
    directory = tmp_path / "espilot@.service.d"
    directory.mkdir()
    for path in drop_ins:
        shutil.copy(path, directory)
    return tmp_path


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("drop_in", [None, *EXAMPLES[:4]], ids=lambda p: p.name if p else "base")
def test_lesson_59_verify_says_nothing(tmp_path: Path, drop_in: Path | None) -> None:
    """systemd finds nothing to say of the units; its exit code alone says nothing."""
    tree = unit_tree(tmp_path, [drop_in] if drop_in else [])
    units = [str(tree / n) for n in ("espilot@.service", "espilot.target", "espilot.slice")]
    done = run("systemd-analyze", "verify", "--man=no", *units)
    assert (done.returncode, done.stderr) == (0, "")


def test_verify_would_say_something(tmp_path: Path) -> None:
    """The check before sees an unknown key."""
    tree = unit_tree(tmp_path)
    service = tree / "espilot@.service"
    service.write_text(service.read_text().replace("[Service]\n", "[Service]\nNoSuchKey=1\n"))
    assert "NoSuchKey" in run("systemd-analyze", "verify", "--man=no", str(service)).stderr


def exposure(service: Path) -> float:
    """The score of `systemd-analyze security`, from 0 (best) to 10."""
    done = run(
        "systemd-analyze", "security", "--offline=true", "--threshold=100", "--no-pager",
        str(service),
    )  # fmt: skip
    line = next(each for each in done.stdout.splitlines() if "Overall exposure level" in each)
    return float(line.partition(": ")[2].split()[0])


def test_lesson_61_base_unit_is_well_confined(tmp_path: Path) -> None:
    """The exposure of the base unit is at most 2.0, by systemd's own judgement of each check."""
    service = unit_tree(tmp_path) / "espilot@.service"
    argv = ("systemd-analyze", "security", "--offline=true", "--threshold=20")
    assert run(*argv, str(service)).returncode == 0
    assert exposure(service) <= 2.0
    checks = json.loads(run(*argv, "--json=short", str(service)).stdout)
    assert len(checks) > 70


@pytest.mark.parametrize("drop_in", EXAMPLES[:4], ids=lambda path: path.name)
def test_exposure_with_drop_ins(tmp_path: Path, drop_in: Path) -> None:
    """No drop-in opens more than it says."""
    tree = unit_tree(tmp_path, [drop_in])
    assert exposure(tree / "espilot@.service") <= EXPOSURE[drop_in.name]


def test_users_and_directories(tmp_path: Path) -> None:
    """The user and the directories are made in an empty system, credentials for root only."""
    for kind in ("sysusers", "tmpfiles"):
        target = tmp_path / "usr" / "lib" / f"{kind}.d"
        target.mkdir(parents=True)
        shutil.copy(UNITS / f"espilot.{kind}", target / "espilot.conf")
    (tmp_path / "etc").mkdir()
    done = run("systemd-sysusers", f"--root={tmp_path}")
    assert done.returncode == 0, done.stderr
    passwd = (tmp_path / "etc" / "passwd").read_text()
    assert passwd.startswith("espilot:") and "/var/lib/espilot" in passwd
    done = run("systemd-tmpfiles", f"--root={tmp_path}", "--create")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "etc" / "espilot" / "credentials").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "var" / "lib" / "espilot-metrics").is_dir()


def test_log_rotation(tmp_path: Path) -> None:
    """The rotation rule is understood, and neither copies nor restarts (lesson 61)."""
    if shutil.which("logrotate") is None:
        pytest.skip("SKIPPED: no logrotate on this machine")
    rule = tmp_path / "rule"
    text = (UNITS / "espilot.logrotate").read_text()
    rule.write_text(text.replace("    su espilot espilot\n", ""))
    done = run("logrotate", "-d", str(rule))
    assert "error" not in done.stderr.lower()
    assert "postrotate" not in text
    assert "nocopytruncate" in text


def test_command_line_of_the_unit() -> None:
    """The unit's command line is one that the program understands."""
    from espilot.cli.main import make_parser

    text = (UNITS / "espilot@.service").read_text()
    for key in ("ExecStartPre=", "ExecStart="):
        line = next(each for each in text.splitlines() if each.startswith(key))
        words = line.partition("=")[2].lstrip("-")
        for specifier, value in (("%i", "1"), ("%S", "/s"), ("%t", "/t")):
            words = words.replace(specifier, value)
        make_parser().parse_args(words.split()[1:])
