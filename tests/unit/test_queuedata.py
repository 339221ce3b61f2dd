"""Queue and storage data of factories become settings; what is unusable in them is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from espilot.config_origin import merge
from espilot.errors import MessageError
from espilot.queue_layer import queue_layer, unknown_tokens
from espilot.wire.queuedata import (
    QueueData,
    read_catchall,
    read_queue_data,
    read_storage_data,
)

QUEUE: dict[str, Any] = {
    "name": "Q_MCORE", "panda_resource": "Q", "atlas_site": "SITE", "state": "ACTIVE",
    "status": "online", "corecount": 8, "maxrss": "16000", "maxwdir": 20000, "maxtime": 86400,
    "timefloor": 30, "es_stageout_gap": 300, "pledgedcpu": -1, "direct_access_lan": False,
    "catchall": "es_to_zip, stageout_threads=6,max_wait_for_one_event=120,somebodys",
    "params": {"pilot_maxwdir_grace": 10, "pilot_rss_grace": 50},
    "astorages": {"es_events": ["OS"], "pw": ["DISK", "OS"], "read_lan": ["X"], "pl": ["GONE"]},
    "container_type": "apptainer:pilot", "container_options": "-B /cvmfs",
}  # fmt: skip
STORAGE: dict[str, Any] = {
    "OS": {
        "id": 117, "type": "OS_ES",
        "rprotocols": {"9": {
            "id": 223, "endpoint": "s3://os.example:443/", "path": "/bucket/events",
            "settings": {"access_key": "OS_KEY", "secret_key": "OS_SECRET", "is_secure": True},
        }},
    },
    "DISK": {"pk": "44", "arprotocols": {
        "write_wan": [["root://disk.example:1094", 1, "//data/x"],
                      ["davs://disk.example:443", 0, "/data/x"]],
    }},
    "SRM": {"id": 5, "arprotocols": {"read_lan": [["srm://old.example", 0, "/x"]]}},
    "BROKEN": {"id": None, "rprotocols": "no"},
}  # fmt: skip


def test_queue_data_become_settings() -> None:
    """Limits, storages, tokens: each value is the queue's, and its origin says so."""
    queue = read_queue_data(json.dumps({"Q_MCORE": QUEUE, "OTHER": {}}), "Q_MCORE")
    layer, notes = queue_layer(queue, read_storage_data(json.dumps(STORAGE)), "queue data q.json")
    found = merge([layer])
    settings = found.settings
    assert settings.server.site == "Q_MCORE" and settings.payload.cores == 8
    assert settings.limits.workdir_bytes == 20000 * 2**20
    assert settings.limits.workdir_grace == pytest.approx(0.1)
    assert settings.limits.memory_bytes == int(16000 * 2**20 * 1.5)
    assert settings.limits.wall_s == 86400 and settings.packing.max_age_s == 300
    assert settings.stageout.parallel == 6 and settings.payload.range_hang_cap_s == 7200
    assert settings.stagein.access == "copy"
    assert found.origin("payload.cores") == "queue data q.json"
    assert notes == ["storage GONE is not in the storage data, or has no way we can use"]
    assert unknown_tokens(queue) == ["somebodys"]


def test_storage_data_become_endpoints() -> None:
    """The best way that we can use is taken, with its number, activities and names of keys."""
    queue = read_queue_data(json.dumps(QUEUE), "Q_MCORE")
    layer, _ = queue_layer(queue, read_storage_data(json.dumps(STORAGE)), "x")
    endpoints = merge([layer]).settings.endpoints
    store, disk = endpoints["OS"], endpoints["DISK"]
    assert (store.url, store.endpoint_url) == ("s3://bucket/events", "https://os.example:443")
    assert (store.id, store.credentials) == (223, "env:OS_KEY,OS_SECRET")
    assert store.activities == ("es_events", "pw")
    assert (disk.url, disk.id) == ("davs://disk.example:443/data/x", 44)
    assert disk.activities == ("pw",) and set(endpoints) == {"OS", "DISK"}


def test_default_of_memory_and_grace() -> None:
    """Without params memory is twice maxrss, and the work directory may grow by a fifth."""
    queue = read_queue_data(json.dumps(QUEUE | {"params": None}), "Q_MCORE")
    limits = merge([queue_layer(queue, {}, "x")[0]]).settings.limits
    assert limits.memory_bytes == 2 * 16000 * 2**20 and limits.workdir_grace == 0.2


def test_older_names() -> None:
    """Names of older queue data are understood."""
    entry = {"nickname": "OLD", "zip_time_gap": 120, "gstat": "S", "corecount": 0}
    queue = read_queue_data(json.dumps(entry), "OLD")
    assert (queue.name, queue.stageout_gap_s, queue.site) == ("OLD", 120, "S")
    assert queue.core_count == 1


def test_tokens_are_matched_whole() -> None:
    """A token that is part of another one does not count, as `es_to_zip` in `not_es_to_zip`."""
    catchall = read_catchall("not_es_to_zip,num_buckets=5,min_events=x, HPC_HPC")
    assert not catchall.has("es_to_zip") and catchall.has("not_es_to_zip")
    assert catchall.number("num_buckets") == 5 and catchall.number("min_events") is None
    assert not catchall.has("HPC_HP")


def test_a_queue_says_how_its_payloads_work() -> None:
    """Ways to hand out ranges and to notice outputs come by token; an unknown way is named."""
    entry = {"name": "Q", "catchall": "payload_outputs=renamed,payload_ranges=file"}
    layer, notes = queue_layer(read_queue_data(json.dumps(entry), ""), {}, "x")
    payload = merge([layer]).settings.payload
    assert (payload.outputs, payload.ranges, notes) == ("renamed", "file", [])
    layer, notes = queue_layer(
        read_queue_data(json.dumps(entry | {"catchall": "payload_outputs=telepathy"}), ""), {}, "x"
    )
    assert merge([layer]).settings.payload.outputs == "reported"
    assert "payload_outputs=telepathy" in notes[0]


def test_no_wall_time_by_token() -> None:
    """`NO_PILOT_TIME_LIMIT_KILL` takes the queue's time limit away."""
    entry = QUEUE | {"catchall": "NO_PILOT_TIME_LIMIT_KILL,allow_remote_inputs"}
    settings = merge([queue_layer(read_queue_data(json.dumps(entry), ""), {}, "x")[0]]).settings
    assert settings.limits.wall_s == 0 and settings.stagein.access == "direct"


@pytest.mark.parametrize(
    ("state", "status", "active", "offline"),
    [("ACTIVE", "online", True, False), ("DISABLED", "", False, False),
     ("", "offline", True, True), ("", "", True, False), ("active", "test", True, False)],
)  # fmt: skip
def test_state_and_status(state: str, status: str, active: bool, offline: bool) -> None:
    """A queue is taken as active and online unless it says otherwise."""
    queue = QueueData("Q", state=state, status=status)
    assert (queue.is_active, queue.is_offline) == (active, offline)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", "null", '{"OTHER": {"name": "OTHER"}}'])
def test_unusable_queue_data(text: str) -> None:
    """What is no object, or of another queue, is refused by name."""
    with pytest.raises(MessageError, match="queue data"):
        read_queue_data(text, "Q")


@pytest.mark.parametrize(
    ("field", "value"),
    [("maxrss", "much"), ("corecount", -1), ("maxtime", [1]), ("catchall", 5), ("state", {}),
     ("maxwdir", 1e300), ("maxtime", float("inf"))],
)  # fmt: skip
def test_unusable_fields_are_named(field: str, value: Any) -> None:
    """A field of a wrong type counts as not said, and is named."""
    queue = read_queue_data(json.dumps(QUEUE | {field: value}), "Q_MCORE")
    assert len(queue.notes) == 1 and queue.notes[0].startswith(field)


def test_hostile_storage_data() -> None:
    """Shapes that nobody should write are left out, without an error."""
    hostile = {
        "A": {"id": 1, "rprotocols": [[1, 2], [["s3://h"]], {"endpoint": 5, "path": None}]},
        "B": {"id": [], "rprotocols": [{"endpoint": "s3://h", "path": "/b"}]},
        "C": 7,
    }
    assert read_storage_data(json.dumps(hostile)) == {}
