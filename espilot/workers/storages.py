"""The storage elements of a run, made from its settings: for workers, and to refuse bad settings
before anything is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from espilot.adapters.storage import Endpoint, TransferLimits, has_scheme, open_endpoint
from espilot.adapters.storage.credentials import is_place
from espilot.adapters.storage.posix import PosixStorage
from espilot.config import EndpointConfig, Settings
from espilot.core.storage_choice import order_endpoints
from espilot.errors import ConfigError
from espilot.ports import Storage

MAIN = "storage"
"""Name of the endpoint that the setting `storage` gives the URL of."""


def open_storages(settings: Settings, url: str, directory: Path) -> dict[str, Storage]:
    """Make the storages for outputs by the name of their endpoint, in the order of their use.

    `url` is where outputs go first, by the endpoint `storage` where the settings have it, else by
    one that has this location; empty leaves the order to the activities. Files that settings name
    count from `directory`. `ConfigError` tells what cannot be used.
    """
    opened = {
        name: _open(name, config, settings, directory)
        for name, config in settings.endpoints.items()
        if name != MAIN or config.url
    }
    activities = {name: settings.endpoints[name].activities for name in opened}
    order = list(order_endpoints(activities))
    if url:
        main = _endpoint_at(url, {name: opened[name] for name in (*order, *opened)}, settings)
        if main == MAIN:
            config = replace(settings.endpoints.get(MAIN, EndpointConfig()), url=url)
            opened[MAIN] = _open(MAIN, config, settings, directory)
        rest = order if main in order else [n for n in order if "es_failover" in activities[n]]
        order = [main, *(name for name in rest if name != main)]
    return {name: opened[name] for name in order}


def storages_for(
    settings: Settings, url: str, directory: Path, activity: str
) -> dict[str, Storage]:
    """All storages, first those of an activity, then in the order of outputs, then the others."""
    usual = open_storages(settings, url, directory)
    rest = {
        name: _open(name, config, settings, directory)
        for name, config in settings.endpoints.items()
        if name not in usual and config.url
    }
    opened = usual | rest
    first = [n for n in opened if n in settings.endpoints
             and activity in settings.endpoints[n].activities]  # fmt: skip
    return {name: opened[name] for name in dict.fromkeys([*first, *opened])}


def storages_of(settings: Settings, directory: Path, activity: str) -> dict[str, Storage]:
    """The storages of an activity alone, by the name of their endpoint."""
    return {
        name: _open(name, config, settings, directory)
        for name, config in settings.endpoints.items()
        if activity in config.activities and config.url
    }


def _endpoint_at(url: str, opened: dict[str, Storage], settings: Settings) -> str:
    """Name the endpoint that a URL means."""
    if MAIN in settings.endpoints:
        return MAIN
    return next((name for name, each in opened.items() if location_of(each) == url), MAIN)


def absolute_location(text: str, directory: Path) -> str:
    """Let a relative directory count from here; a URL, or nothing, stays what it is."""
    return text if not text or has_scheme(text) else str((directory / text).absolute())


def location_of(storage: Storage) -> str:
    """Give the storage's directory, or its URL."""
    return str(storage.directory) if type(storage) is PosixStorage else storage.url


def _open(name: str, config: EndpointConfig, settings: Settings, directory: Path) -> Storage:
    transfer = settings.transfer
    try:
        return open_endpoint(
            Endpoint(
                config.url,
                config.id,
                scope=config.scope,
                endpoint_url=config.endpoint_url,
                region=config.region,
                signer=config.signer,
                signer_keys=config.signer_keys,
                credentials=_credentials(config.credentials, directory),
                profile=config.profile,
                ca_file=_path(config.ca_file, directory),
                proxy=config.proxy,
                group_readable=config.group_readable,
                part_bytes=transfer.part_bytes,
                part_threads=transfer.part_threads,
                limits=TransferLimits(
                    connect_s=transfer.connect_s,
                    idle_s=transfer.idle_s,
                    base_s=transfer.base_s,
                    bytes_per_s=transfer.bytes_per_s,
                    longest_s=transfer.longest_s,
                    slow_after_s=transfer.slow_after_s,
                    slow_bytes_per_s=transfer.slow_bytes_per_s,
                ),
            )
        )
    except ConfigError as error:
        raise ConfigError(f"endpoints.{name}: {error}") from None


def _credentials(text: str, directory: Path) -> str:
    return _path(text, directory) if is_place(text) else text


def _path(text: str, directory: Path) -> str:
    """Let a relative path count from the directory of the job file."""
    return str(directory / text) if text else ""
