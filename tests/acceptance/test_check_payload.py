"""`espilot check-payload` as its users start it: what is sound, and each fault by its name."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
from patience import eventually

ROOT = Path(__file__).resolve().parents[2]
ESPILOT = [sys.executable, str(ROOT / "bin" / "espilot")]
FAKE = [sys.executable, str(ROOT / "bin" / "fake-payload")]
DIALECT_NAMES = ("text", "native")
DIALECTS = pytest.mark.parametrize("dialect", DIALECT_NAMES)
PATIENT_S, HASTY_S = "20", "2"


Checks = dict[tuple[str, str], tuple[int, dict[str, Any]]]


def check(*arguments: str, cwd: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON object of a check."""
    done = subprocess.run(
        [*ESPILOT, "check-payload", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=cwd,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["schema"] == "espilot.check/1"
    assert found["sound"] == (done.returncode == 0)
    return done.returncode, found


def codes_of(document: dict[str, Any]) -> set[str]:
    """The codes of all findings."""
    return {each["code"] for case in document["cases"] for each in case["findings"]}


SOUND = ("", "--clients 2 --outstanding 3 --nfiles 2")


@DIALECTS
@pytest.mark.parametrize("more", SOUND)
def test_sound_payload_is_called_sound(checks: Checks, dialect: str, more: str) -> None:
    """All cases are run, nothing is found, and it takes well under a minute."""
    code, found = checks[dialect, more]
    assert (code, codes_of(found)) == (0, set())
    assert found["dialects"] == [dialect]
    assert found["wall_s"] < 45
    assert len(found["cases"]) == 8
    assert {case["state"] for case in found["cases"]} == {"sound"}


POOL = """
from pathlib import Path
from espilot.payload import EventRanges
from espilot.payload.pool import run_processes

def work(index):
    with EventRanges(slots=2) as ranges:
        for each in ranges:
            Path(each.output_path()).write_text(str(each.start_event))
            each.done(each.output_path())

raise SystemExit(run_processes(work))
"""


def test_pool_of_the_sdk_is_sound(tmp_path: Path) -> None:
    """A payload with the SDK's process pool passes all cases; its path may be relative."""
    (tmp_path / "pool.py").write_text(POOL)
    code, found = check("--", sys.executable, "pool.py", cwd=tmp_path)
    assert (code, codes_of(found)) == (0, set())


def test_command_template_is_sound(tmp_path: Path) -> None:
    """A command that names {output} is run once for each range, and passes all cases."""
    script = tmp_path / "sim.sh"
    script.write_text('#!/bin/sh\necho "$1 $2" > "$3"\n')
    script.chmod(0o755)
    words = ["./sim.sh", "{startEvent}", "{lastEvent}", "{output}"]
    code, found = check("--", *words, cwd=tmp_path)
    assert (code, codes_of(found)) == (0, set())
    assert found["dialects"] == ["native"]


FAULTS = {
    "--fail-every 3": "range-failed",
    "--report-twice 3": "report-twice",
    "--report-unknown 3": "report-unknown",
    "--path-outside 3": "path-outside",
    "--missing-file 3": "missing-file",
    "--empty-file 3": "empty-file",
    "--change-after-report 2": "change-after-report",
    "--garbage 3": "garbage",
    "--oversize 9": "oversize",
    "--hang-after 3": "hang",
    "--crash-after 3 --crash-how segv": "crash",
    "--crash-after 3 --crash-how abort": "crash",
    "--crash-after 3 --crash-how kill --clients 2": "crash",
    "--crash-after 3 --crash-how exit7": "exit-code",
    "--crash-after 3 --crash-how exit0": "range-unreported",
    "--exit-early 3": "exit-early",
    "--max-ranges 3": "exit-early",
    "--exit-delay-ms 60000": "lives-on",
    "--start-ms 60000": "no-request",
    "--no-request": "no-request",
    "--orphans 1": "processes-left",
    "--spawn 1": "processes-left",
    "--flood-stdout 2M": "log-flood",
    "--eat-memory 100M": "memory-growth",
    "--eat-disk 2M": "stray-files",
    "--flood-ready": "request-flood",
}
"""What the fake payload is told to do wrong, and what it is to be called."""
HASTY = ("--hang-after", "--exit-delay-ms", "--start-ms", "--no-request", "--ignore-term")
PARSE_ERROR, IGNORED_TERM = "--parse-error-every 4", "--ignore-term"


@DIALECTS
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(checks: Checks, fault: str, dialect: str) -> None:
    """Each fault that the fake payload can be told to make is exit 1 under its own name."""
    code, found = checks[dialect, fault]
    assert code == 1
    assert FAULTS[fault] in codes_of(found)


@DIALECTS
def test_parse_errors_are_named(checks: Checks, dialect: str) -> None:
    """A payload that does not understand ranges is told so, whatever its dialect."""
    code, found = checks[dialect, PARSE_ERROR]
    assert (code, codes_of(found)) == (1, {"range-not-understood"})


@DIALECTS
def test_ignored_term_is_named(checks: Checks, dialect: str) -> None:
    """Whoever ignores SIGTERM is found out by the case that sends it."""
    code, found = checks[dialect, IGNORED_TERM]
    assert (code, codes_of(found)) == (1, {"ignores-term"})


@pytest.fixture(scope="module")
def checks() -> Checks:
    """Code and object of each check of the fake payload, by dialect and switches.

    All are run at once when the first is asked for: most of one's time is waiting.
    """
    keys = [
        (dialect, switches)
        for switches in (*SOUND, *FAULTS, PARSE_ERROR, IGNORED_TERM)
        for dialect in DIALECT_NAMES
    ]
    # What takes longest comes first, so that nothing is waited for alone at the end.
    keys.sort(key=lambda key: key[1] not in SOUND and not key[1].startswith(HASTY))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("many_checks.py"))],
        input=json.dumps([words_of(*key) for key in keys]),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = dict(zip(keys, json.loads(done.stdout), strict=True))
    for code, verdict in found.values():
        assert verdict is not None, done.stderr
        assert verdict["sound"] == (code == 0)
    return found


def words_of(dialect: str, switches: str) -> list[str]:
    """The command line of a check of the fake payload."""
    timeout_s = HASTY_S if switches.startswith(HASTY) else PATIENT_S
    case = [] if switches in SOUND else ["--only", "plain"]
    if switches == IGNORED_TERM:
        case = ["--only", "sigterm"]
    must = ["--dialect", dialect] if switches in SOUND else []
    payload = [*FAKE, "--dialect", dialect, *switches.split()]
    return [*must, *case, "--timeout", timeout_s, "--", *payload]


def test_every_fault_of_the_fake_is_in_the_table() -> None:
    """A new switch of the fake payload has to get a row, or be told here to be no fault."""
    harmless = {
        "--help", "--dialect", "--channel", "--outdir", "--prefix", "--name", "--outsize",
        "--nfiles", "--delay-ms", "--jitter-ms", "--outstanding", "--clients", "--json",
        "--replay", "--replay-timing", "--replay-epoch",
    }  # fmt: skip
    apart = {"--parse-error-every", "--ignore-term"}
    text = subprocess.run([*FAKE, "--help"], capture_output=True, text=True).stdout
    switches = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", text, re.MULTILINE))
    assert switches >= {"--help", "--garbage", "--replay"}
    told = {word for fault in FAULTS for word in fault.split() if word.startswith("--")}
    assert switches - harmless - apart - told == set()


def test_each_finding_explains_itself(tmp_path: Path) -> None:
    """In words, JSON and JUnit: what was seen, why it matters, and where to read on."""
    junit = tmp_path / "check.xml"
    fault = ["--report-twice", "4", "--missing-file", "5"]
    words = ["--only", "plain", "--junit", str(junit), "--", *FAKE, *fault]
    _, found = check(*words)
    (case,) = found["cases"]
    assert case["state"] == "findings"
    for each in case["findings"]:
        page, _, section = each["reference"].partition("#")
        assert each["explanation"] and each["text"] and each["count"] >= 1
        assert section in sections_of(ROOT / page)
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert {f.get("type") for f in suite.iter("failure")} == codes_of(found)
    done = subprocess.run([*ESPILOT, "check-payload", *words], capture_output=True, text=True)
    assert done.returncode == 1
    for code in codes_of(found):
        assert f"{code}: the payload" in done.stdout
    assert "see docs/payload-protocol.md#" in done.stdout


def sections_of(page: Path) -> set[str]:
    """The anchors of a page."""
    lines = page.read_text().splitlines()
    return {line.partition('<a id="')[2].partition('"')[0] for line in lines if "<a id=" in line}


def test_blocking_finding_skips_the_rest() -> None:
    """When the first case hangs, the others are not waited for, and are said to be skipped."""
    _, found = check("--timeout", HASTY_S, "--", *FAKE, "--hang-after", "2")
    states = [case["state"] for case in found["cases"]]
    assert states == ["findings"] + ["skipped"] * 7
    assert found["wall_s"] < 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["--only", "plan", "--", "true"], "there is no case 'plan'"),
        (["--timeout", "0", "--", "true"], "not a number of seconds"),
        (["--timeout", "nan", "--", "true"], "not a number of seconds"),
        (["--input", "none:5", "--", "true"], "--input"),
        (["--junit", "/nowhere/x.xml", "--", "true"], "no directory /nowhere"),
        (["--workdir", "/etc", "--", "true"], "not empty"),
        (["--", "sim", "{output}", "{nonsense}"], "unknown placeholder"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_64(arguments: list[str], words: str) -> None:
    """The line names what is wrong; nothing was started."""
    done = subprocess.run(
        [*ESPILOT, "check-payload", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 64
    assert words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "events", "words"),
    [
        ("a,b.root", "5", "LFN is 'a,b.root'"),
        ('a"b.root', "5", "without commas, quotes"),
        ("a,b/c.root", "5", "PFN is "),
        ("a\udce9.root", "5", "LFN is "),
        ("a.root", str(2**63), "real number of events"),
        ("a.root", str(2**70), "real number of events"),
        ("a.root", "9" * 5000, "PATH:EVENTS"),
        ("n" * 300, "5", "existing file"),
    ],
)
def test_input_that_no_payload_could_be_told_is_refused(
    tmp_path: Path, name: str, events: str, words: str
) -> None:
    """One line names the input and the remedy, before a payload is started."""
    path = tmp_path / name
    if len(name) < 256:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    given = [*ESPILOT, "check-payload", "--input", f"{path}:{events}", "--", "true"]
    done = subprocess.run(given, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (64, 1)
    assert "--input" in done.stderr and words in done.stderr


def test_command_that_cannot_be_started() -> None:
    """It is a finding, with the reason."""
    code, found = check("--", "/nowhere/payload")
    assert (code, codes_of(found)) == (1, {"cannot-start"})
    assert "No such file" in found["cases"][0]["findings"][0]["text"]


def test_interrupted_check_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C ends the payloads at once; no process, socket or directory stays."""
    places = {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*ESPILOT, "check-payload", "--", *FAKE, "--hang-after", "2", "--ignore-term"],
        env=os.environ | places,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: hanging_below(process.pid), "the payload hangs", within_s=30.0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (130, "espilot check-payload: interrupted\n")
    assert list(tmp_path.iterdir()) == []
    left = [p for p in psutil.process_iter() if working_directory(p).startswith(str(tmp_path))]
    assert left == []


def hanging_below(pid: int) -> bool:
    """Whether a payload is below, and has made its outputs."""
    places = [working_directory(each) for each in psutil.Process(pid).children(recursive=True)]
    return any(
        list(Path(place).glob("output.*-2-1")) for place in places if place.endswith("payload-1")
    )


def working_directory(process: psutil.Process) -> str:
    """Where a process works; "" when it is gone."""
    try:
        return process.cwd()
    except psutil.Error:
        return ""
