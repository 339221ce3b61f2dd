"""A job that an earlier pilot left: the server is asked about it before anything else is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from espilot.adapters.outputs import remove
from espilot.errors import EspilotError
from espilot.model import DoneRange, JobRecord, JobUpdate
from espilot.pipeline.resumption import Comparison, compare, live_keys
from espilot.wire.messages import Resumed
from espilot.workers.flow import Conversation, Flow
from espilot.workers.telling import tell_given_back

KILLED = "tobekilled"
Answer = tuple[str, Mapping[str, str]]


class ResumedJob:
    """Compares queue and server once; `then` gets the server's command, and whether it is gone.

    A job is gone when the server orders its end and holds no range of it that is still open.
    """

    def __init__(
        self, worker: Conversation, record: JobRecord, then: Callable[[str, bool], None]
    ) -> None:
        self._worker = worker
        self._record = record
        self._then = then
        self._flow = Flow(worker, "resume")

    def step(self, update: JobUpdate) -> None:
        """Ask, if no call is under way; `update` is a heartbeat."""
        if self._flow.due:
            keys = live_keys(self._worker.child.queue)
            self._flow.call(partial(self._ask, update, keys), self._answered)

    def _ask(self, update: JobUpdate, keys: frozenset[str]) -> Answer:
        job, server = self._record.job, self._flow.server
        return server.update_job(job, update), server.range_statuses(job, keys)

    def _answered(self, answer: Answer) -> None:
        command, statuses = answer
        child = self._worker.child
        done, _ = child.queue.done()
        found = compare(child.queue, self._record, statuses)
        gone = KILLED in command and not found.held
        self._remove_outputs([row for row in done if child.queue.state(row.id) is None])
        child.log.info("recover", "the server was asked about the job", held=found.held,
                       booked=found.booked, given_back=len(found.lost), gone=gone,
                       orphans=len(found.orphans))  # fmt: skip
        self._tell(found, gone)
        self._then(command, gone)

    def _tell(self, found: Comparison, gone: bool) -> None:
        log, panda_id = self._worker.child.log, self._record.job.panda_id
        tell_given_back(
            self._worker.child.story, found.lost, "the server no longer held it for this job"
        )
        for name in found.orphans:
            log.warning("recover", "orphan: the server no longer wants this archive", name=name)
        self._worker.child.send(
            Resumed(panda_id, found.held, found.booked, len(found.lost), len(found.orphans), gone)
        )
        self._worker.child.ring("stageout")

    def _remove_outputs(self, rows: list[DoneRange]) -> None:
        """What was made for ranges that are no longer ours is of no use to anybody."""
        outputs = [output for row in rows for output in row.outputs]

        def remove_all() -> None:
            for output in outputs:
                remove(output)

        if outputs:
            self._worker.calls.start(remove_all, then=lambda _: None, failed=self._not_removed)

    def _not_removed(self, error: EspilotError) -> None:
        self._worker.child.log.warning("delete", "outputs not deleted", error=error)
