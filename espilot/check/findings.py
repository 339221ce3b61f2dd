"""What a payload can do wrong, with the reason why it matters. No I/O.

The one table: the check names its findings by these codes, and `docs/payload-protocol.md` has a
section for each reference (a test compares them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from espilot.wire.payload import printable

PAGE = "docs/payload-protocol.md"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding: what it is, why it matters and what helps, where to read on."""

    title: str
    why: str
    section: str

    @property
    def reference(self) -> str:
        """The page and the section."""
        return f"{PAGE}#{self.section}"


@dataclass(slots=True)
class Finding:
    """Something seen in one case; `text` tells of the first of `count` times."""

    code: str
    text: str
    count: int = 1

    @property
    def kind(self) -> Kind:
        """What is known of it."""
        return KINDS[self.code]


class Findings:
    """What was found in one case: one entry for each code, in the order of their coming."""

    def __init__(self) -> None:
        self._found: dict[str, Finding] = {}
        self.notes: list[str] = []

    def add(self, code: str, text: str) -> None:
        """Note one occurrence; the first one's text is kept, as one printable line."""
        found = self._found.get(code)
        if found is None:
            self._found[code] = Finding(code, printable(text))
        else:
            found.count += 1

    def note(self, text: str) -> None:
        """Note something that is worth telling and no fault."""
        line = printable(text)
        if line not in self.notes:
            self.notes.append(line)

    def has(self, code: str) -> bool:
        """Whether this was found."""
        return code in self._found

    def codes(self) -> set[str]:
        """The codes that were found."""
        return set(self._found)

    def all(self) -> list[Finding]:
        """Everything that was found."""
        return list(self._found.values())


BLOCKING = frozenset({"cannot-start", "no-request", "hang", "stops-asking", "lives-on"})
"""With one of these in the first case the others would only wait for the same again."""

KINDS: Mapping[str, Kind] = {
    "cannot-start": Kind(
        "cannot be started",
        "The command could not be executed. Give its full path and check its mode; it is started "
        "without a shell, in a directory of its own.",
        "start",
    ),
    "no-request": Kind(
        "never asks for a range",
        "A payload gets nothing that it does not ask for. Open the channel that "
        "PILOT_EVENTRANGECHANNEL names and send a request; if only the start is slow, give the "
        "check a larger --timeout.",
        "requests",
    ),
    "wrong-dialect": Kind(
        "speaks the other dialect",
        "The first byte of a client's first message decides its dialect: that of a msgpack map "
        "means native, anything else text.",
        "dialects",
    ),
    "no-hello": Kind(
        "asks before its hello",
        "In the native dialect `hello` comes first: it says how many ranges the client can hold.",
        "native",
    ),
    "unknown-message": Kind(
        "sends a message of an unknown kind",
        "The pilot counts it and goes on; if it was meant as an outcome, the range is never done.",
        "messages",
    ),
    "garbage": Kind(
        "sends bytes that are no message",
        "One message is one frame: UTF-8 text in the text dialect, one msgpack map in the native "
        "one. The pilot counts it and goes on; what was meant by it is lost.",
        "messages",
    ),
    "oversize": Kind(
        "sends a message over 1 MiB",
        "The pilot cuts the connection at once, and a request that was waiting on it is never "
        "answered. Outputs are named in a message, never sent.",
        "messages",
    ),
    "extra-frames": Kind(
        "sends a message of several frames",
        "Connect a DEALER socket and send each message as one frame, without an empty delimiter.",
        "socket",
    ),
    "request-flood": Kind(
        "asks for more than it may hold",
        "A client gets at most as many ranges as it can hold (64; in the native dialect its "
        "`slots`); further requests only wait. Ask for one more with each outcome.",
        "requests",
    ),
    "asks-after-no-more": Kind(
        "goes on asking after it heard that no more come",
        "No range will ever come after that message: report what is in hand and exit.",
        "end",
    ),
    "stops-asking": Kind(
        "stops asking without having been told to end",
        "It lives, holds nothing and asks for nothing, so it would keep its node idle for ever.",
        "requests",
    ),
    "report-unknown": Kind(
        "reports a range that was never handed out",
        "The id must be that of the range, character by character; the report is ignored.",
        "outcomes",
    ),
    "report-twice": Kind(
        "reports a range twice",
        "The first outcome counts, every other is ignored: send exactly one for each range.",
        "outcomes",
    ),
    "range-unreported": Kind(
        "ends with a range in hand",
        "Each range that is handed out needs an outcome, also those in work when no more come. "
        "What has none is done again by somebody else.",
        "outcomes",
    ),
    "range-failed": Kind(
        "reports an ordinary range as failed",
        "The report is in good form. A payload that needs real input files cannot process the "
        "check's imagined ones: name a real file with --input PATH:EVENTS.",
        "outcomes",
    ),
    "range-not-understood": Kind(
        "cannot parse a range that is in good form",
        "A range is one flat JSON object in a list, on one line; it may have further keys, and its "
        "values may hold any printable character but comma, quotes, backslash and brackets.",
        "range",
    ),
    "failure-without-reason": Kind(
        "reports a failure without a reason",
        "The text of a failure is all that a person will ever see of it: say what went wrong.",
        "outcomes",
    ),
    "missing-file": Kind(
        "reports an output that does not exist",
        "The pilot looks at the file when the report comes, and the range fails. Close and rename "
        "the output first, then report its absolute path.",
        "outputs",
    ),
    "empty-file": Kind(
        "reports an empty output",
        "An output of 0 bytes is taken for a failed write, and the range fails.",
        "outputs",
    ),
    "path-outside": Kind(
        "reports an output outside its work directory",
        "Outputs are only taken from below the work directory, also when a link or `..` leads out "
        "of it. Write into $ESPILOT_OUTPUT_DIR.",
        "outputs",
    ),
    "unusable-file": Kind(
        "reports something that is no output file",
        "An output is a regular file with an absolute path: no directory, no link, no fifo.",
        "outputs",
    ),
    "change-after-report": Kind(
        "changes or deletes an output after reporting it",
        "From the report on the file is the pilot's. It is compared when it is packed, and a range "
        "with a changed file fails.",
        "outputs",
    ),
    "output-overwritten": Kind(
        "uses one output file for two ranges",
        "An output stays where it is until the pilot has packed it, so each needs a name of its "
        "own: put the id of the range into it, not the event number.",
        "outputs",
    ),
    "hang": Kind(
        "holds a range and does nothing",
        "No message and no CPU time for longer than --timeout. The pilot would end the payload and "
        "give its ranges to others. If a range only takes long, give a larger --timeout.",
        "outcomes",
    ),
    "lives-on": Kind(
        "lives on after it heard that no more ranges come",
        "With nothing left in hand it has to exit; it would be killed after a while.",
        "end",
    ),
    "exit-early": Kind(
        "exits without having been told to",
        "Only *no more* ends the loop; an early exit is taken for a crash, and the payload is "
        "started again, a few times only.",
        "end",
    ),
    "exit-code": Kind(
        "ends with an exit code other than 0",
        "After *no more* and its last report a payload exits with code 0; anything else is taken "
        "for a crash.",
        "end",
    ),
    "crash": Kind(
        "crashes",
        "It was killed by a signal that nobody sent. Ranges in hand are done again, once.",
        "end",
    ),
    "ignores-term": Kind(
        "does not end on SIGTERM",
        "When a node must be left, the payload gets SIGTERM and some seconds later SIGKILL. "
        "Something in its process tree still lived after --timeout.",
        "end",
    ),
    "processes-left": Kind(
        "leaves processes behind",
        "When the main process ends, everything that it has started must have ended; the pilot "
        "kills the rest.",
        "end",
    ),
    "no-pong": Kind(
        "does not answer a ping",
        "A native client that waits for a range answers `ping` with `pong` and the same `seq`.",
        "native",
    ),
    "log-flood": Kind(
        "floods its stdout or stderr",
        "Logs fill the disk that outputs need; the pilot cuts them. Write less for each range, or "
        "allow more with --log-limit.",
        "resources",
    ),
    "memory-growth": Kind(
        "takes much more memory after its first range",
        "A process that grows with its work ends by running out of memory; a job processes "
        "thousands of ranges. If it is meant to grow, allow more with --memory-growth.",
        "resources",
    ),
    "stray-files": Kind(
        "leaves files behind that it does not report",
        "What is not reported is never shipped nor deleted, and fills the disk over thousands of "
        "ranges. Delete temporary files, or allow more with --stray-limit.",
        "resources",
    ),
}
"""All kinds of findings."""
