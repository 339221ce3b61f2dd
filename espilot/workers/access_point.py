"""Harvester's shared directory as the address of a server.

`server.url = "harvester:DIRECTORY"` chooses it: jobs, ranges and reports are files in this
directory, the access point of the worker.
"""

from __future__ import annotations

from pathlib import Path

from espilot.config import Settings
from espilot.errors import ConfigError

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


def require_shared(storage: str, place: Path, workdir: Path) -> None:
    """Refuse what cannot work beside Harvester.

    Outputs must be files that Harvester sees, and the payload's own directory must not be among
    them: of a worker that dies, Harvester takes what has the name of an output, complete or not.
    """
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
