"""The direction of imports, the owners of foreign packages, the length of modules: from the source
alone. Each rule is also shown something that it must refuse."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "espilot"
MAX_LINES = 400

MODULES: Mapping[str, Path] = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}

NOUNS = ("model", "errors", "histogram")
LAYERS: Mapping[str, tuple[str, ...]] = {
    "model": (),
    "errors": (),
    "direct_io": (),
    "foreign_files": (),
    "histogram": (),
    "ports": NOUNS,
    "config": ("sections", "task_section", *NOUNS),
    "sections": (),
    "task_section": ("sections",),
    "config_origin": ("config", *NOUNS),
    "queue_layer": ("config", "config_origin", "wire.queuedata", *NOUNS),
    "config_files": ("config", "config_origin", *NOUNS),
    "core": ("core", "config", *NOUNS),
    "wire": ("wire", *NOUNS),
    "queue": ("queue", *NOUNS),
    "pipeline": ("ports", "core", "wire", "config", *NOUNS),
    "adapters": ("ports", "wire", "direct_io", "foreign_files", *NOUNS),
    "workers": (
        "workers", "pipeline", "adapters", "queue", "ports", "core", "wire", "server", "config",
        "logs", "view.redaction", *NOUNS,
    ),
    "supervisor": (
        "supervisor", "core", "adapters", "queue", "wire", "ports", "config", "foreign_files",
        "logs", "view", "workers.access_point", "workers.context", "workers.inputs",
        "workers.known_secrets", "workers.local_task", "payload.template", *NOUNS,
    ),
    # One job that is not of events, beside its payload; started like a payload.
    "executors": (
        "executors", "adapters", "ports", "core", "wire", "config", "foreign_files", "logs",
        "supervisor.payload", "supervisor.launcher", "supervisor.transformation",
        "workers.context", "workers.inputs", "workers.job_log", "workers.shipping", *NOUNS,
    ),
    # The engine in one process: the parts of a run that speak with the payload.
    "engine": (
        "engine", "adapters", "queue", "core", "wire", "logs", "supervisor.directives",
        "supervisor.keeper", "supervisor.recovery", "workers.calls", "workers.context",
        "workers.dispatcher", *NOUNS,
    ),
    "api": ("engine", "adapters", "config", "supervisor.statedir", "workers.context", *NOUNS),
    "server": ("server", "wire", *NOUNS),
    "payload": (
        "payload", "wire.payload", "wire.payload_native", "wire.payload_text", "wire.record",
        *NOUNS,
    ),
    # Plays a pilot: its wire and its way to start a payload, none of its other parts.
    "check": (
        "check", "adapters", "wire", "config", "supervisor.payload", "workers.context", *NOUNS,
    ),
    # Tries for itself what a run needs.
    "diagnosis": (
        "diagnosis", "adapters", "check", "ports", "wire", "config", "core", "queue.store", "view",
        "workers.access_point", "workers.server_access", "workers.storages", *NOUNS,
    ),
    "cli": (
        "cli", "diagnosis", "check", "supervisor", "server", "payload.template", "workers.context",
        "workers.access_point", "workers.recording", "workers.storages", "config",
        "config_files", "config_origin", "logs", "settings_text", "view", "core.exit_code",
        "queue_layer",
        "wire.jobdef", "wire.jobtext", "wire.queuedata", *NOUNS,
    ),
    "view": ("view", *NOUNS),
    # What is beside the layers: settings as text, logs.
    "": ("config", *NOUNS),
}  # fmt: skip
"""What each layer may import of ours."""

PURE_LIBRARY = frozenset(
    {
        "__future__", "abc", "bisect", "collections", "contextlib", "dataclasses", "enum",
        "functools", "heapq", "itertools", "math", "operator", "statistics", "types", "typing",
    }
)  # fmt: skip
FORMATS = frozenset({"ast", "base64", "binascii", "hashlib", "json", "re", "string", "struct"})
FORMATS |= {"configparser", "urllib.parse", "zlib"}
PURE: Mapping[str, frozenset[str]] = {
    "model": PURE_LIBRARY,
    "errors": PURE_LIBRARY,
    "core": PURE_LIBRARY,
    "pipeline": PURE_LIBRARY,
    "wire": PURE_LIBRARY | FORMATS,
    "queue.records": PURE_LIBRARY | FORMATS,
}
"""Layers that touch no clock, file, process or thread, with what they may use of the library."""

OWNERS: Mapping[str, tuple[str, ...]] = {
    "lmdb": ("queue",),
    "requests": ("adapters.http", "adapters.storage.dav_session", "adapters.storage.webdav"),
    "urllib3": ("adapters.http", "adapters.storage.dav_session"),
    "aiohttp": ("server.app",),
    "ijson": ("wire.panda_answers",),
    "zmq": ("adapters.channel", "adapters.control", "adapters.loop", "payload"),
    "msgpack": ("wire", "queue.records", "payload"),
    "rich": ("cli.progress", "view.top"),
    "psutil": ("adapters.proctree", "adapters.process", "supervisor.monitor"),
    "prometheus_client": ("view.metrics", "supervisor.exporter"),
    "boto3": ("adapters.storage",),
    "isal": ("adapters.archive", "adapters.storage"),
    "botocore": ("adapters.storage",),
}
"""Who may import each foreign package."""


def inside(name: str, prefix: str) -> bool:
    """Whether a module is `prefix` or below it."""
    return name == prefix or name.startswith(prefix + ".")


def imports_of(source: str) -> Iterator[str]:
    """All modules that a source imports, wherever it does so; relative ones begin with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield full if full in MODULES else module


def layer_of(name: str) -> str:
    """The layer of one of our modules, named without the package."""
    return next((layer for layer in LAYERS if layer and inside(name, layer)), "")


def problems(module: str, source: str) -> list[str]:
    """What a module of this name may not do, in sentences."""
    name = module.removeprefix(PACKAGE).removeprefix(".")
    found = []
    for imported in sorted(set(imports_of(source))):
        if imported.startswith("."):
            found.append(f"{name}: relative import {imported}")
        elif inside(imported, PACKAGE):
            found += ours(name, imported.removeprefix(PACKAGE).removeprefix("."))
        elif imported.partition(".")[0] in sys.stdlib_module_names:
            found += library(name, imported)
        else:
            found += foreign(name, imported.partition(".")[0])
    lines = source.count("\n")
    if lines > MAX_LINES:
        found.append(f"{name}: {lines} lines, the limit is {MAX_LINES}")
    return found


def ours(name: str, imported: str) -> list[str]:
    """Refuse what is in another layer than those below, and siblings that must not meet."""
    layer = layer_of(name)
    if imported == "":  # the package itself has only its version
        return []
    if layer == "adapters" and inside(imported, "adapters"):
        same = imported.split(".")[1:2] == name.split(".")[1:2]
        return [] if same else [f"{name}: imports its sibling {imported}"]
    allowed = LAYERS[layer]
    if any(inside(imported, prefix) for prefix in allowed):
        return []
    # `from espilot.wire import payload_text` names its package too.
    if any(inside(prefix, imported) for prefix in allowed) and "." not in imported:
        return [] if imported == layer else [f"{name}: imports all of {imported}"]
    return [f"{name}: imports {imported}"]


def library(name: str, imported: str) -> list[str]:
    """Refuse the world in pure layers."""
    allowed = next((PURE[layer] for layer in PURE if inside(name, layer)), None)
    if allowed is None or any(inside(imported, each) for each in allowed):
        return []
    return [f"{name}: {imported} has no place in a pure module"]


def foreign(name: str, package: str) -> list[str]:
    """Refuse a foreign package outside the module that owns it."""
    if any(inside(name, owner) for owner in OWNERS.get(package, ())):
        return []
    return [f"{name}: {package} belongs to {OWNERS.get(package, 'nobody')}"]


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_the_rules(module: str) -> None:
    """Imports go down the layers, foreign packages have one owner, modules stay short."""
    assert problems(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model", "from espilot.errors import EspilotError"),
        ("errors", "import espilot.model"),
        ("ports", "from espilot.core.job import Phase"),
        ("core.job", "import time"),
        ("core.job", "from os import path"),
        ("core.job", "import socket"),
        ("core.job", "import logging"),
        ("core.job", "import subprocess"),
        ("core.job", "from random import choice"),
        ("core.job", "from pathlib import Path"),
        ("core.job", "def f():\n    import threading"),
        ("core.job", "from espilot.wire import envelope"),
        ("core.job", "from espilot.queue.store import Queue"),
        ("core.job", "from . import packing"),
        ("wire.envelope", "from espilot.core.job import Phase"),
        ("wire.envelope", "import time"),
        ("wire.envelope", "import zmq"),
        ("queue.store", "from espilot.wire import envelope"),
        ("queue.store", "from espilot.ports import Moves"),
        ("queue.records", "import os"),
        ("pipeline.dispatch", "from espilot.adapters.channel import PayloadChannel"),
        ("pipeline.dispatch", "from espilot.pipeline.packing import Packing"),
        ("pipeline.dispatch", "from espilot.queue.store import Queue"),
        ("pipeline.dispatch", "import time"),
        ("adapters.channel", "from espilot.adapters import process"),
        ("adapters.channel", "from espilot.adapters.storage.posix import PosixStorage"),
        ("adapters.channel", "from espilot.core.job import Phase"),
        ("adapters.channel", "from espilot.pipeline import dispatch"),
        ("adapters.channel", "from espilot.config import Settings"),
        ("adapters.http", "import lmdb"),
        ("adapters.disk", "import requests"),
        ("adapters.disk", "import numpy"),
        ("workers.child", "from espilot.supervisor.supervisor import Supervisor"),
        ("workers.child", "from espilot.cli.main import run"),
        ("workers.child", "import zmq"),
        ("supervisor.roles", "from espilot.workers.dispatcher import Station"),
        ("supervisor.roles", "from espilot.cli import main"),
        ("supervisor.roles", "from espilot.server.store import Store"),
        ("server.store", "from espilot.queue.store import Queue"),
        ("server.api_v1", "from aiohttp import web"),
        ("payload.client", "from espilot.wire.panda_v1 import CALLS"),
        ("payload.client", "import psutil"),
        ("payload.client", "from espilot.config import Settings"),
        ("check.session", "from espilot.queue.store import Queue"),
        ("check.session", "from espilot.payload.client import Client"),
        ("check.session", "import zmq"),
        ("cli.main", "from espilot.core.job import Phase"),
        ("cli.main", "from espilot.workers.dispatcher import Station"),
        ("view.snapshot", "from espilot.queue.store import Queue"),
        ("view.snapshot", "from espilot.supervisor.outcome import Outcome"),
        ("logs", "from espilot.supervisor.supervisor import Supervisor"),
        ("core.job", "x = 1\n" * (MAX_LINES + 1)),
    ],
)
def test_rule_refuses(module: str, source: str) -> None:
    """Each rule refuses what breaks it."""
    assert problems(f"{PACKAGE}.{module}", source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.job", "from espilot.core.packing import Plan\nimport math"),
        ("pipeline.dispatch", "from espilot.wire import payload_text"),
        ("adapters.archive.tar", "from espilot.adapters.archive.names import x\nimport os"),
        ("queue.moves", "import lmdb"),
        ("cli.main", "from espilot import __version__"),
        ("supervisor.roles", "from espilot.workers.context import Context"),
    ],
)
def test_rule_allows(module: str, source: str) -> None:
    """What the layers are made for is allowed."""
    assert problems(f"{PACKAGE}.{module}", source) == []


def test_every_layer_is_there() -> None:
    """A rule for a layer that does not exist would hold nothing."""
    layers = {layer_of(module.removeprefix(f"{PACKAGE}.")) for module in MODULES}
    assert layers == set(LAYERS)
