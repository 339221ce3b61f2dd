"""HTTP to an event server; the only module that knows `requests`.

One call is one request: nothing is repeated here, no redirect is followed, proxies and `.netrc` of
the environment are not used. Each call has a total time limit of its own, because servers have
none, and an answer has a size limit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from espilot.errors import ConfigError, ServerUnavailable
from espilot.model import EventRange, Job, JobUpdate, ReportAnswer, ReportBatch, TaskStatus
from espilot.wire import panda_v1, panda_v1_answers
from espilot.wire.panda_reports import count_ranges, write_updates

BODY_LIMIT_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**18
_SMALL_BYTES = 2**16


class PandaV1Server:
    """An event server that speaks the v1 dialect (`ports.EventServer`).

    Not for use by two threads at once.
    """

    def __init__(
        self,
        *,
        url: str,
        site: str,
        node: str,
        timeout_s: float = 120.0,
        connect_timeout_s: float = 100.0,
        task_id: int | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"server.url: not an http or https address: {url!r:.100}")
        self._url = url.rstrip("/")
        self._site = site
        self._node = node
        self._timeout_s = timeout_s
        self._connect_timeout_s = min(connect_timeout_s, timeout_s)
        self._task_id = task_id
        self._session = _open_session()

    def acquire_job(self) -> Job | None:
        """One job; None when the server has none or says so."""
        parameters = panda_v1.acquire_jobs_parameters(self._site, self._node, self._task_id)
        return panda_v1_answers.read_acquired_job(*self._call(panda_v1.ACQUIRE_JOBS, parameters))

    def acquire_ranges(self, job: Job, n: int) -> tuple[EventRange, ...]:
        """Up to `n` ranges; empty means none for this job now."""
        parameters = panda_v1.acquire_ranges_parameters(job, n)
        return panda_v1_answers.read_ranges(*self._call(panda_v1.ACQUIRE_RANGES, parameters))

    def report(self, job: Job, batches: Sequence[ReportBatch]) -> ReportAnswer:
        """One bulk update with all batches; `accepted` follows the order of their ranges."""
        n = count_ranges(batches)
        if n == 0:
            return ReportAnswer(())
        parameters = {"event_ranges": write_updates(batches), "version": 1}
        status, body = self._call(panda_v1.UPDATE_RANGES, parameters)
        return panda_v1_answers.read_report(status, body, n)

    def range_statuses(self, job: Job, wanted: Collection[str] | None = None) -> Mapping[str, str]:
        """Status of the wanted ranges (None: all) that the job holds, by id without its attempt.

        The answer grows with the job, so a large one is not kept but read as it comes.
        """
        parameters = panda_v1.range_statuses_parameters(job)
        with self._answering(panda_v1.RANGE_STATUSES, parameters) as (status, body):
            head = body.read_up_to(_SMALL_BYTES)
            if len(head) < _SMALL_BYTES or status != 200:
                return panda_v1_answers.read_statuses(status, head, job.panda_id)
            body.put_back(head)
            return panda_v1_answers.stream_statuses(body, job.panda_id, wanted)

    def update_job(self, job: Job, update: JobUpdate) -> str:
        """A heartbeat or the final update; the command, "" when there is none."""
        parameters = panda_v1.update_job_parameters(
            job,
            update,
            site=self._site,
            node=self._node,
            end_time=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        )
        return panda_v1_answers.read_command(*self._call(panda_v1.UPDATE_JOB, parameters))

    def task_status(self, task_id: int) -> TaskStatus:
        """The state of a task; only the built-in server has it."""
        answer = self._call(panda_v1.TASK_STATUS, {"task_id": task_id})
        return panda_v1_answers.read_task_status(*answer)

    def create_task(self, definition: Mapping[str, Any]) -> int:
        """Create a task and return its id; only the built-in server can.

        `definition` has the names of `panda_v1.CREATE_TASK`.
        """
        answer = self._call(panda_v1.CREATE_TASK, definition)
        return panda_v1_answers.read_task_id(*answer)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _call(self, call: panda_v1.Call, parameters: Mapping[str, Any]) -> tuple[int, bytes]:
        """HTTP status and body of one call, within the time limit."""
        with self._answering(call, parameters) as (status, body):
            return status, body.read_all()

    @contextmanager
    def _answering(
        self, call: panda_v1.Call, parameters: Mapping[str, Any]
    ) -> Iterator[tuple[int, _Body]]:
        """HTTP status and the body that is still to be read."""
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._send(call, parameters) as response:
                yield response.status_code, _Body(response, deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ServerUnavailable(f"{call.name}: {_describe(error)}") from error

    def _send(self, call: panda_v1.Call, parameters: Mapping[str, Any]) -> requests.Response:
        is_post = call.method == "POST"
        return self._session.request(
            call.method,
            self._url + call.path,
            params=None if is_post else dict(parameters),
            data=json.dumps(parameters).encode() if is_post else None,
            headers=dict(panda_v1.REQUEST_HEADERS),
            # requests hands this object on to urllib3, the only way to limit both phases together.
            timeout=urllib3.Timeout(  # type: ignore[arg-type]
                total=self._timeout_s, connect=self._connect_timeout_s, read=self._timeout_s
            ),
            allow_redirects=False,
            stream=True,
        )


def _open_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers["Accept-Encoding"] = "identity"
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Body:
    """The body of an answer, as long as it comes in time and is not too large."""

    def __init__(self, response: requests.Response, deadline: float) -> None:
        self._response = response
        self._deadline = deadline
        self._size_bytes = 0
        self._back = b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, as they come; none at the end."""
        if self._back and size > 0:
            piece, self._back = self._back[:size], self._back[size:]
            return piece
        if size <= 0:
            return b""
        _limit_wait(self._response, self._deadline - time.monotonic())
        piece = self._response.raw.read1(min(size, _CHUNK_BYTES))
        self._size_bytes += len(piece)
        if self._size_bytes > BODY_LIMIT_BYTES:
            raise ServerUnavailable(f"the answer is larger than {BODY_LIMIT_BYTES} bytes")
        return piece

    def put_back(self, data: bytes) -> None:
        """Have this read again."""
        self._back = data + self._back

    def read_up_to(self, size: int) -> bytes:
        """The first `size` bytes, or all where there are less."""
        pieces = bytearray()
        while len(pieces) < size:
            piece = self.read(size - len(pieces))
            if not piece:
                break
            pieces += piece
        return bytes(pieces)

    def read_all(self) -> bytes:
        """All of it."""
        return self.read_up_to(BODY_LIMIT_BYTES + 1)


def _limit_wait(response: requests.Response, remaining_s: float) -> None:
    """Let the next read wait no longer than what is left of the call's time.

    The read time-out of urllib3 is per read, so a dripping server could go on for ever.
    """
    if remaining_s <= 0:
        raise ServerUnavailable("the answer did not come in time")
    sock = getattr(response.raw.connection, "sock", None)
    if sock is not None:
        sock.settimeout(remaining_s)


def _describe(error: Exception) -> str:
    """A short sentence without the addresses of objects that urllib3 puts into its texts."""
    if isinstance(error, requests.ConnectTimeout):
        return "no connection to the server in time"
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate or ours was not accepted"
    if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError | OSError):
        return "no connection to the server, or it was lost"
    return f"the request could not be sent ({type(error).__name__})"
