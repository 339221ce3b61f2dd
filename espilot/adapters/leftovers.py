"""Files that a dead payload left: outputs of ranges that nobody will ask for, and half ones."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from espilot.foreign_files import walk_files

_RANGE_ID = re.compile(r"(?<!\d)(\d+)-\d+-\d+-\d+-\d+(?!\d)")


@dataclass(frozen=True, slots=True)
class Leftovers:
    """How many files were removed: of `unknown` ranges, and `partial` ones."""

    unknown: int = 0
    partial: int = 0


def remove_leftovers(
    directory: Path, *, task_id: int, known: Collection[str], keep: Collection[str]
) -> Leftovers:
    """Remove the files of a task's ranges below a directory, and temporary ones, but `keep`.

    A file is a range's when its name holds the id. `known` are the ids on this node, `keep` real
    paths. Links are not followed; what cannot be removed is left.
    """
    unknown = partial = 0
    for parent, names in walk_files(os.path.realpath(directory)):
        for name in names:
            range_id = _range_of(name, task_id)
            temporary = name.startswith(".") and name.endswith(".tmp")
            path = f"{parent}/{name}"
            if (range_id or temporary) and path not in keep and _unlink(path):
                strange = bool(range_id) and range_id not in known
                unknown, partial = unknown + strange, partial + (not strange)
    return Leftovers(unknown, partial)


def _range_of(name: str, task_id: int) -> str:
    """The range id in a file name; "" when there is none of this task."""
    ids = [match[0] for match in _RANGE_ID.finditer(name) if match[1] == str(task_id)]
    return ids[-1] if ids else ""


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
