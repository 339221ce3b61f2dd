"""Record and replay of a channel: real sockets and files."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import zmq
from payload_stub import ROOT, PilotStub, end, make_ranges

from espilot.errors import UsageError
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text
from espilot.wire.payload import Failed
from espilot.wire.record import Message, Opening, decode_lines, encode
from espilot.workers.recording import RecordedChannel, Recorder, prepare_record

SCRIPT = str(ROOT / "bin" / "fake-payload")
OLD_DIR = "/elsewhere/payload-1"
OPENING = Opening(1, "c", OLD_DIR, 0.0)
ME, YOU = b"\0me", b"named\0"


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[PilotStub]:
    """A pilot with three ranges."""
    pilot = PilotStub(make_ranges(3), tmp_path)
    yield pilot
    pilot.close()


def play(
    stub: PilotStub, path: Path, messages: Sequence[Message], *options: str
) -> tuple[int, dict[str, int], str]:
    """Replay these messages; exit code, summary, stderr."""
    path.write_bytes(b"".join(map(encode, (OPENING, *messages))))
    process = stub.start(SCRIPT, "--replay", str(path), "--json", *options)
    stub.serve(process)
    out, err = end(process)
    return process.returncode, json.loads(out) if out else {}, err.decode()


def said(body: bytes, *, by: bytes = ME, at_s: float = 0.0, sizes: tuple[int, ...] = ()) -> Message:
    """What a client said."""
    return Message(at_s, True, by, 7, body, sizes)


def heard(body: bytes, *, by: bytes = ME) -> Message:
    """What a client was told."""
    return Message(0.0, False, by, 7, body)


def test_text_is_said_again_with_new_ids_and_files(stub: PilotStub, tmp_path: Path) -> None:
    """Outcomes name today's ranges and files, which have the recorded sizes; garbage stays."""
    old = make_ranges(9)[7:9]
    done = text.finished([f"{OLD_DIR}/a.{old[0].id}", f"{OLD_DIR}/b.{old[0].id}"], old[0].id, 1, 2)
    messages = [
        said(text.READY), heard(text.range_reply(old[0])), said(b"\xff\xfe"),
        said(done, sizes=(5, 2**20 + 3)), said(text.READY), heard(text.range_reply(old[1])),
        said(text.process_error(old[1].id, "broken")),
    ]  # fmt: skip
    code, summary, err = play(stub, tmp_path / "r", messages)
    assert (code, err, summary) == (0, "", {"messages": 5, "skipped": 0, "ranges": 2})
    now = make_ranges(3)
    (finished,) = stub.finished
    assert finished.id == now[0].id
    assert finished.paths == (f"{tmp_path}/a.{now[0].id}", f"{tmp_path}/b.{now[0].id}")
    assert [Path(p).stat().st_size for p in finished.paths] == [5, 2**20 + 3]
    assert [f.id for f in stub.failed] == [now[1].id]
    assert stub.unusable == [b"\xff\xfe"]


def test_native_is_said_again_by_every_client(stub: PilotStub, tmp_path: Path) -> None:
    """Each recorded client has its connection, a named one its name; the order is kept."""
    old = make_ranges(9)[6:9]
    messages: list[Message] = []
    for who, mine in ((ME, old[:2]), (YOU, old[2:])):
        messages += [said(native.hello(7, 2, "", ""), by=who), said(native.ready(2), by=who)]
        messages += [heard(native.ranges([each]), by=who) for each in mine]
    for who, each in ((YOU, old[2]), (ME, old[1]), (ME, old[0])):
        path = f"{OLD_DIR}/output.{each.id}"
        messages.append(said(native.done(each.id, [path], meta={"k": path}), by=who, sizes=(9,)))
    code, summary, err = play(stub, tmp_path / "r", messages)
    assert (code, err, summary["skipped"]) == (0, "", 0)
    now = [each.id for each in make_ranges(3)]
    assert [f.id for f in stub.finished] == [now[2], now[1], now[0]]
    assert stub.finished[0].meta == {"k": stub.finished[0].paths[0]}
    assert YOU in stub.identities and len(stub.identities) == 2


def test_outcomes_beyond_todays_ranges_are_left_out(stub: PilotStub, tmp_path: Path) -> None:
    """Where the pilot has fewer ranges than were recorded, nothing is invented."""
    messages = []
    for each in make_ranges(5):
        messages += [said(text.READY), heard(text.range_reply(each))]
        messages.append(said(text.process_error(each.id, "x")))
    code, summary, _ = play(stub, tmp_path / "r", messages)
    assert (code, summary["ranges"], summary["skipped"]) == (0, 3, 2)
    assert all(isinstance(each, Failed) for each in stub.failed) and len(stub.failed) == 3


def test_file_outside_is_named_and_not_made(stub: PilotStub, tmp_path: Path) -> None:
    """A record makes no file but in the output directory."""
    outside = tmp_path.parent / "outside"
    (old,) = make_ranges(1)
    paths = [str(outside), f"{OLD_DIR}/../outside"]
    messages = [said(text.READY), heard(text.range_reply(old))]
    messages.append(said(text.finished(paths, old.id, 1, 1), sizes=(5, 5)))
    play(stub, tmp_path / "r", messages)
    assert len(stub.finished) == 1
    assert not outside.exists()


def test_distances_in_time_are_kept_on_demand(stub: PilotStub, tmp_path: Path) -> None:
    """With the switch a message is not said earlier than it was."""
    messages = [said(text.READY), said(text.READY, at_s=1.5)]
    times: list[float] = []
    stub.on_message = lambda identity, _: bool(times.append(time.monotonic()))
    code, summary, _ = play(stub, tmp_path / "r", messages, "--replay-timing")
    assert (code, summary["messages"]) == (0, 2)
    # The first may have waited for the stub; it cannot have come before it was said.
    assert times[1] - times[0] > 0.5


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (None, [], "No such file"),
        (b"", [], "nothing was recorded"),
        (b"no record\n", [], "line 1"),
        (encode(OPENING), ["--replay-epoch", "4"], "no epoch 4"),
    ],
)
def test_unusable_record_is_one_line(
    stub: PilotStub, tmp_path: Path, content: bytes | None, options: list[str], words: str
) -> None:
    """Exit code 64, and the line names the file and the reason."""
    path = tmp_path / "r"
    if content is not None:
        path.write_bytes(content)
    process = stub.start(SCRIPT, "--replay", str(path), *options)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 64
    assert words in err.decode() and err.count(b"\n") == 1


def recorded(path: Path, limit_bytes: int = 10**6) -> tuple[RecordedChannel, list[str]]:
    """A channel with a recorder, and what it complains about."""
    complaints: list[str] = []
    opening = Opening(1, f"t-{path.parent.name}-{path.name}"[-90:], str(path.parent), 0.0)
    return RecordedChannel(opening, Recorder(path, limit_bytes, complaints.append)), complaints


def exchange(channel: RecordedChannel, messages: list[bytes]) -> None:
    """A client says these, and gets one reply."""
    client = zmq.Context.instance().socket(zmq.DEALER)
    client.connect(f"ipc://{channel.path}")
    try:
        for message in messages:
            client.send(message)
        incoming = []
        while len(incoming) < len(messages):
            assert channel.socket.poll(10_000)
            incoming += channel.receive(10)
        channel.send(incoming[0].identity, text.NO_MORE)
        assert client.poll(10_000) and client.recv() == text.NO_MORE
    finally:
        client.close(linger=0)


def test_channel_is_written_down(tmp_path: Path) -> None:
    """Both directions, with pid, bytes and the sizes of reported outputs."""
    output = tmp_path / "out"
    output.write_bytes(b"12345")
    report = text.finished([str(output), f"{tmp_path}/none"], "1-1-1-1-1", 1, 1)
    channel, complaints = recorded(tmp_path / "r")
    exchange(channel, [text.READY, report, b"\xff"])
    channel.close()
    with (tmp_path / "r").open("rb") as file:
        opening, *messages = decode_lines(file)
    assert isinstance(opening, Opening) and complaints == []
    assert [m.body for m in messages if m] == [text.READY, report, b"\xff", text.NO_MORE]  # type: ignore[union-attr]
    assert [m.by_payload for m in messages if m] == [True, True, True, False]  # type: ignore[union-attr]
    assert messages[1].sizes == (5, None)  # type: ignore[union-attr]
    assert len({m.pid for m in messages if m}) == 1  # type: ignore[union-attr]
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600


def test_record_is_bounded_and_its_trouble_is_told_once(tmp_path: Path) -> None:
    """At the limit the record ends with a line that says so; the channel goes on."""
    channel, complaints = recorded(tmp_path / "r", limit_bytes=600)
    exchange(channel, [text.READY] * 20)
    channel.close()
    with (tmp_path / "r").open("rb") as file:
        lines = list(decode_lines(file))
    assert lines[-1] is None and len(lines) < 10
    assert len(complaints) == 1 and "limit" in complaints[0]
    channel, complaints = recorded(tmp_path / "no-directory" / "r")
    exchange(channel, [text.READY])
    channel.close()
    assert len(complaints) == 1 and "No such file" in complaints[0]


def test_record_overwrites_nothing_else(tmp_path: Path) -> None:
    """An older record makes room; any other file is spared, with the remedy."""
    path = tmp_path / "r"
    path.write_bytes(encode(OPENING))
    assert prepare_record(path).read_bytes() == b""
    path.write_text("my thesis")
    with pytest.raises(UsageError, match="another name"):
        prepare_record(path)
    assert path.read_text() == "my thesis"


JOB = """
[task]
name = "record"
events = 30
[payload]
command = "{command}"
[packing]
max_ranges = 10
max_age_s = 0.5
[limits]
free_start_bytes = 0
free_bytes = 0
"""


@pytest.mark.parametrize("dialect", ["text", "native"])
def test_run_can_be_recorded_and_its_payload_replayed(tmp_path: Path, dialect: str) -> None:
    """The replayed payload brings the run to the same end, with outputs of the same sizes."""
    record = tmp_path / "channel.record"
    fake = f"{{python}} {SCRIPT}"
    first = run_pilot(
        tmp_path / "a", f"{fake} --dialect {dialect} --outsize 77 --garbage 5", record
    )
    second = run_pilot(tmp_path / "b", f"{fake} --replay {record}")
    assert first["state"] == second["state"] == "finished"
    assert first["ranges"] == second["ranges"]
    assert first["ranges"]["finished"] == 30
    sizes = []
    with record.open("rb") as file:
        for line in decode_lines(file):
            if isinstance(line, Message) and line.by_payload:
                sizes += line.sizes
    assert sizes == [77] * 30


def run_pilot(directory: Path, command: str, record: Path | None = None) -> dict[str, object]:
    """The summary of a local run."""
    directory.mkdir()
    (directory / "job.toml").write_text(JOB.format(command=command))
    words = [str(ROOT / "bin" / "espilot"), "run", "--json", "--local", "job.toml"]
    words += ["--record", str(record)] if record else []
    done = subprocess.run(words, capture_output=True, text=True, cwd=directory, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found
