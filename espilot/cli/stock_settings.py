"""The settings of a pilot that a factory has started: options, environment, files, queue data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from espilot.cli.stock_options import StockCommand
from espilot.cli.stock_queue import read_queue
from espilot.config_files import file_layers
from espilot.config_origin import Layer, Layered, environment_layers, merge, nest, read_word
from espilot.errors import ConfigError
from espilot.wire.queuedata import QueueData

SERVER = "https://pandaserver.cern.ch"
PORT = 25443
PORTS = range(1, 65536)
OWN_LABELS = ("rc_test2", "ptest")
"""Labels that a queue under test does not change."""
OPTION_SETTINGS = {
    "queue": "server.site",
    "joblabel": "server.label",
    "resource-type": "server.resource_type",
    "job-type": "server.job_type",
    "lifetime": "limits.wall_s",
    "getjobrequests": "jobs.requests",
    "getjobfailures": "jobs.failures",
    "stageout-attempts": "stageout.attempts",
    "cacert": "server.ca",
    "capath": "server.ca",
    "output-dir": "storage",
    "recovery-dir": "recovery_dir",
}
VARIABLE_SETTINGS = {
    "PANDA_JSID": ("identity.scheduler_id", "str"),
    "GTAG": ("identity.pilot_id", "str"),
    "HARVESTER_ID": ("identity.harvester_id", "str"),
    "HARVESTER_WORKER_ID": ("identity.worker_id", "int"),
    "PANDA_HOSTNAME": ("identity.node", "str"),
    "FACTORY_JOBID": ("identity.batch_id", "str"),
    "K8S_JOB_ID": ("identity.batch_id", "str"),
    "ATHENA_PROC_NUMBER": ("payload.cores", "int"),
    "RECOVERY_DIR": ("recovery_dir", "str"),
    "HARVESTER_PILOT_CONFIG": ("harvester.config", "str"),
}
LIFETIME = "PANDAPILOT_LIFETIME"
JOB_FILE, HARVESTER_JOB_FILE = "pandaJobData.out", "HPCJobs.json"
DEFAULTS: Mapping[str, Any] = {
    "server": {"url": f"{SERVER}:{PORT}", "label": "ptest"},
    "jobs": {"requests": 2, "failures": 5, "at_most": 1},
    "limits": {"wall_s": 324000.0},
}
"""What a stock pilot does where nobody says anything."""


@dataclass(frozen=True, slots=True)
class StockSettings:
    """The settings, the queue data if there are any, and what is to be warned of."""

    layered: Layered
    queue: QueueData | None
    notes: tuple[str, ...]


def read_stock_settings(
    command: StockCommand, environ: Mapping[str, str], here: Path
) -> StockSettings:
    """All settings; `here` is where the factory may have put files.

    Errors: `ConfigError`, `stock_queue.QueueDataError`.
    """
    name = str(command.get("queue", environ.get("ESPILOT_SERVER_SITE", "")))
    queue, layers, notes = read_queue(command, environ, here, name)
    given = [*option_layers(command, environ, queue, here), *environment_layers(environ)]
    given += [*variable_layers(environ, notes)]
    config, instance = command.get("config"), command.get("instance", "")
    files = file_layers(Path(config) if config else None, instance, environ)
    layered = merge([*given, *files, *layers, Layer("stock pilot", DEFAULTS)])
    if layered.origin("server.site") == "default":
        raise ConfigError("-q QUEUE is missing: whose jobs are to be taken?")
    return StockSettings(layered, queue, tuple(notes))


def pushed_layers(command: StockCommand, environ: Mapping[str, str], here: Path) -> list[Layer]:
    """Where a factory leaves a job; without -z, which has a directory for that."""
    if command.get("noserverupdate"):
        return []
    pushed = str(command.get("harvester-submit-mode", "PULL")).upper() == "PUSH"
    path, origin = find_definition(command, environ, here), "a file of the factory"
    if path is None:
        if not pushed:
            return []
        path = Path(command.get("harvester-datadir") or here, JOB_FILE)
    if pushed:
        origin = "option --harvester-submit-mode PUSH"
    return [Layer(origin, {"jobs": {"definition": str(path.absolute()), "pushed": pushed}})]


def find_definition(command: StockCommand, environ: Mapping[str, str], here: Path) -> Path | None:
    """The job definition that a factory has left: only in the directory that is named, else beside
    the pilot's source or in the work directory, else the one of Harvester."""
    datadir = command.get("harvester-datadir")
    source = environ.get("PANDA_PILOT_SOURCE")
    places = [Path(source).parent, Path(source)] if source else []
    candidates = [place / JOB_FILE for place in (*places, here)]
    harvester = command.get("harvester-workdir") or environ.get("HARVESTER_WORKDIR")
    if harvester:
        candidates.append(Path(harvester) / HARVESTER_JOB_FILE)
    if datadir:
        candidates = [Path(datadir) / JOB_FILE]
    return next((path for path in candidates if path.is_file()), None)


def option_layers(
    command: StockCommand, environ: Mapping[str, str], queue: QueueData | None, here: Path
) -> list[Layer]:
    """One layer for each option that is a setting; the life time may be told by a variable."""
    layers = []
    if environ.get(LIFETIME):
        wall_s = read_word(environ[LIFETIME], "float", LIFETIME)
        layers.append(Layer(f"environment {LIFETIME}", {"limits": {"wall_s": wall_s}}))
    for name, setting in OPTION_SETTINGS.items():
        if name in command.values:
            value = option_value(name, command.values[name], queue)
            layers.append(Layer(f"option {command.given[name]}", nest({setting: value})))
    longest_s = queue.max_time_s if queue is not None else 0
    layers = [each for each in layers if not _is_longer(each, longest_s)]
    layers += pushed_layers(command, environ, here)
    if command.get("noworkerpilotstatusupdate"):
        layers.append(Layer(f"option {command.given['noworkerpilotstatusupdate']}",
                            {"identity": {"tell_worker": False}}))  # fmt: skip
    if command.get("es-executor-type"):
        executor = str(command.get("es-executor-type"))
        layers.append(Layer("option --es-executor-type", {"payload": {"executor": executor}}))
    url, origin = server_address(command, environ)
    return [*layers, Layer(origin, {"server": {"url": url}})] if url else layers


def option_value(name: str, value: Any, queue: QueueData | None) -> Any:
    """The value of an option as a setting: a queue under test takes test jobs.

    `ConfigError` for what is no number: as a life time it would mean none at all.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"--{name}: {value} is no finite number")
    if name == "joblabel" and queue is not None and queue.status.lower() == "test":
        return value if value in OWN_LABELS else "test"
    return max(0, value) if isinstance(value, int | float) else value


def _is_longer(layer: Layer, longest_s: float) -> bool:
    """Whether a life time goes beyond the queue's limit, which then counts."""
    wall_s = layer.table.get("limits", {}).get("wall_s", 0.0)
    return bool(longest_s) and wall_s > longest_s


def variable_layers(environ: Mapping[str, str], notes: list[str]) -> list[Layer]:
    """One layer for each variable of a factory; an unusable one is noted and does not count."""
    layers = []
    for variable, (setting, kind) in VARIABLE_SETTINGS.items():
        text = environ.get(variable, "").strip()
        if not text:
            continue
        try:
            value = read_word(text, kind, variable)
            layer = Layer(f"environment {variable}", nest({setting: value}))
            merge([layer])
        except ConfigError as error:
            notes.append(f"{error}; it does not count")
            continue
        layers.append(layer)
    return layers


def server_address(command: StockCommand, environ: Mapping[str, str]) -> tuple[str, str]:
    """Address of the server by the options, and the option that tells; "" when none does.

    Without calls to a server (-z) it is the directory that stands for it.
    """
    if command.get("noserverupdate"):
        directory = (
            command.get("harvester-workdir")
            or command.get("harvester-datadir")
            or environ.get("HARVESTER_WORKDIR")
            or command.get("workdir")
        )
        if not directory:
            raise ConfigError("-z: without a server --harvester-workdir DIR must stand for it")
        return f"harvester:{directory}", "option -z"
    url, port = command.get("url"), command.get("port")
    if port is not None and port not in PORTS:
        raise ConfigError(f"--port: {port!s:.20} is no port; there are 1 to 65535")
    if not url and port is None and command.get("use-https", True):
        return "", ""
    return with_port(url or SERVER, port or PORT, https=command.get("use-https")), "option --url"


def with_port(url: str, port: int, *, https: bool | None) -> str:
    """The address with scheme and port, where it has none; `ConfigError` for an unusable one."""
    text = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(text)
        own_port, host = parts.port, parts.hostname
    except ValueError:
        own_port, host = None, None
    if not host or own_port == 0 or parts.scheme not in ("http", "https"):
        raise ConfigError(f"--url: {url!r:.60} is no address of a server")
    scheme = parts.scheme if https is not False else "http"
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}:{own_port or port}{parts.path.rstrip('/')}"
