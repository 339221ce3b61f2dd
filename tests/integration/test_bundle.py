"""`espilot bundle`: secrets are planted everywhere and looked for in the archive."""

from __future__ import annotations

import json
import os
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from espilot.cli.main import main
from espilot.config import EndpointConfig, ServerConfig, Settings, dump_settings
from espilot.model import EventRange, FailedRange
from espilot.queue.store import Queue
from espilot.supervisor import bundle, bundle_sources

PLANTED = [
    f"{name}Xq7{n}vTz9"
    for n, name in enumerate(("env", "url", "log", "out", "def", "pem", "queue"))
]
ENV, URL, LOG, OUT, DEFINITION, PEM, QUEUE = PLANTED
JOURNAL = "journalXq77vTz9"
TOKEN, KEY, LINK, OWN = "plainToken0815", "plainKey4711", "behindTheLink0816", "innocent-words"
SPEAKING = f"PASSWORD={ENV}\nPANDA_AUTH_TOKEN={ENV}\nAWS_SECRET_ACCESS_KEY='{ENV}'\n"


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """What a run left, with secrets in every file, and files that are none of a bundle's."""
    work, job = tmp_path / "w", tmp_path / "job"
    for path in (work / "state" / "archives", work / "logs", work / "payload-1", job):
        path.mkdir(parents=True)
    (job / "token").write_text(f"{TOKEN}\n")
    (job / "keys").write_text(f"[default]\naws_secret_access_key = {KEY}\n")
    settings = Settings(
        storage=f"https://store.example/b?X-Amz-Signature={URL}&X-Amz-Expires=60",
        server=ServerConfig(url=f"https://me:{URL}@server.example", token_file=str(job / "token")),
        endpoints={"s3": EndpointConfig(url="s3://b", credentials="keys",
                                        proxy=f"http://p:{URL}@proxy.example:3128")},
    )  # fmt: skip
    run = {
        "schema": "espilot.run/1", "state": "running", "workdir": str(work), "jobdir": str(job),
        "storage": settings.storage, "settings": dump_settings(settings), "task": {"name": OWN},
        "journal": "espilot-a", "began": 1_795_320_000.5,
    }  # fmt: skip
    (work / "state" / "run.json").write_text(json.dumps(run))
    fill_queue(Queue(work / "state" / "queue"))
    job_text = json.dumps(
        {"definition": {"pilotSecrets": {"A": [DEFINITION]}, "jobPars": f"--token {DEFINITION}"}}
    )
    (work / "state" / "job.json").write_text(job_text)
    (work / "state" / "events.jsonl").write_text(f'{{"what": "failed: secret={LOG}"}}\n')
    pem = f"-----BEGIN PRIVATE KEY-----\n{PEM}\n-----END PRIVATE KEY-----\n"
    log = f"{OWN}\nGET https://s3.example/o?sig={LOG}\nAuthorization: Bearer {LOG}\n{TOKEN} {KEY}\n"
    (work / "logs" / "pilot.log").write_text(log + pem)
    (work / "payload-1" / "payload.stdout").write_text(SPEAKING + f"--password {OUT}\n")
    (work / "payload-1" / "payload.stderr").symlink_to(job / "link")
    (job / "link").write_text(LINK)
    (work / "payload-1" / "notes.txt").write_text(OUT)
    (work / "state" / "server.sqlite").write_text(OUT)
    return work


def fill_queue(queue: Queue) -> None:
    """A range whose input needs a signature, and which failed with a secret in its reason."""
    one = EventRange("1-2-3-4-5", 1, 1, "in.root", "g", "s", f"https://a:{QUEUE}@se.example/f")
    with closing(queue), queue.moves() as moves:
        moves.put_ranges([one], now=1.0)
        moves.take(["c"], epoch=1, now=2.0)
        reason = f"cannot open it: token={QUEUE}"
        moves.fail(FailedRange(one.id, False, 1305, reason), epoch=1, now=3.0)


def install_journalctl(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal whose lines have a secret, and which tells how it was asked."""
    program = directory / "bin" / "journalctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@"\necho "unit failed: Authorization: Bearer {JOURNAL}"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def read(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        return {m.name.partition("/")[2]: tar.extractfile(m).read().decode() for m in tar}  # type: ignore[union-attr]


def test_no_secret_is_in_the_bundle(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of the planted secrets is in it, wherever it stood; what tells about the run is."""
    monkeypatch.setenv("MY_SERVICE_PASSWORD", OWN + "-not")
    install_journalctl(tmp_path, monkeypatch)
    target = tmp_path / "b.tar.gz"
    assert main(["bundle", str(workdir), "--output", str(target)]) == 0
    members = read(target)
    everything = "".join(members.values())
    for secret in (*PLANTED, TOKEN, KEY, LINK, JOURNAL, OWN + "-not"):
        assert secret not in everything, secret
    assert {
        "README.txt", "status.json", "machine.json", "files.txt", "state/run.json",
        "state/job.json", "state/events.jsonl", "logs/pilot.log", "payload-1/payload.stdout",
        "state/queue.jsonl", "journal.txt",
    } == set(members) - {"cgroup.txt"}  # fmt: skip
    assert "1-2-3-4-5" in members["state/queue.jsonl"]
    assert "cannot open it" in members["state/queue.jsonl"]
    assert "SYSLOG_IDENTIFIER=espilot-a + UNIT=espilot@a.service" in members["journal.txt"]
    assert "--since=@1795320000" in members["journal.txt"]
    assert OWN in members["logs/pilot.log"] and OWN in members["status.json"]
    assert "server.example" in everything and "proxy.example" in everything
    assert "notes.txt" in members["files.txt"]
    assert target.stat().st_mode & 0o777 == 0o600


def test_the_test_finds_secrets(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the rules every planted secret would be in it, but for those of files not taken."""
    monkeypatch.setattr(bundle, "redact", lambda text, known: text)
    assert main(["bundle", str(workdir), "--output", str(tmp_path / "b.tar.gz")]) == 0
    everything = "".join(read(tmp_path / "b.tar.gz").values())
    assert all(secret in everything for secret in (*PLANTED, TOKEN, KEY))
    assert LINK not in everything


def test_figures_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the group and those above it, as far as there are some; none is no error."""
    group = tmp_path / "system.slice" / "espilot@a.service"
    group.mkdir(parents=True)
    for each in (group, group.parent):
        (each / "cgroup.controllers").write_text("memory\n")
    (group / "memory.max").write_text("2147483648\n")
    (group.parent / "memory.events").write_text("low 0\noom_kill 3\n")
    monkeypatch.setattr(bundle_sources, "own_group", lambda membership: group)
    text = bundle_sources.group_text(None)
    assert f"== {group}\nmemory.max: 2147483648\n" in text
    assert "memory.events: low 0\noom_kill 3\n" in text
    monkeypatch.setattr(bundle_sources, "own_group", lambda membership: None)
    assert bundle_sources.group_text(None) == ""


def test_a_long_log_is_cut_at_line_ends(workdir: Path, tmp_path: Path) -> None:
    """Of a log that is too long head and tail are taken, and no half line that hides a secret."""
    line = f"PASSWORD={OUT} {'x' * 83}\n"
    size = (bundle.HEAD_BYTES + bundle.TAIL_BYTES) * 2
    (workdir / "payload-1" / "payload.stdout").write_text(line * (size // len(line)))
    assert main(["bundle", str(workdir), "--output", str(tmp_path / "b.tar.gz")]) == 0
    text = read(tmp_path / "b.tar.gz")["payload-1/payload.stdout"]
    assert "bytes left out" in text and len(text) < size
    assert OUT[3:] not in text


def test_default_place_and_json(
    workdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without --output it is a file here; --json names it and what is in it."""
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", str(workdir), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "espilot.bundle/1"
    assert [str(p) for p in tmp_path.glob("espilot-bundle-*")] == [document["file"]]
    assert any(name.endswith("/README.txt") for name in document["members"])


def test_what_cannot_be_done_is_said(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No run, or a place that cannot be written, is one line with the remedy."""
    assert main(["bundle", str(tmp_path / "none")]) == 64
    assert "does not exist" in capsys.readouterr().err
    assert main(["bundle", str(workdir), "--output", str(tmp_path / "none" / "b.tgz")]) == 73
    assert "--output" in capsys.readouterr().err
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    (tmp_path / "file").touch()
    assert main(["bundle", str(workdir), "--output", str(tmp_path / "file" / "b.tgz")]) == 73
    assert "--output" in capsys.readouterr().err


def test_directories_and_pipes_in_the_place_of_logs(workdir: Path, tmp_path: Path) -> None:
    """What is no file is passed over, and nothing waits for it."""
    (workdir / "logs" / "older").mkdir()
    os.mkfifo(workdir / "logs" / "pipe")
    assert main(["bundle", str(workdir), "--output", str(tmp_path / "b.tar.gz")]) == 0
    members = read(tmp_path / "b.tar.gz")
    assert "logs/pilot.log" in members
    assert not {"logs/older", "logs/pipe"} & set(members)
