"""The server behind a `harvester:` address, made from the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from espilot.adapters.archive import read_manifest
from espilot.adapters.harvester import HarvesterServer, Outputs, Terms
from espilot.config import HarvesterConfig, Settings
from espilot.errors import ConfigError
from espilot.wire.harvester import FileNames, read_names
from espilot.wire.panda_v1 import Pilot
from espilot.workers.access_point import MEMBERS, access_point


def open_access_point(
    settings: Settings, url: str, *, storage: str, state: Path, archives: Path
) -> HarvesterServer:
    """The server behind a `harvester:` address; `ConfigError` for an unusable configuration."""
    place = access_point(url)
    assert place is not None
    config = settings.harvester
    outputs = Outputs(
        Path(storage.removeprefix(MEMBERS)),
        single=storage.startswith(MEMBERS),
        members_of=partial(members_of, archives),
    )
    return HarvesterServer(
        place,
        names=file_names(config),
        state=state / "harvester",
        outputs=outputs,
        pilot=Pilot(settings.server.site, os.uname().nodename),
        terms=Terms(
            job_s=config.job_wait_s,
            ranges_s=config.ranges_wait_s,
            ask_again_s=config.ask_again_s,
            lost_s=config.lost_s,
            gone_s=config.gone_s,
            jobs=config.jobs,
            kill_at_end=config.kill_at_end,
        ),
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


def members_of(archives: Path, name: str) -> Mapping[str, Sequence[tuple[str, int, str]]]:
    """The files of each range in an archive that is still here."""
    manifest = read_manifest(archives / name)
    return {
        row.id: [(file.name, file.size_bytes, file.adler32) for file in row.members]
        for row in manifest.ranges
    }
