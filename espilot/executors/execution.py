"""One normal or merge job from its inputs to its outcome.

Set-up, stage-in, payload, verification, stage-out, log archive: one after the other. Whatever
goes wrong, the log archive is shipped and there is an outcome.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from espilot.core.retry import Backoff
from espilot.errors import EspilotError, InputError, MessageError, OutputError, StorageError
from espilot.executors import merge
from espilot.executors.payload_run import PayloadEnd, run_payload
from espilot.executors.stagein import Failure, StageIn
from espilot.executors.stageout import check_outputs
from espilot.logs import Log
from espilot.model import Job, JobOutcome
from espilot.supervisor.payload import container_of, payload_environment
from espilot.supervisor.transformation import command_of, parameters_of
from espilot.wire.jobfiles import (
    read_endpoints_out,
    read_inputs,
    read_optional_outputs,
    replace_names,
)
from espilot.workers.context import Context
from espilot.workers.inputs import is_direct, sources_of
from espilot.workers.job_log import ship_job_log
from espilot.workers.shipping import STAGEOUT_FAILED, shipping_of

TERMINATED, BAD_DEFINITION, LOCAL_TROUBLE, MERGE_RECOVERABLE = 1201, 1110, 1303, 1225


@dataclass(slots=True)
class _Course:
    """How far the job has come."""

    code: int = 0
    diag: str = ""
    exit_code: int | None = None
    report: dict[str, dict[str, Any]] = field(default_factory=dict)
    corrupted: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def fail(self, code: int, diag: str) -> None:
        """The first reason counts."""
        if not self.code:
            self.code, self.diag = code, diag


class Execution:
    """`stopped` is set when the job shall end; what is being shipped then is shipped to its end.

    `run_id` marks the payload's processes, so that its launcher finds them.
    """

    def __init__(
        self,
        context: Context,
        job: Job,
        *,
        epoch: int,
        run_id: str,
        stopped: threading.Event,
        log: Log,
    ) -> None:
        self._context = context
        self._job = job
        self._epoch = epoch
        self._run_id = run_id
        self._directory = context.payload_dir(epoch)
        self._stopped = stopped
        self._log = log
        self._course = _Course()

    def run(self) -> JobOutcome:
        """Do all of it."""
        course, job = self._course, self._job
        try:
            self._work()
        except (InputError, OutputError) as error:
            course.fail(error.code, str(error))
        except StorageError as error:
            course.fail(STAGEOUT_FAILED, str(error))
        except MessageError as error:
            course.fail(BAD_DEFINITION, str(error))
        except EspilotError as error:
            course.fail(LOCAL_TROUBLE, str(error))
        if course.code:
            course.report.clear()
            self._log.error("job", "the job has failed", code=course.code, reason=course.diag)
        self._ship_log()
        return JobOutcome(
            panda_id=job.panda_id,
            attempt_nr=job.attempt_nr,
            code=course.code,
            diag=course.diag[:256],
            exit_code=course.exit_code,
            report=course.report,
            corrupted=tuple(dict.fromkeys(course.corrupted)),
            stagein_s=course.seconds.get("stage-in", 0.0),
            payload_s=course.seconds.get("payload", 0.0),
            stageout_s=course.seconds.get("stage-out", 0.0),
        )

    def _work(self) -> None:
        definition = self._job.definition
        command = command_of(self._context, definition)
        began = time.monotonic()
        arguments = self._stage_in(parameters_of(self._context, definition))
        began = self._note("stage-in", began)
        self._require_going_on()
        end = self._run_payload([*command, *arguments])
        began = self._note("payload", began)
        self._require_going_on()
        if end.code:
            self._course.fail(end.code, end.diag)
            return
        self._stage_out()
        self._note("stage-out", began)

    def _note(self, step: str, began: float) -> float:
        now = time.monotonic()
        self._course.seconds[step] = now - began
        self._log.info("state", "step of the job ended", step=step, took_s=now - began)
        return now

    def _require_going_on(self) -> None:
        if self._stopped.is_set():
            raise InputError("the job was ended before it was done", code=TERMINATED)

    # -- stage-in -------------------------------------------------------------------------------

    def _stage_in(self, arguments: list[str]) -> list[str]:
        """Bring the inputs; the arguments as the payload gets them."""
        definition, config = self._job.definition, self._context.settings.stagein
        inputs = read_inputs(definition)
        sources = sources_of(self._context, self._job, inputs)
        if self._job.kind == "normal" and is_direct(self._context, self._job):
            return replace_names(arguments, {i.lfn: sources.address_of(i) for i in inputs})
        stage_in = StageIn(
            sources,
            self._directory,
            self._backoff(config.attempts),
            parallel=config.parallel,
            log=self._log,
            pause=self._stopped.wait,
        )
        self._refuse(stage_in.fetch(inputs))
        if self._job.kind != "merge":
            return arguments
        self._refuse(merge.unpack_archives(inputs, self._directory, config, self._log))
        self._refuse(merge.missing_members(definition, inputs, self._directory))
        return merge.write_lists(definition, arguments, self._directory)

    def _refuse(self, failures: Sequence[Failure]) -> None:
        """Inputs that cannot be had end the job; those that must be made again are named."""
        if not failures:
            return
        if self._job.kind == "merge":
            self._course.corrupted += [each.lfn for each in failures if each.corrupt]
        worst = next((each for each in failures if each.corrupt), failures[0])
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise InputError(worst.text + more, corrupt=worst.corrupt, code=worst.code)

    def _backoff(self, attempts: int) -> Backoff:
        config = self._context.settings.stageout
        return Backoff.between(config.retry_min_s, config.retry_max_s, attempts=attempts)

    # -- payload and outputs --------------------------------------------------------------------

    def _run_payload(self, argv: list[str]) -> PayloadEnd:
        env = payload_environment(self._context, self._epoch, "", self._run_id)
        self._log.info("start", "the payload of the job starts", command=argv[0])
        inside = container_of(self._context, self._directory, "", env)
        end = run_payload([*inside, *argv], self._directory, env)
        self._course.exit_code = end.exit_code
        self._log.info("reap", "the payload of the job ended", exit_code=end.exit_code)
        return end

    def _stage_out(self) -> None:
        definition = self._job.definition
        outputs = check_outputs(
            self._directory,
            self._job.output_lfns,
            limit_bytes=self._context.settings.payload.output_limit_bytes,
            optional=read_optional_outputs(definition),
        )
        endpoints = read_endpoints_out(definition)
        stage_out = shipping_of(self._context, "pw", self._log)
        for output in outputs:
            entry = stage_out.ship(output, endpoint=endpoints.get(output.lfn, ""))
            self._course.report[output.lfn] = entry

    def _ship_log(self) -> None:
        """A job whose log is not safe has failed; one that failed already stays as it is."""
        lfn = self._job.log_lfn
        if not lfn:
            return
        try:
            self._course.report[lfn] = ship_job_log(
                self._context,
                self._job,
                [self._directory],
                self._log,
                limit_bytes=self._context.settings.stageout.log_bytes,
            )
        except EspilotError as error:
            self._log.error("upload", "the log archive is not shipped", error=error)
            self._course.fail(STAGEOUT_FAILED, f"log archive: {error}")
