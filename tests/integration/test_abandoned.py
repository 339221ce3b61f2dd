"""What tests clean up after killed pilots."""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from pathlib import Path

from abandoned import clean_up

from espilot.supervisor.statedir import StateDir, channel_path, note_channel


def test_only_dead_pilots_are_cleaned_up_after(tmp_path: Path) -> None:
    """Runtime directory and channel of a killed one go; a living one keeps what it has."""
    channel = f"EventService_EventRanges-{uuid.uuid4().hex}"
    with closing(StateDir(tmp_path / "living")) as living:
        note_channel(living.path, channel)
        assert clean_up(tmp_path) == []
        record = json.loads((living.path / "pilot.json").read_text())
        assert living.runtime.is_dir()
    assert not living.runtime.exists()
    living.runtime.mkdir()
    (living.path / "pilot.json").write_text(json.dumps(record))
    assert clean_up(tmp_path) == [living.path]
    assert not living.runtime.exists()
    assert not channel_path(channel).exists()
    assert clean_up(tmp_path) == []
