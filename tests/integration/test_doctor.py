"""`espilot doctor`: each thing that a run needs is tried, and each fault comes with what to do."""

from __future__ import annotations

import base64
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from espilot.cli.main import main
from espilot.diagnosis import local
from espilot.diagnosis.examination import CHECKS

PAYLOAD = "{python} {jobdir}/sim.py {startEvent} {output}"
SIMULATION = "import sys; open(sys.argv[2], 'w').write(sys.argv[1])\n"


class Server(BaseHTTPRequestHandler):
    """Says that it is alive, at a time of its own."""

    alive, ahead_s = b"alive=yes", 0.0

    def do_GET(self) -> None:
        self.send_response_only(200)
        self.send_header("Date", formatdate(time.time() + self.ahead_s, usegmt=True))
        self.send_header("Content-Length", str(len(self.alive)))
        self.end_headers()
        self.wfile.write(self.alive)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def serving(**facts: Any) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Server,), facts))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Doctor:
    """Runs the command for one job file."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self._capsys = directory, capsys
        self.work = directory / "w"
        (directory / "sim.py").write_text(SIMULATION)

    def ask(self, *options: str, payload: str = PAYLOAD, **server: Any) -> dict[str, Any]:
        """The findings by name; the exit code must fit to them."""
        sections: dict[str, dict[str, Any]] = {
            "server": server,
            "payload": {"exec": payload} if payload else {},
            "limits": {"free_start_bytes": 1},
        }
        lines = [
            line
            for name, values in sections.items()
            for line in (f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in values.items()))
        ]
        job = self.directory / "job.toml"
        job.write_text("\n".join(lines))
        code = main(["doctor", str(job), "--workdir", str(self.work), "--json", *options])
        document = json.loads(self._capsys.readouterr().out)
        assert document["schema"] == "espilot.doctor/1"
        found = {each["name"]: each for each in document["checks"]}
        bad = [each for each in found.values() if each["state"] == "bad"]
        assert code == (1 if bad else 0) and document["sound"] == (not bad)
        assert all(each["fix"] for each in bad), bad
        assert list(found) == list(CHECKS)
        return found


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(tmp_path, capsys)


def bad_of(found: dict[str, Any]) -> set[str]:
    return {name for name, each in found.items() if each["state"] == "bad"}


def test_all_is_well_and_nothing_is_left(doctor: Doctor) -> None:
    """A sound job has no fault, and what was tried has left nothing behind."""
    found = doctor.ask()
    assert bad_of(found) == set()
    assert found["credentials"]["state"] == "skipped"
    assert "read back" in found["storage"]["text"] and "a range" in found["payload"]["text"]
    assert sorted(os.listdir(doctor.directory)) == ["job.toml", "sim.py"]
    assert not list(Path("/tmp").glob("zmq_espilot-doctor-*"))


def test_lines_for_people(doctor: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json each check is a line, and what to do stands below it."""
    (doctor.directory / "job.toml").write_text('[payload]\ncommand = "/none/such"\n')
    assert main(["doctor", f"{doctor.directory}/job.toml", "--workdir", str(doctor.work)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == list(CHECKS)
    at = next(n for n, line in enumerate(lines) if line.startswith("payload"))
    assert "bad" in lines[at] and "do:" in lines[at + 1]


def test_server_and_its_clock(doctor: Doctor) -> None:
    """A server that answers is named; none, a foreign one, and another time are faults."""
    with serving() as url:
        found = doctor.ask(url=url)
        assert bad_of(found) == set() and url in found["server"]["text"]
    with serving(alive=b"hello") as url:
        assert bad_of(doctor.ask(url=url)) == {"server"}
    with serving(ahead_s=3600.0) as url:
        found = doctor.ask(url=url)
        assert bad_of(found) == {"clock"} and "-3" in found["clock"]["text"]
    found = doctor.ask(url=url)
    assert bad_of(found) == {"server"} and found["clock"]["state"] == "skipped"


def token(directory: Path, left_s: float) -> Path:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + left_s}).encode())
    path = directory / "token"
    path.write_text(f"e30.{claims.decode().rstrip('=')}.c2ln")
    path.chmod(0o600)
    return path


def test_credentials(doctor: Doctor) -> None:
    """A token is there, private, and lasts; what it holds is never shown."""
    with serving() as url:
        facts = {"url": url, "token_origin": "vo:pilot"}
        path = token(doctor.directory, 86400)
        found = doctor.ask(**facts, token_file=str(path))
        assert bad_of(found) == set() and found["credentials"]["text"] == str(path)
        path.chmod(0o644)
        found = doctor.ask(**facts, token_file=str(path))
        assert bad_of(found) == {"credentials"} and "chmod" in found["credentials"]["fix"]
        assert path.read_text() not in json.dumps(found)
        found = doctor.ask(**facts, token_file=str(token(doctor.directory, 30)))
        assert "ends in" in found["credentials"]["text"]
        found = doctor.ask(**facts, token_file="/none/such")
        assert "credentials" in bad_of(found)


def test_storage_and_disk(doctor: Doctor) -> None:
    """A storage that cannot be written and a work directory that cannot be made are found."""
    (doctor.directory / "file").write_text("")
    found = doctor.ask("--storage", f"{doctor.directory}/file")
    assert bad_of(found) == {"storage"}
    doctor.work = doctor.directory / "file" / "w"
    assert bad_of(doctor.ask("--storage", f"{doctor.directory}/s")) == {"disk"}
    doctor.work = Path("/proc/none")
    assert bad_of(doctor.ask("--storage", f"{doctor.directory}/s")) == {"disk"}


def test_limits(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too low limits of the shell are named with the command that raises them."""
    monkeypatch.setattr(local, "LEAST_FILES", resource.getrlimit(resource.RLIMIT_NOFILE)[0] + 1)
    found = doctor.ask()
    assert bad_of(found) == {"limits"} and "ulimit -n" in found["limits"]["fix"]


@pytest.mark.parametrize(
    "payload",
    [
        "/none/such {output}",
        f"{sys.executable} -c 'raise SystemExit(3)' {{output}}",
        "{python} {nope} {output}",
        "'",
    ],
)
def test_payload(doctor: Doctor, payload: str) -> None:
    """A payload that cannot be started, or fails its first range, is found."""
    assert bad_of(doctor.ask(payload=payload)) == {"payload"}


def test_settings_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job file with a fault ends with 64 and names it."""
    (tmp_path / "job.toml").write_text("[taks]\n")
    assert main(["doctor", str(tmp_path / "job.toml")]) == 64
    assert "did you mean task" in capsys.readouterr().err
