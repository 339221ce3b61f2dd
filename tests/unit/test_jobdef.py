"""The job definition, both directions."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from espilot.errors import MessageError
from espilot.wire.jobdef import InputFile, JobFacts, is_lfn, read_job, write_job

FACTS = JobFacts(
    panda_id=4711,
    jobset_id=4710,
    task_id=7,
    task_name="zmumu",
    attempt_nr=2,
    core_count=4,
    events=1000,
    output_lfns=("a.root", "b.root"),
    input_files=(InputFile("in.1", "G1", "s"), InputFile("in.2", "G2", "s")),
)


def test_a_written_job_is_read_back() -> None:
    """What the server writes is what the client reads, without the log among the outputs."""
    job = read_job(write_job(FACTS))
    assert (job.panda_id, job.jobset_id, job.task_id) == (4711, 4710, 7)
    assert (job.attempt_nr, job.core_count, job.event_service) == (2, 4, True)
    assert job.output_lfns == ("a.root", "b.root")
    assert job.log_lfn == FACTS.log_lfn
    assert job.input_lfns == ("in.1", "in.2")


def test_lists_are_aligned() -> None:
    """Per-input fields have one entry per input, per-output ones one per output and log."""
    definition = write_job(FACTS)
    for name in ("GUID", "scopeIn", "fsize", "checksum", "prodDBlocks", "realDatasetsIn"):
        assert len(definition[name].split(",")) == 2, name
    for name in ("outFiles", "realDatasets", "destinationDblock", "ddmEndPointOut"):
        assert len(definition[name].split(",")) == 3, name
    assert definition["scopeOut"] == "local,local"


def test_null_strings_are_missing_values() -> None:
    """The string "NULL" means no value: the default counts, or the field is missing."""
    job = read_job({**write_job(FACTS), "coreCount": "NULL", "inFiles": "NULL", "logFile": "NULL"})
    assert (job.core_count, job.input_lfns, job.log_lfn) == (1, (), "")


def test_a_normal_job_needs_no_pool() -> None:
    """A job without the flag is no event job."""
    definition = write_job(FACTS)
    del definition["eventService"]
    assert not read_job({**definition, "jobsetID": "NULL"}).event_service


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("PandaID", None),
        ("PandaID", "NULL"),
        ("PandaID", "4711x"),
        ("PandaID", True),
        ("PandaID", -1),
        ("PandaID", 2**70),
        ("jobsetID", "NULL"),
        ("taskID", []),
        ("outFiles", 5),
        ("outFiles", "a,../../etc/passwd"),
        ("inFiles", "/abs"),
        ("inFiles", "a\nb"),
        ("logFile", "../log"),
    ],
)
def test_a_bad_field_is_named(field: str, value: Any) -> None:
    """What cannot be used is refused in one line that names the field."""
    with pytest.raises(MessageError, match=field) as caught:
        read_job({**write_job(FACTS), field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a,b", "a\0b", "NULL", "x" * 256, 'a"b'])
def test_unsafe_names_are_no_lfn(name: str) -> None:
    """A name that could leave its directory or break a list is not taken."""
    assert not is_lfn(name)


@pytest.mark.parametrize(("letter", "most"), [("x", 255), ("\u00e9", 127), ("\U0001d538", 63)])
def test_names_are_bounded_in_bytes(letter: str, most: int) -> None:
    """What a disk refuses is no name, however few letters it has; half a letter is none either."""
    assert is_lfn(letter * most)
    assert not is_lfn(letter * (most + 1))
    assert not is_lfn("a\ud800")


LINES = base64.encodebytes(b"--maxEvents=5 " * 20).decode()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("LS1tYXhFdmVudHM9NSAtLXg=", "--maxEvents=5 --x"),
        ("LS14\n", "--x"),
        (LINES, ("--maxEvents=5 " * 20).strip()),
        (base64.b64encode("-n 'é ü'".encode()).decode(), "-n 'é ü'"),
        # Not encoded, or not to be decoded.
        ("--maxEvents=5 --x", "--maxEvents=5 --x"),
        ("run all of them", "run all of them"),
        ("abcdefgh", "abcdefgh"),
        ("aGVsbG8=", "aGVsbG8="),
        ("LS14 LS14LS14 x", "LS14 LS14LS14 x"),
        ("/wAA", "/wAA"),
        ("", ""),
        ("NULL", "NULL"),
        (None, None),
    ],
)
def test_encoded_parameters(given: Any, meant: Any) -> None:
    """Parameters in base64 are read as what they mean; others stay what they are."""
    facts = JobFacts(1, 2, 3, "t", 1, 1, 5, ("o",), ())
    definition = {**write_job(facts), "jobPars": given}
    assert read_job(definition).definition["jobPars"] == meant
