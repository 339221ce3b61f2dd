"""The fake payload: right when it shall be right, and wrong exactly as it was told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from payload_stub import ROOT, PilotStub, end, make_ranges

from espilot.payload.fake.content import expected_content
from espilot.wire.payload import Failed, Finished, Hello, Ready

SCRIPT = str(ROOT / "bin" / "fake-payload")
N = 12
DIALECTS = pytest.mark.parametrize("dialect", ["text", "native"])
NEVER: Callable[[], bool] = lambda: False  # noqa: E731


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[PilotStub]:
    """A pilot with twelve ranges."""
    pilot = PilotStub(make_ranges(N), tmp_path)
    yield pilot
    pilot.close()


class Run:
    """What one run of the command did."""

    def __init__(self, process: subprocess.Popen[bytes], out: bytes, err: bytes) -> None:
        self.code = process.returncode
        self.out, self.err = out, err

    @property
    def json(self) -> dict[str, Any]:
        """The last line of stdout."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found


def run(stub: PilotStub, *options: str, until: Callable[[], bool] = NEVER) -> Run:
    """Run the command to its end, or until the condition and then end it."""
    process = stub.start(SCRIPT, *options)
    try:
        stub.serve(process, until)
    finally:
        out, err = end(process)
    return Run(process, out, err)


def paths(stub: PilotStub) -> list[str]:
    """The paths reported, one after the other."""
    return [path for said in stub.finished for path in said.paths]


@DIALECTS
@pytest.mark.parametrize(
    "more", [[], ["--outstanding", "3"], ["--delay-ms", "1", "--jitter-ms", "1"]]
)
def test_every_range_is_done_and_verifiable(stub: PilotStub, dialect: str, more: list[str]) -> None:
    """Without faults each range has one output with the expected content, and the counts agree."""
    done = run(stub, "--dialect", dialect, "--outsize", "300", "--json", *more)
    assert (done.code, done.err) == (0, b"")
    assert sorted(f.id for f in stub.finished) == sorted(r.id for r in make_ranges(N))
    for said in stub.finished:
        (path,) = said.paths
        assert path == f"{stub.output_dir}/output.{said.id}"
        assert Path(path).read_bytes() == expected_content(said.id, 300)
    found = done.json
    assert (found["ranges"], found["no_more"], found["failed"]) == (N, 1, 0)
    assert (found["bytes"], found["faults"]) == (N * 300, {})
    assert found["request_to_reply_ms"]["count"] == found["replies"] == N + 1
    assert found["request_to_reply_ms"]["median"] <= found["request_to_reply_ms"]["max"]
    assert found["requests"] >= N and found["wall_s"] > 0


@DIALECTS
def test_clients_are_processes_that_share_the_work(stub: PilotStub, dialect: str) -> None:
    """Three clients are three identities; their counts are summed."""
    done = run(stub, "--dialect", dialect, "--clients", "3", "--json")
    assert done.code == 0
    assert len(stub.identities) == 3
    assert (done.json["clients"], done.json["ranges"], done.json["no_more"]) == (3, N, 3)


def test_a_named_client_has_its_name_as_identity(stub: PilotStub) -> None:
    """The identity is the name and a NUL byte; several clients get a number besides."""
    run(stub, "--name", "me", "--max-ranges", "2")
    assert stub.identities == {b"me\0"}
    stub.identities.clear()
    run(stub, "--name", "me", "--clients", "2")
    assert stub.identities == {b"me-0\0", b"me-1\0"}


def test_several_files_and_small_sizes(stub: PilotStub) -> None:
    """Each file of a range is reported in order; an output may be shorter than its id."""
    run(stub, "--nfiles", "3", "--outsize", "5", "--prefix", "p")
    first = stub.finished[0]
    assert first.paths == tuple(f"{stub.output_dir}/{p}.{first.id}" for p in ("p", "p2", "p3"))
    assert Path(first.paths[2]).read_bytes() == expected_content(first.id, 5)


def test_max_ranges_ends_in_good_order(stub: PilotStub) -> None:
    """It asks for no more than it may take, reports all of it and exits 0."""
    done = run(stub, "--max-ranges", "5", "--outstanding", "3", "--json")
    assert (done.code, len(stub.finished), len(stub.left)) == (0, 5, N - 5)
    assert done.json["requests"] == 5


@DIALECTS
def test_failures_are_reported_as_failures(stub: PilotStub, dialect: str) -> None:
    """Every third range fails and every fourth is not understood, with its id."""
    done = run(
        stub, "--dialect", dialect, "--fail-every", "3", "--parse-error-every", "4", "--json"
    )
    ids = [r.id for r in make_ranges(N)]
    assert [f.id for f in stub.failed] == [ids[i - 1] for i in (3, 4, 6, 8, 9, 12)]
    assert done.json["failed"] == 6
    assert done.json["faults"] == {"parse-error": 3, "fail": 3}


@DIALECTS
def test_reports_too_many(stub: PilotStub, dialect: str) -> None:
    """An output is reported twice, and one for a range that nobody handed out."""
    run(stub, "--dialect", dialect, "--report-twice", "6", "--report-unknown", "4")
    ids = [f.id for f in stub.finished]
    assert len(ids) == N + 2 + 3
    assert ids.count("7-11-13-6-1") == 2 and ids.count("0-0-0-0-0") == 3


@DIALECTS
def test_wrong_files(stub: PilotStub, dialect: str) -> None:
    """Missing, empty and changed files are just that when the pilot looks."""
    options = ["--missing-file", "5", "--empty-file", "6", "--change-after-report", "7"]
    run(stub, "--dialect", dialect, *options)
    sizes = [Path(p).stat().st_size if Path(p).exists() else None for p in paths(stub)]
    assert sizes == [100] * 4 + [None, 0, 107, 100, 100, None, 100, 0]


def test_paths_outside_come_in_three_ways(stub: PilotStub) -> None:
    """Absolute, by `..` and by symlink: all of them lead to a file outside."""
    run(stub, "--path-outside", "2")
    wrong = paths(stub)[1::2]
    assert wrong[0] == "/etc/passwd" and "/.." in wrong[1] and Path(wrong[2]).is_symlink()
    assert {os.path.realpath(path) for path in wrong} == {"/etc/passwd"}


@DIALECTS
def test_garbage_comes_besides(stub: PilotStub, dialect: str) -> None:
    """Messages that are none arrive, and every range is done nevertheless."""
    run(stub, "--dialect", dialect, "--garbage", "3")
    assert len(stub.unusable) == 4
    assert len(stub.finished) == N


@DIALECTS
def test_an_oversized_message_cuts_the_connection(stub: PilotStub, dialect: str) -> None:
    """After it the client comes back under another identity and goes on."""
    done = run(stub, "--dialect", dialect, "--oversize", "6", "--max-ranges", "8")
    assert done.code == 0
    assert len(stub.identities) == 2
    assert len(stub.finished) >= 7


def test_a_flood_of_requests(stub: PilotStub) -> None:
    """Ten thousand requests come at once, and the ranges are done nevertheless."""
    done = run(stub, "--flood-ready", "--json")
    assert done.code == 0
    assert len(stub.finished) == N
    assert done.json["requests"] >= 10_000


@DIALECTS
def test_no_request(stub: PilotStub, dialect: str) -> None:
    """It lives, uses no CPU and never asks."""
    stub.on_message = lambda identity, said: False
    process = stub.start(SCRIPT, "--dialect", dialect, "--no-request")
    try:
        if dialect == "native":
            stub.serve(process, until=lambda: bool(stub.heard))
        assert not any(isinstance(said, Ready) for said in stub.heard)
        assert process.poll() is None
    finally:
        end(process)


@DIALECTS
@pytest.mark.parametrize(
    ("how", "code"),
    [("segv", -signal.SIGSEGV), ("abort", -signal.SIGABRT), ("kill", -9), ("exit3", 3)],
)
def test_a_crash_is_what_was_asked_for(stub: PilotStub, dialect: str, how: str, code: int) -> None:
    """After three ranges it dies with the fourth in hand."""
    done = run(stub, "--dialect", dialect, "--crash-after", "3", "--crash-how", how)
    assert done.code == code
    assert len(stub.left) == N - 4
    assert len(stub.finished) <= 3


def test_a_crashed_client_shows_in_the_exit_code(stub: PilotStub) -> None:
    """With several clients the command's exit code tells of the one that died."""
    done = run(stub, "--clients", "2", "--crash-after", "1", "--json")
    assert done.code == 137
    assert done.json["clients"] < 2


def test_exit_early(stub: PilotStub) -> None:
    """After four ranges, all reported, it exits 0 without having been told."""
    done = run(stub, "--exit-early", "4", "--json")
    assert (done.code, len(stub.finished)) == (0, 4)
    assert done.json["no_more"] == 0


def test_a_hang_has_a_range_in_hand(stub: PilotStub) -> None:
    """After two ranges it stops, holding the third, until it is killed."""
    done = run(stub, "--hang-after", "2", until=lambda: len(stub.left) == N - 3)
    assert done.code == -9
    assert len(stub.finished) <= 2


def test_term_can_be_ignored(stub: PilotStub) -> None:
    """With the switch SIGTERM does nothing; without it, it ends the process."""
    for options, code in ((["--ignore-term"], -9), ([], -15)):
        stub.left.extend(make_ranges(3))
        before = len(stub.left)
        process = stub.start(SCRIPT, "--hang-after", "0", *options)
        try:
            stub.serve(process, until=lambda before=before: len(stub.left) < before)
            process.send_signal(signal.SIGTERM)
            if not options:
                process.wait(20)
            ignored = int(status(process.pid, "SigIgn"), 16) if options else 0
            assert bool(ignored >> (signal.SIGTERM - 1) & 1) == bool(options)
        finally:
            end(process)
        assert process.returncode == code


def status(pid: int, key: str) -> str:
    """One line of a process's status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(key + ":"))


def test_others_are_left_behind(stub: PilotStub) -> None:
    """Children stay in the group; orphans have sessions of their own and ignore TERM."""
    marker = stub.name
    process = stub.start(SCRIPT, "--orphans", "2", "--spawn", "1", "--max-ranges", "1", MARK=marker)
    stub.serve(process)
    left = [p for p in psutil.process_iter(["pid"]) if marks(p, marker) and p.pid != process.pid]
    try:
        sessions = [os.getsid(p.pid) for p in left]
        outside = [p for p, sid in zip(left, sessions, strict=True) if sid != process.pid]
        assert (len(left), len(outside)) == (3, 2)
        assert all(int(status(p.pid, "SigIgn"), 16) >> 14 & 1 for p in outside)
    finally:
        for p in left:
            p.kill()
        end(process)


def marks(process: psutil.Process, marker: str) -> bool:
    """Whether a living process carries our mark in its environment."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get("MARK") == marker
    except psutil.Error:
        return False


def test_stdout_and_disk_are_filled(stub: PilotStub) -> None:
    """The asked number of bytes is written, and the summary still is the last line."""
    options = ["--flood-stdout", "3M", "--eat-disk", "2M", "--eat-memory", "1M", "--json"]
    with (stub.output_dir / "stdout").open("w+b") as stub.stdout:
        done = run(stub, *options)
    done.out = (stub.output_dir / "stdout").read_bytes()
    assert len(done.out) - len(done.out.splitlines()[-1]) - 1 == 3 * 2**20
    assert (stub.output_dir / "eaten").stat().st_size == 2 * 2**20
    assert done.json["ranges"] == N


def test_a_reply_in_a_wrong_form_is_complained_about(stub: PilotStub) -> None:
    """As real payloads do, it answers with the range it got and asks again."""
    sent = []

    def pretty(identity: bytes, said: object) -> bool:
        if isinstance(said, Ready) and not sent:
            sent.append(said)
            stub.send(identity, b'{"eventRangeID": "7-7-7-7-7"}')
            return True
        return False

    stub.on_message = pretty
    run(stub)
    assert [f.id for f in stub.failed] == ["7-7-7-7-7"]
    assert len(stub.finished) == N


def test_native_clients_introduce_themselves(stub: PilotStub) -> None:
    """The first message of a native client is its hello, with its slots."""
    run(stub, "--dialect", "native", "--outstanding", "4")
    assert isinstance(stub.heard[0], Hello) and stub.heard[0].slots == 4
    assert stub.heard[1] == Ready(4)
    assert {type(said) for said in stub.heard} == {Hello, Ready, Finished}
    assert not any(isinstance(said, Failed) for said in stub.heard)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--channel", "a/b"], "channel name"),
        (["--outsize", "-1"], "whole number from 0"),
        (["--fail-every", "0"], "whole number from 1"),
        (["--outdir", "/dev/null/x"], "--outdir"),
        (["--crash-how", "exit"], "exitN"),
        (["--outsi", "1"], "unrecognized"),
    ],
)
def test_a_wrong_command_line_is_one_clear_error(
    stub: PilotStub, options: list[str], words: str
) -> None:
    """The error names the option; the exit code is neither 0 nor 1; there is no traceback."""
    done = run(stub, *options)
    assert done.code in (2, 64)
    assert words in done.err.decode() and b"Traceback" not in done.err


def test_no_channel_is_exit_code_64(stub: PilotStub) -> None:
    """Without a channel it says how to give one."""
    process = stub.start(SCRIPT, PILOT_EVENTRANGECHANNEL="")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 64
    assert b"PILOT_EVENTRANGECHANNEL" in err
