"""The command that runs a payload in a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.errors import ConfigError
from espilot.supervisor.container import container_prefix, container_words, outermost

ENV = {"PILOT_EVENTRANGECHANNEL": "NAME", "ESPILOT_CORES": "4", "HOME": "/home/me", "X": "y"}


def prefix(template: str, tmp_path: Path) -> list[str]:
    """The words for two places, `a` and `b`."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    return container_prefix(
        template,
        directory=tmp_path / "a" / "payload-1",
        workdir=tmp_path / "a",
        places=[tmp_path / "a", tmp_path / "b", tmp_path / "none"],
        env=ENV,
    )


def test_apptainer(tmp_path: Path) -> None:
    """An option with `{mount}` comes once for each place."""
    words = prefix("apptainer exec --cleanenv --bind {mount} --pwd {directory} x.sif", tmp_path)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert words == ["apptainer", "exec", "--cleanenv", "--bind", a, "--bind", b,
                     "--pwd", f"{a}/payload-1", "x.sif"]  # fmt: skip


def test_podman(tmp_path: Path) -> None:
    """Marks inside a word repeat that word; variables of ours and no others are passed."""
    words = prefix("podman run --rm -v={mount}:{mount} --env {env} -w {workdir} img", tmp_path)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    channel = "PILOT_EVENTRANGECHANNEL=NAME"
    assert words == ["podman", "run", "--rm", f"-v={a}:{a}", f"-v={b}:{b}",
                     "--env", channel, "--env", "ESPILOT_CORES=4", "-w", a, "img"]  # fmt: skip


def test_no_container(tmp_path: Path) -> None:
    """Without a template nothing stands before the payload."""
    assert prefix("", tmp_path) == []


def test_any_prefix(tmp_path: Path) -> None:
    """A script of the site needs no marks; blanks and quotes are a shell's."""
    assert prefix("'/opt/my site/in' --fast --", tmp_path) == ["/opt/my site/in", "--fast", "--"]


@pytest.mark.parametrize("template", ["it's", "{mount} x", "a'"])
def test_unusable_templates(template: str) -> None:
    """What is no command line is refused by the setting's name."""
    with pytest.raises(ConfigError, match=r"payload\.container"):
        container_words(template)


def test_places_inside_others_are_left_out(tmp_path: Path) -> None:
    """A place is mounted once; what does not exist is not."""
    inner = tmp_path / "w" / "in"
    inner.mkdir(parents=True)
    assert outermost([inner, tmp_path / "w", tmp_path / "w", tmp_path / "none"]) == [tmp_path / "w"]
