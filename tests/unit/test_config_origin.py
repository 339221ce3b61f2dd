"""Settings from several places, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from espilot.config import Settings
from espilot.config_origin import (
    DEFAULT,
    Layer,
    environment_layers,
    merge,
    read_bool,
    read_layer,
    variables,
)
from espilot.errors import ConfigError


def test_the_strongest_layer_wins() -> None:
    """The first layer that names a setting gives its value, and is named as its origin."""
    option = Layer("option --url", {"server": {"url": "https://a"}})
    file = Layer("system file /etc/x", {"server": {"url": "https://b", "site": "S"}})
    found = merge([option, file])
    assert (found.settings.server.url, found.settings.server.site) == ("https://a", "S")
    assert found.origin("server.url") == "option --url"
    assert found.origin("server.site") == "system file /etc/x"
    assert found.origin("server.timeout_s") == DEFAULT


def test_rows_are_complete() -> None:
    """Every setting has a row with value and origin, those of named endpoints too."""
    layer = Layer("file", {"endpoints": {"main": {"url": "/data", "activities": ["pw"]}}})
    rows = {name: (value, origin) for name, value, origin in merge([layer]).rows()}
    assert rows["endpoints.main.url"] == ("/data", "file")
    assert rows["endpoints.main.id"] == (1, DEFAULT)
    assert rows["payload.cores"] == (1, DEFAULT)
    assert {name.rpartition(".")[0] for name in rows} >= {"server", "limits", "drain", "packing"}


def test_a_wrong_layer_is_named() -> None:
    """An error names the layer that has the wrong value, even where a stronger one hides it."""
    good = Layer("one", {"payload": {"cores": 4}})
    with pytest.raises(ConfigError, match=r"two: payload.cores must be of type int"):
        merge([good, Layer("two", {"payload": {"cores": "many"}})])


def test_variables_of_the_environment() -> None:
    """`ESPILOT_SECTION_KEY` sets a value of its type; other variables are no settings."""
    found = merge(
        environment_layers(
            {
                "ESPILOT_PAYLOAD_CORES": "8",
                "ESPILOT_LIMITS_WALL_S": "3600",
                "ESPILOT_SERVER_QUIRKS": "a, b",
                "ESPILOT_STORAGE": "/data",
                "ESPILOT_TASK_ID": "7",
                "ESPILOT_OUTPUT_DIR": "x",
            }
        )
    )
    settings = found.settings
    assert (settings.payload.cores, settings.limits.wall_s) == (8, 3600.0)
    assert (settings.server.quirks, settings.storage) == (("a", "b"), "/data")
    assert len(found.origins) == 4
    assert found.origin("payload.cores") == "environment ESPILOT_PAYLOAD_CORES"


def test_every_plain_setting_has_a_variable() -> None:
    """Each setting but those of named sections can be set by a variable, and no two share one."""
    names = [name for name, _ in variables().values()]
    wanted = {name for name, _, _ in merge([]).rows()}
    assert set(names) == wanted and len(names) == len(wanted)
    assert merge([]).settings == Settings()


@pytest.mark.parametrize("text", ["many", "", "1.5"])
def test_a_wrong_variable_is_named(text: str) -> None:
    """A value of another type is refused with the variable's name."""
    with pytest.raises(ConfigError, match="ESPILOT_PAYLOAD_CORES"):
        environment_layers({"ESPILOT_PAYLOAD_CORES": text})


def test_booleans_are_words() -> None:
    """All usual words for true and false are read, others refused."""
    assert all(read_bool(word, "x") for word in ("True", "yes", "1", "ON"))
    assert not any(read_bool(word, "x") for word in ("False", "no", "0", "off"))
    with pytest.raises(ConfigError, match="x: 'perhaps' is neither true nor false"):
        read_bool("perhaps", "x")


def test_a_file_is_a_layer(tmp_path: Path) -> None:
    """A TOML file is a layer named by its kind and path; what is unusable is refused by name."""
    path = tmp_path / "e.toml"
    path.write_text("[payload]\ncores = 3\n")
    found = merge([read_layer(path, "instance file")])
    assert found.origin("payload.cores") == f"instance file {path}"
    path.write_text("[payload")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read_layer(path, "instance file")
    with pytest.raises(ConfigError, match="cannot read"):
        read_layer(tmp_path / "none.toml", "instance file")
