"""Which files hold the settings of a pilot that is no local run.

System file and the `.d` directory beside it, the user's file, the instance's file: `config_origin`
puts them together. A file that is named takes the place of system and user file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from espilot.config_origin import Layer, Layered, environment_layers, merge, read_layer
from espilot.errors import ConfigError

SYSTEM_FILE = Path("/etc/espilot/espilot.toml")
UNIT = {"drain": {"grace_s": 170.0}}
"""What the unit that we ship gives us: its time to stop, and some seconds less."""
NAME_MARKS = str.maketrans("", "", "-_.")


def read_layered(config: Path | None, instance: str, environ: Mapping[str, str]) -> Layered:
    """The settings of all places; `ConfigError` names the place, the key and the remedy."""
    layers = [*environment_layers(environ), *file_layers(config, instance, environ)]
    return merge([*layers, Layer("service unit", UNIT)] if environ.get("NOTIFY_SOCKET") else layers)


def file_layers(config: Path | None, instance: str, environ: Mapping[str, str]) -> list[Layer]:
    """The layers of all files, the strongest first. `config` must be there, others may be."""
    require_name(instance)
    system = config or SYSTEM_FILE
    if not system.name:
        raise ConfigError(f"cannot read settings from {system}: it is a directory; name a file")
    layers = [read_layer(path, "system file") for path in system_files(system)]
    user = user_file(environ)
    if config is None and user is not None and user.is_file():
        layers.insert(0, read_layer(user, "user file"))
    own = system.with_name(f"{instance}.toml")
    if instance and own != system and own.is_file():
        layers.insert(0, read_layer(own, "instance file"))
    return layers


def system_files(system: Path) -> Iterator[Path]:
    """The files in `NAME.d` beside the file, the last by name first, then the file itself, which
    only the system's own may lack."""
    yield from sorted(system.with_suffix(".d").glob("*.toml"), reverse=True)
    if system != SYSTEM_FILE or system.is_file():
        yield system


def user_file(environ: Mapping[str, str]) -> Path | None:
    """Where a user's settings are; None without a home."""
    home = environ.get("HOME")
    base = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    return Path(base, "espilot", "espilot.toml") if base else None


def require_name(instance: str) -> None:
    """`ConfigError` for a name that is no part of a file name."""
    if instance and not instance.translate(NAME_MARKS).isalnum():
        raise ConfigError(
            f"the instance {instance!r:.40} must be of letters, digits, '-', '_' and '.'"
        )
