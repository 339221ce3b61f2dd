"""Jobs that a factory leaves in a file, run at a real server: pandaJobData.out below a wrapper."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from kill_points import Point
from pilot_run import FAKE, eventually, job_text
from test_server_faults import Server
from test_wrapper_play import EVENTS, require_accounted, url_of
from wrapper import Play, play

from espilot.adapters.http import Connection, DialectChoice, PandaServer, Patience
from espilot.wire.panda_v1 import Pilot

PUSH = "--harvester-submit-mode", "PUSH"


@pytest.fixture(params=["legacy", "v1"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, job_text(FAKE, events=EVENTS))
    made.start(dialects=request.param)
    try:
        yield made
    finally:
        made.stop()


def fetch(server: Server) -> dict[str, Any]:
    """The definition of a job, as Harvester fetches it for its worker."""
    connection = Connection(server.url, patience=Patience(20.0))
    with closing(PandaServer(connection, pilot=Pilot("QUEUE", "h"), choice=DialectChoice())) as us:
        job = us.acquire_job()
    assert job is not None
    return dict(job.definition)


def leave(definition: dict[str, Any], directory: Path, *, form: bool = False) -> Path:
    """Write the file of a factory, whole."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "pandaJobData.out"
    temporary = directory / "temporary"
    temporary.write_text(urlencode(definition) if form else json.dumps(definition))
    return temporary.rename(path)


def require_run(playing: Play, server: Server, tmp_path: Path, definition: dict[str, Any]) -> None:
    """This job and no other was run, to its end, and its file is put away."""
    assert playing.end() == (0, 0), playing.stderr
    assert require_accounted(server, tmp_path, EVENTS) == EVENTS
    assert playing.report["jobs"] == 1
    with closing(sqlite3.connect(server.database, timeout=20)) as db:
        begun = db.execute("SELECT panda_id FROM job WHERE status != 'activated'").fetchall()
    assert begun == [(definition["PandaID"],)]


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_job_in_a_file(tmp_path: Path, server: Server, form: bool) -> None:
    """The job that lies in the work directory is run; ranges and reports go to the server."""
    definition = fetch(server)
    path = leave(definition, tmp_path / "access", form=form)
    with play(tmp_path, *url_of(server), *PUSH) as playing:
        require_run(playing, server, tmp_path, definition)
    assert not path.exists() and (path.parent / "job_definition.json").exists()


def test_push_waits_for_its_file(tmp_path: Path, server: Server) -> None:
    """With PUSH no job is asked for; the one that comes into the named directory is run."""
    place = tmp_path / "data"
    place.mkdir()
    options = *url_of(server), *PUSH, "--harvester-datadir", str(place)
    with play(tmp_path, *options) as playing:
        log = playing.here / "espilot-work" / "logs" / "pilot.log"
        eventually(lambda: log.exists() and "event-server" in log.read_text(), what="a worker")
        with closing(sqlite3.connect(server.database, timeout=20)) as db:
            assert db.execute("SELECT 1 FROM job WHERE status != 'activated'").fetchall() == []
        definition = fetch(server)
        leave(definition, place)
        require_run(playing, server, tmp_path, definition)
    assert [path.name for path in place.iterdir()] == ["job_definition.json"]


def test_killed_before_the_file_is_put_away(tmp_path: Path, server: Server) -> None:
    """The queue holds the job and the file is still there: it is not run twice."""
    definition = fetch(server)
    path = leave(definition, tmp_path / "access")
    point = Point("event-server", "espilot.workers.pushed_job:PushedJob.taken", "before")
    marker = tmp_path / "killed"
    with play(tmp_path, *url_of(server), *PUSH, env=point.environment(marker)) as playing:
        require_run(playing, server, tmp_path, definition)
    assert marker.exists() and not path.exists()


def test_file_that_holds_no_job(tmp_path: Path, server: Server) -> None:
    """It is named, and is no reason to ask the server; after some tries the pilot ends."""
    path = leave({"PandaID": 5}, tmp_path / "access")
    with play(tmp_path, *url_of(server), *PUSH, "-x", "2") as playing:
        assert playing.end()[0] != 0
        assert playing.report["jobs"] == 0
        assert playing.report["pilot_error_code"] == 1303
        assert "is no job definition" in playing.report["reason"]
    assert path.exists()
