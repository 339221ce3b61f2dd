"""The pilot below a wrapper: the whole table of exit codes and signals, files, and what a payload
gets, at the built-in server over the v1 dialect."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import run_oracle
from pilot_run import FAKE, eventually, job_text
from test_harvester_run import findings, finished, harvester
from test_server_faults import Server
from wrapper import Play, play

EVENTS = 100
SLOW = f"{FAKE} --clients 2 --delay-ms 150"
OF_THE_C_LIBRARY = 0b11 << 31
"""Signals 32 and 33: ignored if our parent ignores them, for the C library lets nobody set them."""
QUEUE = {"name": "QUEUE", "state": "ACTIVE", "status": "online", "corecount": 2}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that speaks v1 only, with one task."""
    made = Server(tmp_path, job_text(FAKE, events=EVENTS))
    made.start(dialects="v1")
    try:
        yield made
    finally:
        made.stop()


def url_of(server: Server) -> tuple[str, str]:
    """The option that names the server."""
    return "--url", server.url


def require_accounted(server: Server, directory: Path, least: int = 0) -> int:
    """Every range is finished once with its output, or free; returns how many are finished."""
    account = run_oracle.take_account(server.database, directory / "storage")
    finished = len(account.with_fate("finished"))
    assert finished >= least
    assert finished + len(account.with_fate("ready")) == EVENTS
    run_oracle.require_contents(account, lfns=("output",))
    return finished


def at_work(playing: Play, server: Server, n: int = 4) -> None:
    """Wait until the server has booked some ranges."""
    ended = playing.process.poll
    eventually(lambda: run_oracle.booked(server.database) >= n or ended() is not None,
               what="ranges are booked")  # fmt: skip
    assert playing.process.poll() is None, playing.stderr


def test_a_job_for_a_wrapper(tmp_path: Path, server: Server) -> None:
    """A whole job: code 0, the job's id beside the pilot, the log file, the exit report; the work
    directory goes away, unknown options are named."""
    with play(tmp_path, *url_of(server), "--allow-same-user=False") as playing:
        status = Path(f"/proc/{playing.pilot_pid}/status").read_text()
        assert playing.end() == (0, 0), playing.stderr
        assert require_accounted(server, tmp_path, EVENTS) == EVENTS
        ids = (playing.here / "pilot3" / "pandaIDs.out").read_text().split()
        with closing(sqlite3.connect(server.database, timeout=20)) as db:
            assert ids == [str(row[0]) for row in db.execute("SELECT panda_id FROM job")]
        assert "alive: job" in playing.log and "espilot 0.1.0 starts: QUEUE" in playing.log
        assert not (playing.here / "espilot-work").exists()
        assert playing.report["exit_code"] == 0 and playing.report["jobs"] == 1
        assert playing.report["ranges"]["finished"] == EVENTS
        assert "unknown option --newest-option with its value, ignored" in playing.stderr
    # Else this would not have shown anything of signals that arrive ignored.
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    seen = int(fields["SigIgn"], 16) | int(fields["SigCgt"], 16)
    assert seen >> (signal.SIGINT - 1) & 1 and seen >> (signal.SIGQUIT - 1) & 1


SIGNALS = {
    signal.SIGTERM: (143, 1), signal.SIGINT: (130, 2), signal.SIGQUIT: (131, 131),
    signal.SIGXCPU: (152, 152), signal.SIGUSR1: (138, 138), signal.SIGUSR2: (137, 1),
    signal.SIGBUS: (135, 135), signal.SIGSEGV: (139, 139),
}  # fmt: skip


@pytest.mark.parametrize("number", list(SIGNALS))
def test_lesson_53_and_lesson_54_each_forwarded_signal_drains(
    tmp_path: Path, server: Server, number: signal.Signals
) -> None:
    """Each signal that a wrapper forwards drains, SIGINT and SIGQUIT although they arrive ignored;
    what was made is reported before the pilot ends with the signal's code."""
    with play(tmp_path, *url_of(server), payload=SLOW) as playing:
        at_work(playing, server)
        playing.forward(number)
        assert playing.end() == SIGNALS[number], playing.stderr
        finished = require_accounted(server, tmp_path, 4)
        report = playing.report
        assert report["signal"] == number and report["ranges"]["finished"] == finished
        assert report["ranges"]["left"] == 0
    with closing(sqlite3.connect(server.database, timeout=20)) as db:
        first = db.execute("SELECT status FROM job ORDER BY panda_id").fetchone()
        assert first[0] in ("finished", "failed", "merging")


def test_lesson_62_exit_on_drain(tmp_path: Path, server: Server) -> None:
    """With `--exit-on-drain 0` a clean drain is no failure; SIGCONT changes nothing."""
    options = *url_of(server), "--exit-on-drain", "0"
    with play(tmp_path, *options, payload=SLOW) as playing:
        at_work(playing, server)
        playing.forward(signal.SIGCONT)
        # Two at once would be one to a shell.
        at_work(playing, server, run_oracle.booked(server.database) + 1)
        playing.forward(signal.SIGTERM)
        assert playing.end() == (0, 0), playing.stderr
        assert playing.report["signal"] == signal.SIGTERM, playing.stderr + playing.log
        require_accounted(server, tmp_path, 4)


def test_a_signal_at_the_start(tmp_path: Path) -> None:
    """A signal that comes before anything was started has its code and its report too."""
    fifo = tmp_path / "access" / "queuedata.json"
    fifo.parent.mkdir()
    (tmp_path / "hold").mkdir()
    hook = "import time, espilot.cli.stock_settings as s\n"
    hook += "s.read_queue = lambda *a: open('here', 'w').close() or time.sleep(60)\n"
    (tmp_path / "hold" / "usercustomize.py").write_text("")
    (tmp_path / "hold" / "sitecustomize.py").write_text(
        "import sys\n"
        "if sys.argv[0].endswith('pilot.py') or 'pilot3/pilot.py' in ' '.join(sys.orig_argv):\n"
        f"    import os; sys.path.insert(0, {str(Path(run_oracle.__file__).parents[2])!r})\n"
        + "".join(f"    {line}\n" for line in hook.splitlines())
    )
    env = {"PYTHONPATH": str(tmp_path / "hold")}
    with play(tmp_path, "--url", "http://127.0.0.1:1", env=env) as playing:
        eventually((playing.here / "here").exists, what="the pilot reads queue data")
        playing.forward(signal.SIGINT)
        assert playing.end() == (130, 2), playing.stderr
        assert playing.report["pilot_error_code"] == 1208


def end_of(tmp_path: Path, *options: str, env: dict[str, str] | None = None) -> Play:
    """Play to the end."""
    with play(tmp_path, *options, env=env) as playing:
        playing.end()
    return playing


def prestage(tmp_path: Path, **changed: object) -> None:
    """Queue data where a factory puts them."""
    here = tmp_path / "access"
    here.mkdir()
    (here / "queuedata.json").write_text(json.dumps({"QUEUE": QUEUE | changed}))


NOWHERE = "--url", "http://127.0.0.1:1", "--getjobfailures", "2"


def test_lesson_48_no_server(tmp_path: Path) -> None:
    """A server that cannot be reached: 79, and the report says so."""
    playing = end_of(tmp_path, *NOWHERE)
    assert playing.end() == (79, 79)
    assert playing.report["pilot_error_code"] == 1318
    assert "requests in a row failed" in playing.report["reason"]


def test_no_jobs(tmp_path: Path, server: Server) -> None:
    """A queue without a job: 82, which a wrapper makes a success."""
    server.stop()
    server.start(dialects="v1", jobs_error_as_none={"*": 1000})
    playing = end_of(tmp_path, *url_of(server), "-v", "2")
    assert playing.end() == (82, 0)
    assert playing.report["pilot_error_code"] == 1385 and playing.report["jobs"] == 0


@contextmanager
def no_jobs_here() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server without jobs: its address, and what it is asked with."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self.path.startswith("/api/v1/"):
                self._answer(b"%s is forbidden" % self.path.rpartition("/")[2].encode(), 403)
                return
            if self.path.endswith("/acquire_jobs"):
                asked.append(json.loads(body))
            answer = {"success": False, "message": "No jobs in PanDA", "data": None}
            self._answer(json.dumps(answer).encode())

        def do_GET(self) -> None:
            self._answer(b'{"success": true, "message": "", "data": "alive"}')

        def _answer(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("options", "left_s"), [((), 324000), (("-l", "7200"), 7200)])
def test_jobs_are_asked_for_that_fit_here(
    tmp_path: Path, options: tuple[str, ...], left_s: int
) -> None:
    """A request tells memory and disk space (MB), and how long this pilot will live."""
    features = tmp_path / "features"
    features.mkdir()
    (features / "max_rss_bytes").write_text(str(300 << 20))
    env = {"JOBFEATURES": str(features)}
    with no_jobs_here() as (url, asked):
        playing = end_of(tmp_path, "--url", url, "-v", "1", *options, env=env)
    assert playing.end() == (82, 0), playing.stderr
    assert asked
    for each in asked:
        assert each["memory"] == 300 and 1 <= each["disk_space"] <= 16336
        assert left_s - 180 < each["remaining_time"] <= left_s


def test_no_job_is_asked_for_when_too_little_time_is_left(tmp_path: Path) -> None:
    """With less than `least_left_s` until a known end the pilot ends without asking."""
    env = {"ESPILOT_JOBS_LEAST_LEFT_S": "3600"}
    with no_jobs_here() as (url, asked):
        playing = end_of(tmp_path, "--url", url, "-l", "1800", env=env)
    assert playing.end() == (82, 0), playing.stderr
    assert "less than 3600 s are left until the wall time of 1800 s" in playing.report["reason"]
    assert asked == []


def test_the_time_of_the_slot_is_known_before_the_first_request(tmp_path: Path) -> None:
    """What the job features tell counts for the first job too."""
    features = tmp_path / "features"
    features.mkdir()
    (features / "wall_limit_secs").write_text("1800")
    env = {"ESPILOT_JOBS_LEAST_LEFT_S": "3600", "JOBFEATURES": str(features)}
    with no_jobs_here() as (url, asked):
        playing = end_of(tmp_path, "--url", url, env=env)
    assert playing.end() == (82, 0), playing.stderr
    assert asked == []


def test_a_job_that_comes_while_the_pilot_is_told_to_end(tmp_path: Path, server: Server) -> None:
    """The server has handed it out: its answer is awaited, and the job goes back at once."""
    server.stop()
    server.start(dialects="v1", answer_delay={"acquire_jobs": 1}, answer_delay_s=4.0)

    def states() -> list[str]:
        with closing(sqlite3.connect(server.database, timeout=20)) as db:
            return [row[0] for row in db.execute("SELECT status FROM job WHERE node IS NOT NULL")]

    with play(tmp_path, *url_of(server)) as playing:
        eventually(lambda: "sent" in states(), what="the job is handed out")
        playing.forward(signal.SIGTERM)
        playing.end()
        assert "sent" not in states(), playing.log[-3000:]
        require_accounted(server, tmp_path)


def test_too_little_time_after_a_good_job_is_no_failure(tmp_path: Path, server: Server) -> None:
    """The last job was good, and for another one there is no time: 0, and the report says why."""
    env = {"ESPILOT_JOBS_LEAST_LEFT_S": "3585", "ESPILOT_JOBS_AT_MOST": "5"}
    options = *url_of(server), "-l", "3600"
    # 20 s of work: it begins when another job might be taken, and ends when none may.
    with play(tmp_path, *options, payload=f"{FAKE} --clients 2 --delay-ms 400", env=env) as playing:
        assert playing.end(120.0) == (0, 0), playing.stderr
        assert require_accounted(server, tmp_path, EVENTS) == EVENTS
        assert playing.report["jobs"] == 1
        assert "less than 3585 s are left" in playing.report["reason"]


@pytest.mark.parametrize(
    ("changed", "codes"),
    [({"state": "DISABLED"}, (78, 1359)), ({"status": "offline"}, (83, 1386))],
)
def test_queue_that_takes_no_pilot(
    tmp_path: Path, changed: dict[str, str], codes: tuple[int, int]
) -> None:
    """A queue that is not active or offline ends the pilot before it asks for a job."""
    prestage(tmp_path, **changed)
    report = end_of(tmp_path, *NOWHERE).report
    assert (report["exit_code"], report["pilot_error_code"]) == codes


def test_bad_queue_data(tmp_path: Path) -> None:
    """Queue data that are no JSON, or of another queue: 72."""
    prestage(tmp_path)
    (tmp_path / "access" / "queuedata.json").write_text("{")
    assert end_of(tmp_path, *NOWHERE).end() == (72, 72)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-w", "analysis"), "workflow 'analysis' is not supported"),
        (("-w", "https://s", "-h", "Q"), "pilot of the first generation"),
        (("--strict",), "unknown option --newest-option"),
        (("--exit-on-drain", "2"), "--exit-on-drain"),
        (("--url", "gopher://x"), "--url"),
        (("-z",), "--harvester-workdir"),
    ],
)
def test_lesson_52_a_wrong_command_line(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    """What cannot be meant ends with 64, never 2, and one line that names it."""
    playing = end_of(tmp_path, *options)
    assert playing.end() == (64, 64)
    assert words in playing.report["reason"] and "Traceback" not in playing.stderr


def test_no_work_directory(tmp_path: Path) -> None:
    """A work directory that cannot be made: 66."""
    (tmp_path / "access").mkdir()
    (tmp_path / "access" / "file").write_text("")
    assert end_of(tmp_path, *NOWHERE, "-a", str(tmp_path / "access" / "file")).end() == (66, 66)


def test_no_space(tmp_path: Path) -> None:
    """Too little local disk space: 69."""
    env = {"ESPILOT_LIMITS_FREE_START_BYTES": str(10**18)}
    assert end_of(tmp_path, *NOWHERE, env=env).end() == (69, 69)


def test_wall_time(tmp_path: Path, server: Server) -> None:
    """A life time that ends in the middle of a job: drained in time, 81."""
    with play(tmp_path, *url_of(server), "-l", "20", payload=f"{SLOW}0") as playing:
        assert playing.end() == (81, 81), playing.stderr
        assert playing.report["pilot_error_code"] == 1213
        require_accounted(server, tmp_path)


def test_a_job_that_fails(tmp_path: Path, server: Server) -> None:
    """A payload that always dies: 1, and the report has the pilot error code."""
    with play(tmp_path, *url_of(server), payload="false") as playing:
        assert playing.end() == (1, 1), playing.stderr
        assert playing.report["pilot_error_code"] > 1000


def test_lesson_30_the_error_of_a_job_is_not_the_next_ones(tmp_path: Path, server: Server) -> None:
    """After a job whose payload always dies a good one is told without any error."""
    mended = tmp_path / "mended"
    (tmp_path / "payload.sh").write_text(f"[ -e {mended} ] || exit 7\nexec {FAKE} --clients 2\n")
    env = {"ESPILOT_JOBS_AT_MOST": "2", "ESPILOT_JOBS_PAUSE_MIN_S": "1"}

    def jobs() -> list[tuple[str, str | None]]:
        with closing(sqlite3.connect(server.database, timeout=20)) as db:
            query = "SELECT status, pilot_fields FROM job ORDER BY panda_id"
            return [tuple(row) for row in db.execute(query)]

    command = f"sh {tmp_path / 'payload.sh'}"
    with play(tmp_path, *url_of(server), payload=command, env=env) as playing:
        eventually(lambda: [s for s, _ in jobs()][:1] == ["failed"], what="the first job fails")
        mended.touch()
        playing.end(120.0)
        (first, told_first), (second, told_second) = jobs()[:2]
    assert (first, second) == ("failed", "finished")
    first_told, second_told = json.loads(told_first or "{}"), json.loads(told_second or "{}")
    assert first_told["pilot_error_code"] > 1000 and first_told["pilot_error_diag"]
    assert not second_told.get("pilot_error_code") and not second_told.get("pilot_error_diag")
    assert second_told["n_events"] == EVENTS


def test_what_a_payload_gets(tmp_path: Path, server: Server) -> None:
    """Default dispositions of SIGINT and SIGQUIT, the names that stock payloads know, no secret."""
    token = tmp_path / "token"
    token.write_text("secret")
    script = tmp_path / "look.sh"
    script.write_text('(grep Sig /proc/self/status; env) > "$1"\n')
    env = {
        "ESPILOT_PAYLOAD_COMMAND": "",
        "ESPILOT_PAYLOAD_EXEC": f"sh {script} {{output}}",
        "PANDA_AUTH_TOKEN": str(token),
        "PANDA_AUTH_ORIGIN": "vo:role",
    }
    with play(tmp_path, *url_of(server), env=env) as playing:
        assert playing.end() == (0, 0), playing.stderr
        account = run_oracle.take_account(server.database, tmp_path / "storage")
    done = account.with_fate("finished")[0]
    text = next(iter(account.content_of(done.id).values())).decode()
    signals = dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)
    for kind in ("SigIgn", "SigBlk"):
        assert int(signals[kind], 16) & ~OF_THE_C_LIBRARY == 0, kind
    env_of = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    for name in ("PandaID", "PANDAID", "PanDA_TaskID", "PILOT_EVENTRANGECHANNEL", "PILOT_HOME",
                 "ATHENA_PROC_NUMBER", "ATHENA_CORE_NUMBER", "PILOT_WORK_DIR", "PILOT_VERSION",
                 "PILOT_SOURCE_DIR", "PILOT_USER", "PILOT_SITENAME"):  # fmt: skip
        assert env_of.get(name), name
    assert env_of["PILOT_SITENAME"] == "QUEUE" and env_of["PANDAID"].isdecimal()
    assert "PANDA_AUTH_TOKEN" not in env_of


def test_no_calls_beside_harvester(tmp_path: Path) -> None:
    """With -z a directory stands for the server: jobs, ranges and reports are files, and the pilot
    works on a disk of the node."""
    node = tmp_path / "node"
    node.mkdir()
    env = {
        "ESPILOT_STORAGE": "",
        "TMPDIR": str(node),
        "ESPILOT_HARVESTER_POLL_S": "0.05",
        "ESPILOT_HARVESTER_ASK_AGAIN_S": "0.5",
    }
    with harvester(tmp_path, 60) as (books, place):
        options = "-z", "--harvester-workdir", str(place), "-a", str(place)
        with play(tmp_path, *options, env=env) as playing:
            assert playing.end() == (0, 0), playing.stderr
            assert findings(books) == [] and finished(books) == 60
            assert playing.report["ranges"]["finished"] == 60
    assert not list(node.iterdir())
