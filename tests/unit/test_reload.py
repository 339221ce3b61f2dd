"""Which settings may change while the pilot runs."""

from __future__ import annotations

from espilot.config import dump_settings, read_settings
from espilot.core.reload import AT_ONCE, BY_STAGEOUT, plan_reload

BASE = read_settings({"server": {"url": "http://a"}, "storage": "/s"}, "x")


def test_nothing_changed() -> None:
    """The same settings change and refuse nothing."""
    change = plan_reload(BASE, BASE)
    assert (change.changed, change.refused, change.stageout) == ((), (), False)
    assert change.settings == BASE


def test_limits_at_once() -> None:
    """A limit changes, and the stage-out worker stays."""
    wanted = read_settings(
        {"server": {"url": "http://a"}, "storage": "/s", "limits": {"memory_bytes": 5}}, "x"
    )
    change = plan_reload(BASE, wanted)
    assert change.changed == ("limits.memory_bytes",)
    assert change.settings.limits.memory_bytes == 5
    assert not change.stageout


def test_places_need_a_restart() -> None:
    """Server, storage and payload command keep their values and are named; the rest changes."""
    wanted = read_settings(
        {
            "server": {"url": "http://b"},
            "storage": "/t",
            "payload": {"command": "x", "hang_s": 9},
            "stageout": {"parallel": 7},
            "endpoints": {"new": {"url": "/n"}},
        },
        "x",
    )
    change = plan_reload(BASE, wanted)
    assert change.refused == ("payload.command", "server.url", "storage")
    assert change.changed == ("endpoints", "payload.hang_s", "stageout.parallel")
    assert change.settings.server.url == "http://a"
    assert (change.settings.stageout.parallel, change.settings.payload.hang_s) == (7, 9.0)
    assert change.settings.endpoints["new"].url == "/n"
    assert change.stageout


def test_names_are_settings() -> None:
    """Every name of the table is a setting."""
    table = dump_settings(BASE)
    for name in AT_ONCE:
        section, _, key = name.partition(".")
        assert key in table[section], name
    assert set(BY_STAGEOUT) <= set(table)
