"""Settings of a pilot that a factory has started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from espilot.cli.stock_options import read_stock
from espilot.cli.stock_queue import NoQueueDataError, QueueDataError
from espilot.cli.stock_settings import StockSettings, read_stock_settings
from espilot.errors import ConfigError

QUEUE: dict[str, Any] = {"name": "Q", "corecount": 4, "maxtime": 1000, "timefloor": 0}


def read(here: Path, line: str, **environ: str) -> StockSettings:
    """The settings of a command line, in an environment without files of its own."""
    config = here / "espilot.toml"
    config.touch()
    return read_stock_settings(read_stock([*line.split(), "--config", str(config)]), environ, here)


def test_options_become_settings(tmp_path: Path) -> None:
    """Each option has its setting, and is its origin."""
    found = read(
        tmp_path,
        "-q Q -j user --resource-type MCORE --job-type managed -l 500 -v 3 -x 4 --url https://s "
        "-p 1234 --stageout-attempts 7 --output-dir /out --recovery-dir /rec --cacert /ca",
    ).layered
    settings = found.settings
    assert (settings.server.site, settings.server.label) == ("Q", "user")
    assert (settings.server.resource_type, settings.server.job_type) == ("MCORE", "managed")
    assert settings.limits.wall_s == 500 and settings.jobs.requests == 3
    assert settings.jobs.failures == 4 and settings.server.url == "https://s:1234"
    assert settings.stageout.attempts == 7 and settings.storage == "/out"
    assert settings.recovery_dir == "/rec"
    assert settings.server.ca == "/ca"
    assert found.origin("server.site") == "option -q"


def test_worker_is_not_told_of(tmp_path: Path) -> None:
    """-k: the server is not told of the worker's start and end."""
    assert read(tmp_path, "-q Q").layered.settings.identity.tell_worker
    assert not read(tmp_path, "-q Q -k").layered.settings.identity.tell_worker


def test_queue_data_at_an_address(tmp_path: Path) -> None:
    """They count where the factory has left none; what cannot be had is said."""
    there = tmp_path / "elsewhere.json"
    there.write_text(json.dumps({"Q": QUEUE | {"corecount": 7}}))
    for address in (str(there), there.as_uri()):
        found = read(tmp_path, f"-q Q --queuedata-url {address}").layered
        assert found.settings.payload.cores == 7
        assert found.origin("payload.cores") == f"queue data {address}"
    with pytest.raises(NoQueueDataError, match="nothing"):
        read(tmp_path, f"-q Q --queuedata-url {tmp_path}/nothing")
    (tmp_path / "queuedata.json").write_text(json.dumps({"Q": QUEUE}))
    assert read(tmp_path, f"-q Q --queuedata-url {there}").layered.settings.payload.cores == 4


@pytest.mark.parametrize(
    ("catchall", "every_s", "activities"),
    [
        ("", 600.0, ("es_events",)),
        ("log_to_objectstore", 600.0, ("es_events", "pls")),
        ("log_to_objectstore,disable_log_to_objectstore", 0.0, ("es_events",)),
    ],
)
def test_logs_to_the_object_store(
    tmp_path: Path, catchall: str, every_s: float, activities: tuple[str, ...]
) -> None:
    """The tokens of a queue say whether logs go to its object store while a job runs."""
    queue = QUEUE | {"catchall": catchall, "astorages": {"es_events": ["OS"]}}
    (tmp_path / "queuedata.json").write_text(json.dumps({"Q": queue}))
    element = {"id": 5, "rprotocols": {"w": {"endpoint": "s3://os.example", "path": "/bucket"}}}
    (tmp_path / "ddmendpoints.json").write_text(json.dumps({"OS": element}))
    settings = read(tmp_path, "-q Q").layered.settings
    assert settings.stageout.logs_every_s == every_s
    assert settings.endpoints["OS"].activities == activities


def test_defaults_of_a_stock_pilot(tmp_path: Path) -> None:
    """Where nobody says anything: one job, two requests, 90 hours, the stock server."""
    settings = read(tmp_path, "-q Q").layered.settings
    assert settings.server.url == "https://pandaserver.cern.ch:25443"
    assert (settings.jobs.at_most, settings.jobs.requests) == (1, 2)
    assert settings.limits.wall_s == 324000 and settings.server.label == "ptest"


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ("--url https://s:1", "https://s:1"), ("--url https://s", "https://s:25443"),
        ("--url s", "https://s:25443"), ("--url https://s:1 --use-https False", "http://s:1"),
        ("--url http://s:1/x/", "http://s:1/x"), ("-p 7", "https://pandaserver.cern.ch:7"),
        ("--url http://[::1]:9", "http://[::1]:9"), ("-z -a /w", "harvester:/w"),
        ("-z --harvester-workdir /h -a /w", "harvester:/h"),
    ],
)  # fmt: skip
def test_address_of_the_server(tmp_path: Path, options: str, url: str) -> None:
    """URL, port and scheme, or the directory that stands for the server."""
    assert read(tmp_path, f"-q Q {options}").layered.settings.server.url == url


@pytest.mark.parametrize("port", ["-1", "0", "65536", "99999999"])
def test_what_is_no_port(tmp_path: Path, port: str) -> None:
    """It is refused by name, as an option and in an address; the last port is one."""
    with pytest.raises(ConfigError, match=f"--port: {port} is no port"):
        read(tmp_path, f"-q Q -p {port}")
    with pytest.raises(ConfigError, match="--url"):
        read(tmp_path, f"-q Q --url https://s:{port}")
    assert read(tmp_path, "-q Q -p 65535").layered.settings.server.url.endswith(":65535")


def test_precedence(tmp_path: Path) -> None:
    """Option, environment, variables of factories, file, queue data, default: in this order."""
    (tmp_path / "queuedata.json").write_text(json.dumps({"Q": QUEUE}))
    assert read(tmp_path, "-q Q").layered.settings.payload.cores == 4
    (tmp_path / "espilot.toml").write_text("[payload]\ncores = 5\n")
    assert read(tmp_path, "-q Q").layered.settings.payload.cores == 5
    variable = {"ATHENA_PROC_NUMBER": "6"}
    assert read(tmp_path, "-q Q", **variable).layered.settings.payload.cores == 6
    both = {**variable, "ESPILOT_PAYLOAD_CORES": "7"}
    assert read(tmp_path, "-q Q", **both).layered.settings.payload.cores == 7
    assert read(tmp_path, "-q Q", ESPILOT_SERVER_URL="http://e").layered.settings.server.url == (
        "http://e"
    )


def test_the_shorter_life_counts(tmp_path: Path) -> None:
    """The queue's limit holds against a longer life time, not against a shorter one."""
    (tmp_path / "queuedata.json").write_text(json.dumps({"Q": QUEUE}))
    assert read(tmp_path, "-q Q -l 5000").layered.settings.limits.wall_s == 1000
    assert read(tmp_path, "-q Q -l 500").layered.settings.limits.wall_s == 500
    life = {"PANDAPILOT_LIFETIME": "300"}
    assert read(tmp_path, "-q Q -l 500", **life).layered.settings.limits.wall_s == 300


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize("longest", [0, 1000])
def test_a_life_time_that_is_no_number(tmp_path: Path, word: str, longest: int) -> None:
    """It is refused, whether or not the queue has a limit; it would mean no life time at all."""
    (tmp_path / "queuedata.json").write_text(json.dumps({"Q": QUEUE | {"maxtime": longest}}))
    with pytest.raises(ConfigError, match="--lifetime"):
        read(tmp_path, f"-q Q --lifetime={word}")


def test_time_floor(tmp_path: Path) -> None:
    """A time floor lets a pilot take jobs until it is over; without it there is one job."""
    (tmp_path / "queuedata.json").write_text(json.dumps({"Q": QUEUE | {"timefloor": 30}}))
    jobs = read(tmp_path, "-q Q").layered.settings.jobs
    assert (jobs.at_most, jobs.floor_s) == (0, 1800)


def test_names_of_the_factory(tmp_path: Path) -> None:
    """Names and numbers of the environment are told to the server; unusable ones are noted."""
    found = read(tmp_path, "-q Q", PANDA_JSID="js", GTAG="http://log", HARVESTER_ID="h",
                 HARVESTER_WORKER_ID="many", PANDA_HOSTNAME="node7")  # fmt: skip
    identity = found.layered.settings.identity
    assert (identity.scheduler_id, identity.pilot_id) == ("js", "http://log")
    assert (identity.harvester_id, identity.worker_id, identity.node) == ("h", 0, "node7")
    assert any("HARVESTER_WORKER_ID" in note for note in found.notes)


def test_a_queue_under_test_takes_test_jobs(tmp_path: Path) -> None:
    """The label becomes `test`, but for labels of its own."""
    (tmp_path / "queuedata.json").write_text(json.dumps({"Q": QUEUE | {"status": "test"}}))
    assert read(tmp_path, "-q Q -j managed").layered.settings.server.label == "test"
    assert read(tmp_path, "-q Q -j rc_test2").layered.settings.server.label == "rc_test2"


def test_what_is_missing_or_bad(tmp_path: Path) -> None:
    """No queue, no directory for -z, bad queue data: each is refused by name."""
    with pytest.raises(ConfigError, match="-q QUEUE is missing"):
        read(tmp_path, "-d")
    with pytest.raises(ConfigError, match="--harvester-workdir"):
        read(tmp_path, "-q Q -z")
    with pytest.raises(ConfigError, match="--url"):
        read(tmp_path, "-q Q --url ftp://x")
    (tmp_path / "queuedata.json").write_text("[]")
    with pytest.raises(QueueDataError, match="not a JSON object"):
        read(tmp_path, "-q Q")
