"""The server behind a `harvester:` address, made from the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from espilot.adapters.archive import read_manifest
from espilot.adapters.harvester import HarvesterServer, Outputs, Terms
from espilot.config import Settings
from espilot.wire.panda_v1 import Pilot
from espilot.workers.access_point import MEMBERS, access_point, file_names


def open_access_point(
    settings: Settings, url: str, *, storage: str, state: Path, archives: Path
) -> HarvesterServer:
    """The server behind a `harvester:` address."""
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
            first_input_only=config.first_input_only,
        ),
    )


def members_of(archives: Path, name: str) -> Mapping[str, Sequence[tuple[str, int, str]]]:
    """The files of each range in an archive that is still here."""
    manifest = read_manifest(archives / name)
    return {
        row.id: [(file.name, file.size_bytes, file.adler32) for file in row.members]
        for row in manifest.ranges
    }
