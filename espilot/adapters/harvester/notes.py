"""What is to be remembered of an access point: small JSON objects in the state directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espilot.adapters.harvester.directory import SharedDirectory


class Note:
    """One JSON object in a file; whole, or as it was before."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = SharedDirectory(path.parent)
        self._name = path.name
        self._known: dict[str, Any] | None = None

    def read(self) -> dict[str, Any]:
        """The object; empty when there is none."""
        if self._known is None:
            data = self._directory.read(self._name)
            found = json.loads(data) if data else {}
            self._known = found if isinstance(found, dict) else {}
        return self._known

    def write(self, value: Mapping[str, Any]) -> None:
        """Keep an object on disk."""
        self._directory.write(self._name, json.dumps(value).encode())
        self._known = dict(value)
