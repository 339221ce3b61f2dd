"""The answers of legacy methods: objects that become JSON or a form, and bare texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from espilot.wire.panda_legacy import Form


@dataclass(frozen=True, slots=True)
class LegacyAnswer:
    """`value` as JSON; `in_form` replaces some of its fields in a form. `text` is sent as it is."""

    value: Any = None
    in_form: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    status: int = 200
    dialog: str = ""
    """An `errorDialog`, which only those hear who accept JSON."""


def code(number: int, dialog: str = "", **fields: Any) -> LegacyAnswer:
    """An answer that begins with its StatusCode."""
    return LegacyAnswer({"StatusCode": number, **fields}, dialog=dialog)


def write(answer: LegacyAnswer, form: Form, *, accepts_json: bool) -> tuple[int, str, bool]:
    """HTTP status, body, and whether the body is JSON."""
    if answer.text is not None:
        return answer.status, answer.text, False
    as_json = form is Form.JSON or (form is Form.EITHER and accepts_json)
    value = answer.value
    if as_json and answer.dialog:
        value = {**value, "errorDialog": answer.dialog}
    if as_json or not isinstance(value, dict):
        return answer.status, json.dumps(value, separators=(",", ":")), True
    return answer.status, urlencode({**value, **answer.in_form}), False
