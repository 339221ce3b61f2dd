"""A client that finds out what its server speaks, and servers that change under it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from espilot.adapters.http import Connection, Credentials, DialectChoice, PandaServer, Patience
from espilot.errors import ConfigError, ServerRefused, ServerUnavailable
from espilot.model import JobUpdate, RangeReport, ReportBatch
from espilot.server.app import serve
from espilot.server.options import Quirks, ServerOptions
from espilot.wire.panda_v1 import Pilot


@contextmanager
def running_server(db: Path, **switches: object) -> Iterator[str]:
    """A server in a thread; ends by its death pipe."""
    stop_fd, alive_fd = os.pipe()
    urls: list[str] = []
    listening = threading.Event()

    def tell(url: str) -> None:
        urls.append(url)
        listening.set()

    options = ServerOptions(quirks=Quirks(**switches))  # type: ignore[arg-type]
    thread = threading.Thread(
        target=lambda: serve(db=db, options=options, on_listening=tell, stop_fd=stop_fd)
    )
    thread.start()
    try:
        assert listening.wait(60)
        yield urls[0]
    finally:
        os.close(alive_fd)
        thread.join(60)
        os.close(stop_fd)
        assert not thread.is_alive()


@contextmanager
def client_of(
    url: str, choice: DialectChoice | None = None, credentials: Credentials | None = None
) -> Iterator[PandaServer]:
    connection = Connection(url, patience=Patience(20.0), credentials=credentials)
    client = PandaServer(connection, pilot=Pilot("S", "n"), choice=choice)
    try:
        yield client
    finally:
        client.close()


@pytest.mark.parametrize(
    ("dialects", "found"), [("both", "legacy"), ("legacy", "legacy"), ("v1", "v1")]
)
def test_the_dialect_is_found_out(tmp_path: Path, dialects: str, found: str) -> None:
    """What the server has is used; of both the legacy one, because it answers bulk updates."""
    with running_server(tmp_path / "a.db", dialects=dialects) as url, client_of(url) as client:
        assert client.dialect == ""
        assert client.acquire_job() is None
        assert client.dialect == found


@pytest.mark.parametrize("after", range(1, 6))
def test_a_server_is_upgraded_under_us(tmp_path: Path, after: int) -> None:
    """The legacy dialect goes away in the middle of a job: every call finds its way."""
    with running_server(tmp_path / "a.db", drop_legacy=after) as url, client_of(url) as client:
        client.create_task({"name": "t", "events": 6})
        job = client.acquire_job()
        assert job is not None
        assert client.update_job(job, JobUpdate("running")) == ""
        ranges = client.acquire_ranges(job, 6)
        reports = tuple(RangeReport(entry.id, "finished") for entry in ranges)
        client.report(job, [ReportBatch(reports)])
        assert set(client.range_statuses(job).values()) == {"finished"}
        assert client.update_job(job, JobUpdate("finished", 6)) == ""
        assert client.task_status(job.task_id).state == "finished"
        assert client.dialect == "v1"


def test_what_one_connection_learns_all_know(tmp_path: Path) -> None:
    """Connections to one server share the dialect: it is found out once."""
    choice = DialectChoice()
    with running_server(tmp_path / "a.db", dialects="v1") as url:
        with client_of(url, choice) as first:
            first.acquire_job()
        with client_of(url, choice) as second:
            assert second.dialect == "v1"


@pytest.mark.parametrize(("forced", "there"), [("legacy", "v1"), ("v1", "legacy")])
def test_a_forced_dialect_is_kept(tmp_path: Path, forced: str, there: str) -> None:
    """With a forced dialect no other is tried, and its absence is a clear refusal."""
    with (
        running_server(tmp_path / "a.db", dialects=there) as url,
        client_of(url, DialectChoice(forced)) as client,
        pytest.raises(ServerRefused, match=f"dialect '{forced}'"),
    ):
        client.acquire_job()


def test_an_unknown_dialect_is_named() -> None:
    """A dialect that does not exist is a configuration error with the choices."""
    with pytest.raises(ConfigError, match=r"server\.dialect.*legacy, v1"):
        DialectChoice("v2")


@pytest.mark.parametrize("dialects", ["legacy", "v1"])
@pytest.mark.parametrize(
    ("quirk", "error"),
    [
        ({"ban_user": True}, "banned"),
        ({"caller_role": "user"}, "role"),
        ({"reject_token": True}, "Token authentication failed"),
    ],
)
def test_refusals_do_not_change_the_dialect(
    tmp_path: Path, dialects: str, quirk: dict[str, object], error: str
) -> None:
    """A missing right is a refusal with the server's reason, and no sign of another dialect."""
    token = tmp_path / "token"
    token.write_text("abc.def.ghi\n")
    credentials = Credentials(token=token, origin="atlas:production")
    with (
        running_server(tmp_path / "a.db", dialects=dialects, **quirk) as url,
        client_of(url, DialectChoice(dialects), credentials) as client,
        pytest.raises(ServerRefused, match=error) as caught,
    ):
        client.acquire_job()
    assert "abc.def.ghi" not in str(caught.value)


def test_only_v1_refuses_the_pilot_role(tmp_path: Path) -> None:
    """The pilot role is enough for the legacy dialect, which is why it is preferred."""
    with running_server(tmp_path / "a.db", caller_role="pilot") as url:
        with client_of(url) as client:
            assert client.acquire_job() is None
        with client_of(url, DialectChoice("v1")) as client, pytest.raises(ServerRefused):
            client.acquire_job()


def test_a_server_that_answers_no_probe_is_doubt(tmp_path: Path) -> None:
    """When nothing is known the call is doubt, and the next one asks again."""
    with (
        running_server(tmp_path / "a.db", ban_user=True) as url,
        client_of(url) as client,
        pytest.raises(ServerUnavailable, match="answers no probe"),
    ):
        client.acquire_job()
