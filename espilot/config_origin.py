"""Settings from several places, and where each value came from.

The first layer that names a setting wins. The order of the places is that of `PRECEDENCE`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from espilot.config import Settings, dump_settings, read_settings
from espilot.errors import ConfigError

PRECEDENCE = (
    "option", "environment", "instance file", "user file", "system file", "queue data", "default",
)  # fmt: skip
"""Where a value may come from, the strongest first."""
DEFAULT = PRECEDENCE[-1]
PREFIX = "ESPILOT_"
TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class Layer:
    """Some settings from one place, as nested tables; `origin` names the place for people."""

    origin: str
    table: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Layered:
    """The settings in force. `origins` has the place of each value that is no default, by its
    name `section.key`."""

    settings: Settings
    origins: Mapping[str, str]

    def origin(self, name: str) -> str:
        """Where the value of `section.key` came from."""
        return self.origins.get(name, DEFAULT)

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Name, value and origin of every setting."""
        for name, value in flatten(dump_settings(self.settings)):
            yield name, value, self.origin(name)


def merge(layers: Sequence[Layer]) -> Layered:
    """Put the layers together, the strongest first; `ConfigError` names the layer that is wrong."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        read_settings(layer.table, layer.origin)
        for name, value in flatten(layer.table):
            if name not in values:
                values[name], origins[name] = value, layer.origin
    return Layered(read_settings(nest(values), "the settings together"), origins)


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of nested tables; lists are values."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested tables of names like `section.key`."""
    table: dict[str, Any] = {}
    for name, value in values.items():
        *sections, key = name.split(".")
        place = table
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return table


def read_layer(path: Path, origin: str) -> Layer:
    """The settings of a TOML file; `ConfigError` names the file."""
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return Layer(f"{origin} {path}", table)


def environment_layers(environ: Mapping[str, str]) -> list[Layer]:
    """One layer for each variable `ESPILOT_SECTION_KEY` that names a setting.

    Lists are separated by commas. Other variables with that beginning are no settings (a payload's
    environment has some) and do not count. `ConfigError` names the variable.
    """
    return [
        Layer(f"environment {variable}", nest({name: read_word(environ[variable], kind, variable)}))
        for variable, (name, kind) in variables().items()
        if variable in environ
    ]


def variables() -> dict[str, tuple[str, str]]:
    """The settings that a variable can set: variable -> name and type of the setting."""
    found = {}
    for section in fields(Settings):
        if "kind" in section.metadata:
            continue
        value = getattr(Settings(), section.name)
        if is_dataclass(value):
            for each in fields(value):
                found[f"{PREFIX}{section.name}_{each.name}".upper()] = (
                    f"{section.name}.{each.name}",
                    str(each.type),
                )
        else:
            found[f"{PREFIX}{section.name}".upper()] = (section.name, str(section.type))
    return found


def read_word(text: str, kind: str, name: str) -> Any:
    """A value of a setting's type from a word; `ConfigError` names what had it."""
    if kind.startswith("tuple"):
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind == "bool":
        return read_bool(text, name)
    if kind in ("int", "float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            raise ConfigError(f"{name}: {text!r:.60} is no {kind}") from None
    return text


def read_bool(text: str, name: str) -> bool:
    """True or false from a word; `ConfigError` names what had it."""
    word = text.strip().lower()
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return word in TRUE_WORDS
    raise ConfigError(f"{name}: {text!r:.60} is neither true nor false")
