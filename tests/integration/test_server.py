"""The built-in server as a process, and both ends against hostile bytes."""

from __future__ import annotations

import ast
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from patience import eventually

from espilot.adapters.http import Connection, DialectChoice, PandaServer, Patience
from espilot.adapters.http import connection as http_connection
from espilot.errors import ConfigError, ServerUnavailable
from espilot.model import JobUpdate, RangeReport, ReportBatch
from espilot.wire.panda_v1 import Pilot

_RUN = "import sys; from espilot.cli.main import main; sys.exit(main(['server', *sys.argv[1:]]))"
JSON = {"Accept": "application/json", "Content-Type": "application/json"}


@contextmanager
def server_process(*args: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`espilot server` as a child, and the object that it prints."""
    command = [sys.executable, "-c", _RUN, "--port", "0", "--json", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield child, json.loads(child.stdout.readline())
        finally:
            child.kill()


@contextmanager
def client_of(url: str, timeout_s: float = 20.0) -> Iterator[PandaServer]:
    connection = Connection(url, patience=Patience(timeout_s))
    client = PandaServer(connection, pilot=Pilot("S", "n"), choice=DialectChoice("v1"))
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with server_process("--db", str(tmp_path / "es.db")) as (_, told):
        yield told["url"]


def test_kill_9_between_calls_loses_nothing(tmp_path: Path) -> None:
    """After each call the server is killed and started again; every answer stays true."""
    job_file = tmp_path / "job.toml"
    job_file.write_text('[task]\nname = "t"\nevents = 6\ntask_id = 5\n[payload]\ncores = 1\n')
    arguments = ("--db", str(tmp_path / "es.db"), "--task", str(job_file))

    @contextmanager
    def next_life() -> Iterator[PandaServer]:
        with server_process(*arguments) as (child, told), client_of(told["url"]) as client:
            assert told["tasks"] == [5]
            yield client
            child.send_signal(signal.SIGKILL)
            child.wait(20)

    with next_life() as client:
        job = client.acquire_job()
    assert job is not None
    with next_life() as client:
        assert client.update_job(job, JobUpdate("running")) == ""
    with next_life() as client:
        ranges = client.acquire_ranges(job, 4)
    reports = tuple(RangeReport(entry.id, "finished") for entry in ranges)
    with next_life() as client:
        assert client.report(job, [ReportBatch(reports)]).accepted is None
    with next_life() as client:
        assert list(client.range_statuses(job).values()) == ["finished"] * 4
    with next_life() as client:
        assert client.update_job(job, JobUpdate("finished", events=4)) == ""
    with next_life() as client:
        status = client.task_status(5)
        assert (status.state, status.finished, status.ready, status.jobs) == ("running", 4, 2, 2)
        again = client.acquire_job()
        assert again is not None and again.attempt_nr == 2
        assert [entry.start_event for entry in client.acquire_ranges(again, 9)] == [5, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end the server at once and cleanly, open connections or not."""
    process = server_process("--db", str(tmp_path / "es.db"))
    with process as (child, told), client_of(told["url"]) as client:
        assert client.acquire_job() is None
        child.send_signal(number)
        assert child.wait(20) == 0


def test_a_taken_port_is_one_line(tmp_path: Path, url: str) -> None:
    """A port in use ends with one line that names it, and not with exit 1."""
    port = url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, "--db", str(tmp_path / "b.db"), "--port", port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 73 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and port in done.stderr


@pytest.mark.parametrize("content", ["", "x", "[task]\nevents = 0\n", 'task = "x"\n'])
def test_a_bad_job_file_is_one_line(tmp_path: Path, content: str) -> None:
    """A job file that cannot be used is named in one line, and nothing is made."""
    path = tmp_path / "job.toml"
    path.write_text(content)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, "--db", str(tmp_path / "b.db"), "--task", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 64
    assert done.stderr.count("\n") == 1 and str(path) in done.stderr
    assert not (tmp_path / "b.db").exists()


def test_headers_decide_the_form(url: str) -> None:
    """JSON only with a JSON header, a Python literal without, and always labelled as text."""
    for headers in ({"Accept": "application/json"}, {"Content-Type": "application/json"}):
        answer = requests.get(f"{url}/api/v1/system/is_alive", headers=headers, timeout=20)
        assert answer.json() == {"success": True, "message": "", "data": None}
        assert answer.headers["Content-Type"].startswith("text/plain")
    answer = requests.get(f"{url}/api/latest/system/is_alive", timeout=20)
    assert ast.literal_eval(answer.text)["success"] is True


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/v1/pilot/no_such", "no_such"),
        ("/server/panda/getNothing", "getNothing"),
        ("/api/v1/pilot/acquire_jobs/", ""),
        ("/", ""),
        ("/api/v2/pilot/acquire_jobs", ""),
    ],
)
def test_unknown_methods_are_forbidden(url: str, path: str, name: str) -> None:
    """The refusal names the method, for a client that has to choose its dialect."""
    answer = requests.post(url + path, timeout=20)
    assert answer.status_code == 403
    assert answer.text == f"ERROR : method {name} is forbidden"


@pytest.mark.parametrize(
    ("changes", "headers", "expected"),
    [
        ({}, JSON, "No jobs in PanDA"),
        ({"timeout": 10}, JSON, "No jobs in PanDA"),
        ({"timeout": "60"}, JSON, "Type error"),
        ({"n_jobs": True}, JSON, "Type error"),
        ({"site_name": 5}, JSON, "Type error"),
        ({"site_name": None}, JSON, "Type error"),
        ({"task_id": 2**70}, JSON, "Type error"),
        ({"get_proxy_key": True}, JSON, "Type error"),
        ({"token": "x"}, JSON, "unexpected keyword argument 'token'"),
        ({}, {**JSON, "Content-Type": "application/json; charset=utf-8"}, "missing a required"),
    ],
)
def test_types_and_headers_are_strict(
    url: str, changes: dict[str, Any], headers: dict[str, str], expected: str
) -> None:
    """Requests that real servers refuse are refused, with HTTP 200."""
    body = json.dumps({"site_name": "S", **changes})
    answer = requests.post(
        f"{url}/api/v1/pilot/acquire_jobs", data=body, headers=headers, timeout=20
    )
    assert answer.status_code == 200
    assert answer.json()["success"] is False and expected in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", JSON, 500),
        (b"[]", JSON, 500),
        (b"[" * 100_000, JSON, 500),
        (b"not gzip", {**JSON, "Content-Encoding": "gzip"}, 500),
        (
            gzip.compress(b'{"site_name": "S"}', mtime=0)[:-9],
            {**JSON, "Content-Encoding": "gzip"},
            500,
        ),
        (gzip.compress(b'{"site_name": "S"}', mtime=0), {**JSON, "Content-Encoding": "gzip"}, 200),
        (b'{"site_name": "\\ud800"}', JSON, 200),
        (b"site_name=S&timeout=60", {"Accept": "application/json"}, 200),
    ],
)
def test_broken_bodies(url: str, body: bytes, headers: dict[str, str], status: int) -> None:
    """A body that cannot be read is answered, and the server lives on."""
    answer = requests.post(
        f"{url}/api/v1/pilot/acquire_jobs", data=body, headers=headers, timeout=20
    )
    assert answer.status_code == status
    with client_of(url) as client:
        assert client.acquire_job() is None


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"garbage\r\n\r\n", b"400"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{", b"403"),
        (
            b"POST /api/v1/pilot/acquire_jobs HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 99999999999\r\n\r\n{",
            b"413",
        ),
        (
            b"GET /api/v1/event/get_event_range_statuses?job_task_ids=%5B1%5D&x=%ff HTTP/1.1\r\n"
            b"Host: x\r\n\r\n",
            b"200",
        ),
        (
            b"POST /api/v1/pilot/acquire_jobs HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
            b"200",
        ),
    ],
)
def test_raw_requests(url: str, request_bytes: bytes, status: bytes) -> None:
    """Malformed requests get a status, and the server lives on."""
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(100).split()[1] == status
    with client_of(url) as client:
        assert client.acquire_job() is None


def no_job(url: str) -> bool:
    """Whether the server answers, and has none."""
    with client_of(url) as client:
        try:
            return client.acquire_job() is None
        except ServerUnavailable:
            return False


def test_a_body_that_never_comes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A client that dies within its body leaves no trace: no traceback, no dead server."""
    head = b"POST /api/v1/pilot/acquire_jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
    with server_process("--db", str(tmp_path / "es.db")) as (_, told):
        address = ("127.0.0.1", int(told["url"].rpartition(":")[2]))
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(head)
        # Its death is that of a server process: who comes at that moment is cut off as well.
        eventually(lambda: no_job(told["url"]), "an answer")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("version", "text", "start"),
    [
        (0, "[]", "Type not serializable for {"),
        (1, "[]", "unhashable type: 'list'"),
        (0, "no json", "Type not serializable for {"),
    ],
)
def test_broken_bulk_answers(url: str, version: int, text: str, start: str) -> None:
    """The bulk update answers as broken servers do."""
    body = json.dumps({"event_ranges": text, "version": version})
    answer = requests.post(
        f"{url}/api/v1/event/update_event_ranges", data=body, headers=JSON, timeout=20
    )
    assert (answer.status_code, answer.text.startswith(start)) == (500, True)
    if text == "no json":
        assert "'E'" in answer.text


def test_single_update_and_counts(url: str) -> None:
    """The single update books one range; counts and job states can be asked for."""
    with client_of(url) as client:
        task_id = client.create_task({"name": "t", "events": 3})
        job = client.acquire_job()
        assert job is not None
        (entry,) = client.acquire_ranges(job, 1)
    ids = {"job_id": job.panda_id, "jobset_id": job.jobset_id, "task_id": task_id}

    def get(name: str, parameters: dict[str, Any]) -> Any:
        answer = requests.get(f"{url}/api/v1/{name}", params=parameters, headers=JSON, timeout=20)
        return answer.json()

    def update(**values: Any) -> requests.Response:
        body = {"event_range_id": entry.id, "event_range_status": "finished", **values}
        path = f"{url}/api/v1/event/update_single_event_range"
        return requests.post(path, json=body, headers=JSON, timeout=20)

    assert get("event/get_available_event_range_count", ids)["data"] == 2
    assert update(event_range_status="running").json()["success"] is None
    assert update(object_store_id=1).status_code == 500
    assert "Type error" in update(cpu_consumption_time=5).json()["message"]
    done = update(cpu_consumption_time=5.0).json()
    assert done["data"] == {"Command": json.dumps({str(job.panda_id): None})}
    states = get("pilot/get_job_status", {"job_ids": [job.panda_id, 1]})["data"]
    assert [state["status"] for state in states] == ["sent", "not found"]
    documented = json.dumps([{"task_id": task_id, "job_id": job.panda_id}])
    answer = get("event/get_event_range_statuses", {"job_task_ids": documented})
    assert answer["message"] == "database error in the PanDA server"
    rows = get("local/event_rows", {"task_id": task_id})["data"]
    assert sorted(row["status"] for row in rows) == ["finished", "ready", "ready"]


@contextmanager
def raw_server(*pieces: bytes, keep_open: bool = False) -> Iterator[str]:
    """A server that answers one request with these bytes, whatever it was."""
    released = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    try:
                        connection.sendall(piece)
                    except OSError:
                        return
                if keep_open:
                    released.wait(20)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            released.set()
            thread.join(20)


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((), ServerUnavailable),
        ((b"garbage\r\n\r\n",), ServerUnavailable),
        ((_HEAD + b"Content-Length: 100\r\n\r\n{",), ServerUnavailable),
        ((_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",), ServerUnavailable),
        ((_HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",), ServerUnavailable),
        ((_HEAD + b"\r\n<html>login</html>",), ServerUnavailable),
        ((b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",), ServerUnavailable),
    ],
)
def test_hostile_answers(pieces: tuple[bytes, ...], error: type[Exception]) -> None:
    """Whatever bytes come back, the client ends with one clear error."""
    with raw_server(*pieces) as url, client_of(url) as client, pytest.raises(error) as caught:
        client.acquire_job()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_chunked_answers_are_read() -> None:
    """An answer without a length is read to its end."""
    body = b'{"success": false, "message": "No jobs in PanDA", "data": null}'
    chunk = hex(len(body))[2:].encode() + b"\r\n" + body + b"\r\n0\r\n\r\n"
    head = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    with raw_server(head + chunk) as url, client_of(url) as client:
        assert client.acquire_job() is None


@pytest.mark.parametrize("piece", [b"", _HEAD + b"Content-Length: 100\r\n\r\n{"])
def test_silence_is_given_up(piece: bytes) -> None:
    """A server that stops in the middle, or never begins, costs no more than the time limit."""
    with (
        raw_server(piece, keep_open=True) as url,
        client_of(url, timeout_s=0.3) as client,
        pytest.raises(ServerUnavailable, match="in time"),
    ):
        client.acquire_job()


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer above the limit is given up, not stored."""
    monkeypatch.setattr(http_connection, "BODY_LIMIT_BYTES", 1000)
    with (
        raw_server(_HEAD + b"\r\n" + b"x" * 100_000) as url,
        client_of(url) as client,
        pytest.raises(ServerUnavailable, match="larger than 1000"),
    ):
        client.acquire_job()


def test_nobody_listens() -> None:
    """No server at all is doubt, in one line without object addresses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        client_of(f"http://127.0.0.1:{port}") as client,
        pytest.raises(ServerUnavailable, match="no connection") as caught,
    ):
        client.acquire_job()
    assert "0x" not in str(caught.value)


def test_a_bad_address_is_named() -> None:
    """An address that is no URL is a configuration error."""
    with pytest.raises(ConfigError, match=r"server\.url"):
        Connection("localhost:25080")


def test_a_proxy_of_the_environment_is_not_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls go to the server itself, whatever the environment says of proxies."""
    monkeypatch.setitem(os.environ, "http_proxy", "http://127.0.0.1:9")
    with client_of(url) as client:
        assert client.acquire_job() is None
