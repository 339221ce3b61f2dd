"""Harvester's shared directory as the address of a server.

`server.url = "harvester:DIRECTORY"` chooses it: jobs, ranges and reports are files in this
directory, the access point of the worker.
"""

from __future__ import annotations

from pathlib import Path

from espilot.config import HarvesterConfig, Settings
from espilot.errors import ConfigError
from espilot.wire.harvester import FileNames, read_names
from espilot.workers.context import Context

SCHEME = "harvester:"
OUTPUT_DIRECTORY = "espilot-outputs"
MEMBERS = "members:"


def access_point(url: str) -> Path | None:
    """The shared directory that an address names; None when it names another kind of server."""
    return Path(url.removeprefix(SCHEME)).absolute() if url.startswith(SCHEME) else None


def shared_storage(settings: Settings, url: str) -> str:
    """Where outputs go beside Harvester: to the directory `url`, by default below the access point.

    Elsewhere it is `url` itself.
    """
    place = access_point(settings.server.url)
    if place is None or (url and not url.startswith("/")):
        return url
    directory = url or str(place / OUTPUT_DIRECTORY)
    return MEMBERS + directory if settings.harvester.output == "es_output" else directory


def require_shared(context: Context, place: Path) -> None:
    """Refuse what cannot work beside Harvester.

    Outputs must be files that Harvester sees, and the payload's own directory must not be among
    them: of a worker that dies, Harvester takes what has the name of an output, complete or not.
    """
    storage, workdir = context.storage, context.workdir
    file_names(context.settings.harvester)
    if not place.is_dir():
        raise ConfigError(f"server.url: there is no access point {place}")
    if not storage.startswith(("/", MEMBERS)):
        raise ConfigError(f"beside Harvester outputs go to a shared directory, not to {storage}")
    if workdir.resolve().is_relative_to(place.resolve()):
        raise ConfigError(
            f"the work directory {workdir} is inside Harvester's access point {place}, where "
            "unfinished outputs may be taken for finished ones; choose another --workdir, "
            "on a disk of the node"
        )


def file_names(config: HarvesterConfig) -> FileNames:
    """The names of the shared files; `ConfigError` names what is wrong with Harvester's own."""
    if not config.config:
        return FileNames()
    path = Path(config.config)
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise ConfigError(f"harvester.config: cannot read {path}: {error.strerror}") from None
    return read_names(text, str(path))
