"""Which files hold the settings, and which of them counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.config_files import file_layers, read_layered
from espilot.errors import ConfigError


def test_order(tmp_path: Path) -> None:
    """Variable over instance over later over earlier file of the directory over the file."""
    main = tmp_path / "espilot.toml"
    main.write_text("storage = '/a'\n[limits]\nwall_s = 1\nprocesses = 1\nlive_ranges = 1\n")
    directory = tmp_path / "espilot.d"
    directory.mkdir()
    (directory / "10.toml").write_text("[limits]\nwall_s = 2\nprocesses = 2\nsettle_s = 2\n")
    (directory / "20.toml").write_text("[limits]\nwall_s = 3\n")
    (tmp_path / "one.toml").write_text("[limits]\nwall_s = 4\nfree_bytes = 4\n")
    found = read_layered(main, "one", {"ESPILOT_LIMITS_WALL_S": "5"})
    limits = found.settings.limits
    assert (limits.wall_s, limits.free_bytes, limits.processes, limits.live_ranges) == (5, 4, 2, 1)
    assert found.settings.storage == "/a"
    assert found.origin("limits.free_bytes") == f"instance file {tmp_path / 'one.toml'}"
    assert found.origin("limits.wall_s") == "environment ESPILOT_LIMITS_WALL_S"
    assert read_layered(main, "two", {}).settings.limits.wall_s == 3


def test_named_file_must_be_there(tmp_path: Path) -> None:
    """A file that was asked for is not passed over."""
    with pytest.raises(ConfigError, match="cannot read"):
        file_layers(tmp_path / "none.toml", "", {})


@pytest.mark.parametrize("name", [".", "/", "..", ""])
def test_a_directory_is_no_file(name: str) -> None:
    """A directory is refused, also one that has no name of its own."""
    with pytest.raises(ConfigError, match="cannot read"):
        file_layers(Path(name), "", {})


def test_user_file_only_without_a_named_one(tmp_path: Path) -> None:
    """A service does not depend on somebody's home."""
    user = tmp_path / "espilot" / "espilot.toml"
    user.parent.mkdir()
    user.write_text("storage = '/mine'\n")
    main = tmp_path / "main.toml"
    main.write_text("")
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert read_layered(None, "", environ).settings.storage == "/mine"
    assert read_layered(main, "", environ).settings.storage == ""


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", "", "."])
def test_instance_names(tmp_path: Path, name: str) -> None:
    """A name that could lead to another directory is refused; no name is none."""
    main = tmp_path / "main.toml"
    main.write_text("")
    if name == "":
        assert len(file_layers(main, name, {})) == 1
        return
    with pytest.raises(ConfigError, match="instance"):
        file_layers(main, name, {})


def test_time_to_stop_of_the_unit(tmp_path: Path) -> None:
    """Under a service manager the drain has the unit's time, unless a file says otherwise."""
    main = tmp_path / "main.toml"
    main.write_text("")
    environ = {"NOTIFY_SOCKET": "/run/n"}
    assert read_layered(main, "", environ).settings.drain.grace_s == 170
    assert read_layered(main, "", {}).settings.drain.grace_s == 30
    main.write_text("[drain]\ngrace_s = 50\n")
    assert read_layered(main, "", environ).settings.drain.grace_s == 50
