"""Arrow 3: ranges to the payload's clients, outcomes back. Messages in, replies out; no sockets.

Rules:

* What arrived together is settled in one transaction; only then the replies that depend on it
  go out. A range is committed as sent before it is sent, maybe some time before (taken ahead).
* Files are looked at before the transaction, never inside.
* A range is in the hands of whoever it was sent to until an outcome comes, whoever reports it.
* What is in hand at a crash becomes suspect: it is handed out last, alone, and at a second crash
  it fails.
* A bad message is counted and answered where the dialect has an answer; it never harms another.
  The range whose outcome it was to report fails with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set

from espilot.core.ahead import Ahead
from espilot.core.assignment import MAX_NO_MORE, Assignment
from espilot.core.clients import NOBODY, Client, Done, Message, Reply, Round, Tally
from espilot.core.news import News, Tell, say_nothing
from espilot.core.range_failures import died_again, not_writable, report_refused
from espilot.errors import MessageError, OutputError
from espilot.model import EventRange, FailedRange
from espilot.ports import Moves, OutputTaker, RangeQueue
from espilot.wire import payload_native as native
from espilot.wire import payload_text as text
from espilot.wire.payload import Failed, Finished, Hello, Ping, Ready, shortened
from espilot.wire.payload_refusal import about_of
from espilot.wire.payload_text_ahead import write_ahead

EXHAUSTED_PHASES = frozenset({"exhausted", "settling", "ending"})
"""Phases of the job in which the server has no more ranges for it."""


class Dispatch:
    """The dispatcher's decisions for one epoch of the payload."""

    def __init__(
        self,
        queue: RangeQueue,
        outputs: OutputTaker,
        *,
        epoch: int,
        max_held: int,
        most_ahead: int = 0,
    ) -> None:
        self.queue = queue
        self.epoch = epoch
        self.tally = Tally()
        self.mode, self.reason = "serve", "done"
        self.welcome: Callable[[], bytes] = lambda: native.welcome({}, "", {}, 60.0)
        self._outputs = outputs
        self._assignment = Assignment(max_held)
        self._clients: dict[bytes, Client] = {}
        self._by_key: dict[str, Client] = {}
        self._replaced: list[str] = []
        self.tell: Tell = say_nothing
        self._news = News()
        self.ahead = Ahead(most_ahead)
        self._written: dict[str, bytes] = {}
        self._suspect, self._speaks_text = "", False
        self._round = Round()

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._assignment.waiting

    @property
    def urgent(self) -> bool:
        """Whether what was read holds a request that is not answered yet."""
        return self._round.asked and self._assignment.waiting > 0

    @property
    def clients(self) -> int:
        """Clients that have said something and are not known to be gone."""
        return len(self._clients)

    def hands(self) -> list[tuple[Client, list[str]]]:
        """Every client with what it holds, the oldest first."""
        hands = self._assignment.hands(self._by_key)
        return [(client, hands[key]) for key, client in self._by_key.items()]

    def read(self, messages: Iterable[Message]) -> list[Reply]:
        """Read a batch; the replies may go out at once, before the batch is settled.

        They hand out ranges that were committed as sent ahead of the request. The outcomes of the
        batch are looked at and committed by `settle`, and nothing that depends on them is said
        before: what text clients report needs no reply, so it is understood after the replies.
        """
        round_ = self._round
        for message in messages:
            self._read(round_, message[0], message[1], message[2])
        if self.ahead.ranges and self.mode == "serve":
            owners = self._assignment.next_owners(min(self.waiting, len(self.ahead.ranges)))
            given = list(zip(owners, self.ahead.pop(len(owners)), strict=True))
            round_.unwritable += self._reply_ranges(round_, given)
        replies, round_.replies = round_.replies, []
        return replies

    def find(self, said: Finished) -> None:
        """The outputs of a range are there, which counts as a report of its holder."""
        client = self._by_key.get(self._assignment.holder(said.id), NOBODY)
        self._assignment.end(said.id)
        self._round.outcomes.append((client, self._look(said)))

    def settle(self, now: float) -> tuple[list[Reply], list[str]]:
        """Commit what was read; returns the other replies and the complaints."""
        self.read_reports()
        round_, self._round = self._round, Round()
        self._settle(round_, now)
        self._news.publish(self.tell, self.epoch)
        return round_.replies, round_.garbage

    def release_ahead(self) -> None:
        """Nothing is handed out for now: what was taken ahead is ready again."""
        if self.ahead.ranges:
            with self.queue.moves() as moves:
                moves.return_ranges(self.ahead.clear(), epoch=self.epoch)
            self._written.clear()

    def undeliverable(self, replies: Sequence[Reply]) -> int:
        """These replies did not go out: what their clients hold is ready again; says how many."""
        # What they reported before counts.
        self.read_reports()
        lost: list[str] = []
        for identity, _ in replies:
            client = self._clients.get(identity)
            if client is not None:
                lost.extend(self._assignment.in_hand(client.key))
                self._drop(client)
        if not lost:
            return 0
        with self.queue.moves() as moves:
            returned = moves.return_ranges(lost, epoch=self.epoch)
        self.tell("returned", lost, epoch=self.epoch, why="the client does not read")
        return returned

    def died(self, pid: int, now: float, undecided: Set[str] = frozenset()) -> list[str]:
        """A client's process is gone and its messages are read: its ranges are ready again.

        While it could still ask for more, its end is taken for a crash. What is `undecided` stays
        sent, in nobody's hand, until an outcome is found or the epoch ends.
        """
        gone = [client for client in self._by_key.values() if client.pid == pid]
        hands = [i for client in gone for i in self._assignment.in_hand(client.key)]
        back = [i for i in hands if i not in undecided]
        self._take_back(back, now, crashed=self.mode == "serve", why=f"client {pid} ended")
        for client in gone:
            self._drop(client)
        return back

    def settle_epoch(self, now: float, *, crashed: bool = False) -> list[str]:
        """The payload is gone and the channel silent: what is still sent is ready again.

        `crashed`: it ended badly, and nobody had told it to end.
        """
        self.ahead.clear()
        clients = list(self._by_key.values())
        back = [i for client in clients for i in self._assignment.in_hand(client.key)]
        self._take_back(back, now, crashed=crashed, why="the payload ended")
        with self.queue.moves() as moves:
            others = moves.return_sent(epoch=self.epoch)
        if others:
            self.tell("returned", others, epoch=self.epoch, why="the payload ended")
        for client in clients:
            self._drop(client)
        return back + others

    def _take_back(self, ids: list[str], now: float, *, crashed: bool, why: str) -> None:
        """Make ranges ready again; one that was alone in hand at a second crash fails."""
        if not ids:
            return
        with self.queue.moves() as moves:
            crashes = moves.crashes(ids[0], epoch=self.epoch) if crashed and len(ids) == 1 else 0
            if crashes:
                failure = died_again(ids[0], crashes + 1)
                moves.fail(failure, epoch=self.epoch, now=now)
                self._news.failed(failure)
            else:
                moves.return_ranges(ids, epoch=self.epoch, crashed=crashed)
                self.tell("returned", ids, epoch=self.epoch, why=why, suspect=crashed)
        self._news.publish(self.tell, self.epoch)

    # -- reading --------------------------------------------------------------------------------

    def _read(self, round_: Round, identity: bytes, message: bytes, pid: int | None) -> None:
        self.tally.messages += 1
        client = self._clients.get(identity)
        if client is None or (pid is not None and pid != client.pid):
            client = self._welcome_client(identity, message, pid)
        if client.native:
            self._understand(round_, client, message)
        elif message == text.READY:
            round_.asked = True
            self._assignment.ask(client.key)
        else:
            round_.reports.append((client, message))

    def read_reports(self) -> None:
        """Understand what text clients have reported since the last time."""
        round_ = self._round
        reports, round_.reports = round_.reports, []
        for client, message in reports:
            self._understand(round_, client, message)

    def _understand(self, round_: Round, client: Client, message: bytes) -> None:
        try:
            said = native.parse(message) if client.native else text.parse(message)
            kind = type(said)
            if kind is Finished:
                self._assignment.end(said.id)  # type: ignore[union-attr]
                round_.outcomes.append((client, self._look(said)))  # type: ignore[arg-type]
            elif kind is Ready:
                round_.asked = True
                if client.key in self._by_key:
                    self._assignment.ask(client.key, said.n)  # type: ignore[union-attr]
            else:
                self._read_other(round_, client, said)
        except MessageError as error:
            self.tally.garbage += 1
            round_.garbage.append(str(error))
            if client.native:
                self._refuse_message(round_, client, message, str(error))

    def _refuse_message(self, round_: Round, client: Client, message: bytes, why: str) -> None:
        about, is_range = about_of(message)
        round_.replies.append((client.identity, native.error(why, about)))
        if is_range:
            # Told as an error, not as an outcome that is recorded; but it will get no other one.
            self._assignment.end(about)
            round_.outcomes.append((NOBODY, report_refused(about, why)))

    def _read_other(self, round_: Round, client: Client, said: object) -> None:
        if isinstance(said, Failed):
            self._assignment.end(said.id)
            failure = FailedRange(said.id, said.fatal, said.code, said.diag)
            round_.outcomes.append((client, failure))
        elif isinstance(said, Hello):
            round_.replies.append((client.identity, self.welcome()))
        elif isinstance(said, Ping):
            round_.replies.append((client.identity, native.pong(said.seq)))

    def _welcome_client(self, identity: bytes, message: bytes, pid: int | None) -> Client:
        former = self._clients.get(identity)
        if former is not None:
            # The socket handed the name over: whoever had it hears nothing any more.
            self._replaced.extend(self._assignment.in_hand(former.key))
            self._drop(former)
        key = f"{identity.hex()}:{pid or 0}"
        client = Client(identity, key, pid, native.is_native(message))
        self._speaks_text = self._speaks_text or not client.native
        self._clients[identity] = self._by_key[key] = client
        return client

    def _look(self, said: Finished) -> Done | FailedRange:
        try:
            outputs = tuple([self._outputs.inspect(path) for path in said.paths])
        except OutputError as error:
            return FailedRange(said.id, False, error.code, str(error)[:500])
        return Done(said.id, outputs, (said.events, said.cpu_s, said.wall_s))

    # -- settling -------------------------------------------------------------------------------

    def _settle(self, round_: Round, now: float) -> None:
        serving = self.mode == "serve" and self._assignment.waiting
        ended = False
        recorded: list[tuple[Client, str, bool]] = []
        given: list[tuple[str, EventRange]] = []
        replaced, self._replaced = self._replaced, []
        if round_.outcomes or serving or replaced:
            with self.queue.moves() as moves:
                recorded = [self._record(moves, c, o, now) for c, o in round_.outcomes]
                # After the outcomes: the last words of a replaced client still count.
                moves.return_ranges(replaced, epoch=self.epoch)
                if self.mode == "serve":
                    given, ended = self._hand_out(moves, now)
        self._acknowledge(round_, recorded)
        unwritable = round_.unwritable + self._reply_ranges(round_, given)
        while unwritable:
            given, ended = self._replace(round_, unwritable, now)
            unwritable = self._reply_ranges(round_, given)
        if self._assignment.waiting and (ended or self.mode == "no-more"):
            self._refuse(round_)
        if self._speaks_text:
            # Now, while nobody waits for them.
            write_ahead(self._written, self.ahead.ranges)

    def _record(
        self, moves: Moves, client: Client, outcome: Done | FailedRange, now: float
    ) -> tuple[Client, str, bool]:
        if type(outcome) is Done:
            self.tally.outcomes += 1
            booked = moves.finish(
                outcome.id, epoch=self.epoch, outputs=outcome.outputs, now=now, facts=outcome.facts
            )
            if booked:
                self._news.done(outcome.id, outcome.outputs, outcome.facts[2])
        else:
            assert isinstance(outcome, FailedRange)
            self.tally.failures += 1
            booked = moves.fail(outcome, epoch=self.epoch, now=now)
            if booked:
                self._news.failed(outcome)
        if not booked:
            self.tally.ignored += 1
        return client, outcome.id, booked

    def _hand_out(self, moves: Moves, now: float) -> tuple[list[tuple[str, EventRange]], bool]:
        """The ranges given, by client; and whether no range will ever come.

        Some more are taken ahead: the next requests are answered from them at once, and one
        transaction serves many.
        """
        if self._assignment.holds(self._suspect):
            return [], False
        owners = self._assignment.next_owners(self._assignment.waiting)
        found = self.ahead.pop(len(owners))
        fresh = owners[len(found) :]
        ahead = [""] * self.ahead.missing(self.tally.handed_out, now)
        taken = moves.take(fresh + ahead, epoch=self.epoch, now=now)
        self.ahead.ranges.extend(taken[len(fresh) :])
        found += taken[: len(fresh)]
        if len(found) == len(owners):
            return list(zip(owners, found, strict=True)), False
        if not found and not self._assignment.held:
            found += self._take_suspect(moves, owners[0], now)
        ended = not moves.ready and moves.phase() in EXHAUSTED_PHASES
        return list(zip(owners, found, strict=False)), ended

    def _take_suspect(self, moves: Moves, owner: str, now: float) -> list[EventRange]:
        """Nothing else is left and nothing is in hand: the next suspect, alone."""
        suspect = moves.take_suspect(owner, epoch=self.epoch, now=now)
        if suspect is None:
            return []
        self._suspect = suspect.id
        return [suspect]

    def _acknowledge(self, round_: Round, recorded: list[tuple[Client, str, bool]]) -> None:
        for client, range_id, booked in recorded:
            if client.native:
                refusal = "this range is not in your hands"
                reply = native.ack(range_id) if booked else native.error(refusal, range_id)
                round_.replies.append((client.identity, reply))
            elif not booked:
                round_.garbage.append(f"outcome of a range that is not sent: {shortened(range_id)}")

    def _reply_ranges(
        self, round_: Round, given: list[tuple[str, EventRange]]
    ) -> list[tuple[str, FailedRange]]:
        """Reply to whom a range was given; returns the ranges that cannot be written, by client."""
        bunches: dict[bytes, list[EventRange]] = {}
        unwritable: list[tuple[str, FailedRange]] = []
        for key, event_range in given:
            client = self._by_key[key]
            self._assignment.give(key, event_range.id)
            self._news.sent(event_range.id, client.pid)
            if client.native:
                bunches.setdefault(client.identity, []).append(event_range)
                continue
            try:
                reply = self._written.pop(event_range.id, None) or text.range_reply(event_range)
                round_.replies.append((client.identity, reply))
            except MessageError as error:
                # In nobody's hand: whatever becomes of the client, it fails with its reason.
                self._assignment.end(event_range.id)
                unwritable.append((key, not_writable(event_range.id, error)))
        self.tally.handed_out += len(given)
        for identity, bunch in bunches.items():
            round_.replies.append((identity, native.ranges(bunch)))
        return unwritable

    def _replace(
        self, round_: Round, unwritable: list[tuple[str, FailedRange]], now: float
    ) -> tuple[list[tuple[str, EventRange]], bool]:
        """Ranges that the text dialect cannot carry fail so; who asked for them gets others."""
        with self.queue.moves() as moves:
            for key, failure in unwritable:
                moves.fail(failure, epoch=self.epoch, now=now)
                round_.garbage.append(failure.diag)
                if key in self._by_key:
                    self._assignment.ask(key)
            return self._hand_out(moves, now) if self.mode == "serve" else ([], False)

    def _refuse(self, round_: Round) -> None:
        for key, asked in self._assignment.refuse_all().items():
            client = self._by_key[key]
            client.refused = True
            if client.native:
                round_.replies.append((client.identity, native.no_more(self.reason)))
            else:
                round_.replies += [(client.identity, text.NO_MORE)] * min(asked, MAX_NO_MORE)

    def _drop(self, client: Client) -> None:
        self._assignment.leave(client.key)
        self._by_key.pop(client.key, None)
        if self._clients.get(client.identity) is client:
            del self._clients[client.identity]
