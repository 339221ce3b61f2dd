"""The work directory goes away when all of it is reported."""

from __future__ import annotations

from pathlib import Path

from espilot.adapters.disk import remove_path


def remove_workdir(workdir: Path, *, keep: tuple[str, ...]) -> bool:
    """Remove it, unless one of the places to keep is inside; returns whether it is gone."""
    kept = [Path(place.removeprefix("file://")).absolute() for place in keep if place]
    if any(place.is_relative_to(workdir) for place in kept):
        return False
    remove_path(workdir)
    return not workdir.exists()
