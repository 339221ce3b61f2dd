"""Copies of files that are on the disk when they are there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def copy_to_disk(source: Path, target: Path) -> None:
    """Copy a file's bytes and write them through; OSError as it comes."""
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        os.fsync(file.fileno())
