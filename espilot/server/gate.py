"""From an HTTP request to an API and back, by the rules of real servers; no sockets here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

from espilot.server import answers, legacy_answers, parameters
from espilot.server.answers import Answer
from espilot.server.api_legacy import LegacyApi
from espilot.server.api_v1 import Api
from espilot.server.legacy_answers import LegacyAnswer
from espilot.server.options import Faults, Quirks
from espilot.server.store import Store
from espilot.wire.panda_legacy import METHODS, Form, Method
from espilot.wire.panda_v1 import CALLS, Call

JSON = "application/json"
_NO_ROLE = frozenset({"system/is_alive", "event/get_event_range_statuses"})
_LEGACY_NO_ROLE = frozenset({"isAlive", "get_events_status", "checkEventsAvailability"})
_SENTENCE = "production or pilot role is required"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request as it came; `body` None means that fewer bytes came than were announced."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back. `is_dropped`: nothing does; `is_fatal`: the process goes away after it."""

    status: int
    text: str
    content_type: str = "text/plain"
    delay_s: float = 0.0
    is_dropped: bool = False
    is_fatal: bool = False


class Gate:
    """Both dialects of one server."""

    def __init__(self, store: Store, quirks: Quirks, now: Callable[[], float] = time.time) -> None:
        self._quirks = quirks
        self._faults = Faults(quirks)
        self._v1 = Api(store, quirks, self._faults, now)
        self._legacy = LegacyApi(store, quirks, self._faults, now)
        self._legacy_calls = 0

    def refuse(self, path: str, headers: Mapping[str, str]) -> Reply | None:
        """The refusal of a request before its body is read, or None.

        The name of the method is looked at before anything else.
        """
        found, name = _find(path)
        if found is None or not self._speaks(found):
            return Reply(403, f"ERROR : method {name} is forbidden")
        reason = self._refuse_caller(headers)
        return Reply(403, f"ERROR : {reason}") if reason else None

    def answer(self, request: HttpRequest) -> Reply:
        """Answer a request that was not refused."""
        found, name = _find(request.path)
        if request.body is None or found is None:
            return self._crash("the body is short", is_fatal=True)
        try:
            if isinstance(found, Method):
                return self._misbehave(self._answer_legacy(found, request), found.function, name)
            return self._misbehave(self._answer_v1(found, request), found.name)
        except parameters.KillingRequest as error:
            return self._crash(str(error), is_fatal=True)

    def _speaks(self, found: Call | Method) -> bool:
        """Whether the dialect of this method is there; the local functions always are."""
        if isinstance(found, Call):
            return self._quirks.dialects != "legacy" or found.name.startswith("local/")
        self._legacy_calls += 1
        dropped = 0 <= self._quirks.drop_legacy < self._legacy_calls
        return self._quirks.dialects != "v1" and not dropped

    def _refuse_caller(self, headers: Mapping[str, str]) -> str:
        """Why this caller is not heard at all, or ""."""
        if "Authorization" in headers:
            if self._quirks.reject_token:
                return "Token authentication failed. the token is not valid"
            if self._quirks.need_origin and not headers.get("Origin"):
                return "Token authentication failed. no origin in the request"
        return "somebody is banned" if self._quirks.ban_user else ""

    def _crash(self, text: str, *, is_fatal: bool) -> Reply:
        return Reply(500, text, is_fatal=is_fatal and self._quirks.oserror_kills)

    def _misbehave(self, reply: Reply, *names: str) -> Reply:
        """Delay or drop the answer where that is asked for."""
        quirks = self._quirks
        every = quirks.answer_delay_s > 0 and not quirks.answer_delay
        if every or self._faults.take("answer_delay", *names):
            reply = replace(reply, delay_s=quirks.answer_delay_s or 1.0)
        if self._faults.take("drop_answer", *names):
            reply = replace(reply, is_dropped=True)
        return reply

    # -- v1 -------------------------------------------------------------------------------------

    def _answer_v1(self, call: Call, request: HttpRequest) -> Reply:
        answer = self._carry_out(call, request)
        # JSON only for those who say so in a header; labelled as text all the same.
        headers = (request.headers.get("Accept"), request.headers.get("Content-Type"))
        as_json = JSON in headers or not self._quirks.v1_repr_without_json_headers
        status, text = answers.write_body(answer, as_json=as_json)
        is_json = as_json and answer.text is None and status == 200
        labelled = is_json and not self._quirks.v1_text_plain
        return Reply(status, text, JSON if labelled else "text/plain")

    def _carry_out(self, call: Call, request: HttpRequest) -> Answer:
        if request.method != call.method:
            return answers.fail(f"expecting {call.method}, received {request.method}")
        try:
            values = self._read_values(call, request)
            checked = parameters.check(
                call,
                values,
                strict=self._quirks.v1_strict_types,
                storage_id_breaks=self._quirks.v1_single_storage_id_500,
            )
        except parameters.BadRequest as error:
            return answers.fail(str(error))
        except parameters.BrokenRequest as error:
            return answers.crash(str(error))
        if self._lacks_role(call):
            return answers.fail(answers.NO_ROLE)
        return self._v1.answer(call.name, checked)

    def _lacks_role(self, call: Call) -> bool:
        if call.name in _NO_ROLE or call.name.startswith("local/"):
            return False
        role = self._quirks.caller_role
        return role == "user" or (role == "pilot" and self._quirks.production_role_only)

    def _read_values(self, call: Call, request: HttpRequest) -> dict[str, Any]:
        if call.method == "GET":
            query = parse_qs(request.query, keep_blank_values=True)
            return parameters.read_query(call, query)
        content_type = request.headers.get("Content-Type", "")
        if not self._quirks.v1_exact_content_type:
            content_type = content_type.partition(";")[0].strip()
        body = request.body or b""
        if content_type == JSON:
            is_zipped = request.headers.get("Content-Encoding", "") == "gzip"
            return parameters.read_json(body, is_zipped=is_zipped)
        return parameters.read_form(body)

    # -- legacy ---------------------------------------------------------------------------------

    def _answer_legacy(self, method: Method, request: HttpRequest) -> Reply:
        try:
            given = self._read_strings(request)
        except parameters.BrokenRequest as error:
            return Reply(500, str(error))
        answer = self._refuse_role(method) or self._legacy.answer(method, given)
        form = method.form if self._quirks.legacy_urlencoded else Form.EITHER
        accepts_json = JSON in request.headers.get("Accept", "")
        status, text, is_json = legacy_answers.write(answer, form, accepts_json=accepts_json)
        labelled = is_json and form is not Form.JSON
        return Reply(status, text, JSON if labelled else "text/plain")

    def _refuse_role(self, method: Method) -> LegacyAnswer | None:
        if self._quirks.caller_role != "user" or method.name in _LEGACY_NO_ROLE:
            return None
        bare = method.function.startswith(("event/", "pilot/update_worker"))
        if bare and self._quirks.legacy_plain_sentences:
            return LegacyAnswer(text=_SENTENCE)
        return legacy_answers.code(60, "no production/pilot role in VOMS FQANs or non pilot owner")

    def _read_strings(self, request: HttpRequest) -> dict[str, str]:
        """Parameters of the query and of a form or JSON body, all as strings."""
        given = {name: texts[-1] for name, texts in parse_qs(request.query).items()}
        body = request.body or b""
        if request.headers.get("Content-Type", "") != JSON:
            return {**given, **parameters.read_form(body)}
        is_zipped = (
            self._quirks.legacy_json_always_gunzip
            or request.headers.get("Content-Encoding", "") == "gzip"
        )
        values = parameters.read_json(body, is_zipped=is_zipped)
        return {**given, **{name: str(value) for name, value in values.items()}}


def _find(path: str) -> tuple[Call | Method | None, str]:
    """The function of a path, and the method name for the refusal; any other shape has none."""
    parts = path.split("/")
    if len(parts) == 4 and parts[1:3] == ["server", "panda"]:
        return METHODS.get(parts[3]), parts[3]
    if len(parts) == 5 and parts[1] == "api" and parts[2] in ("v1", "latest"):
        return CALLS.get(f"{parts[3]}/{parts[4]}"), parts[4]
    return None, ""
