"""Files lie where Rucio looks for those of a scope, on each kind of server, and nowhere else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import real_servers
from real_servers import BUCKET, Server

from espilot.adapters.storage import Endpoint, contract, open_endpoint
from espilot.adapters.storage.contract import Subject
from espilot.adapters.storage.endpoint import place_of
from espilot.errors import ConfigError

COUNTER = itertools.count(1)
SCOPE = "user.jdoe"
CHECKS = (
    contract.check_identity,
    contract.check_put_then_there,
    contract.check_put_again_overwrites,
    contract.check_difference_is_found,
    contract.check_verify,
    contract.check_delete,
)


@pytest.fixture(scope="module")
def servers(seaweedfs: Server, nginx: Server, xrootd: Server) -> Mapping[str, Server]:
    """A server of each kind."""
    return {"s3": seaweedfs, "dav": nginx, "root": xrootd}


@pytest.fixture(params=["s3", "dav", "root"])
def subject(
    request: pytest.FixtureRequest, servers: Mapping[str, Server], tmp_path: Path
) -> Iterator[Subject]:
    """A storage with a scope on each kind of server."""
    kind, run = request.param, f"scope-{next(COUNTER)}"
    storage = open_endpoint(endpoint_at(servers[kind], kind, run))
    seen = partial(listing, servers[kind], kind, run)
    yield Subject(storage, tmp_path, lambda: placed(seen()), name="plain.tar")
    storage.close()


def endpoint_at(server: Server, kind: str, run: str) -> Endpoint:
    if kind == "s3":
        return Endpoint(
            f"s3://{BUCKET}/{run}",
            7,
            SCOPE,
            endpoint_url=server.facts["url"],
            credentials=server.facts["keys"],
        )
    if kind == "dav":
        return Endpoint(f"http://127.0.0.1:{server.ports['http']}/{run}", 7, SCOPE)
    return Endpoint(f"root://127.0.0.1:{server.ports['root']}//data/{run}", 7, SCOPE)


def listing(server: Server, kind: str, run: str) -> dict[str, bytes]:
    """All files of the run, by their path below its directory."""
    if kind == "s3":
        return real_servers.s3_listing(server, BUCKET, f"{run}/")
    below = server.directory / "data" / ("" if kind == "dav" else "data") / run
    files = [path for path in below.rglob("*") if path.is_file()]
    return {str(path.relative_to(below)): path.read_bytes() for path in files}


def placed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files by their names; what lies elsewhere keeps its path."""
    return {
        path.rpartition("/")[2] if path == place_of(path.rpartition("/")[2], SCOPE) else path: data
        for path, data in files.items()
    }


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Subject], None], subject: Subject) -> None:
    """With a scope a storage fulfils the contract, and its files have their deterministic place."""
    check(subject)


def test_place() -> None:
    """The place is that of Rucio's deterministic storages."""
    assert place_of("a.root", "user.jdoe") == "user/jdoe/f6/00/a.root"
    assert place_of("EVNT.1.root", "mc16_13TeV") == "mc16_13TeV/fd/87/EVNT.1.root"
    assert place_of("a.root", "") == "a.root"


@pytest.mark.parametrize("scope", ["../up", "a/b", ".", "a..b", "a b"])
def test_useless_scope(scope: str) -> None:
    """A scope that makes no path, or leads elsewhere, is refused."""
    for url in ("s3://bucket/x", "http://127.0.0.1/x"):
        with pytest.raises(ConfigError, match="scope: "):
            open_endpoint(Endpoint(url, 7, scope))


def test_directory_has_no_scope(tmp_path: Path) -> None:
    """What a kind of storage cannot do is refused, and never ignored."""
    with pytest.raises(ConfigError, match="scope: a directory has none"):
        open_endpoint(Endpoint(str(tmp_path), 7, SCOPE))
