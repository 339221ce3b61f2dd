"""Requests of people (`espilot status`, `espilot drain`) to a living pilot, and their answers.

They come over the supervisor's control socket, which only its owner can reach, from a sender with
a random name. A handler answers at once: it decides or looks up, and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from espilot.adapters import control
from espilot.errors import EspilotError, LocalError, MessageError, UsageError
from espilot.logs import Log
from espilot.wire import envelope
from espilot.wire.messages import Refused

M = TypeVar("M")


class People:
    """The supervisor's end: a table of what can be asked for."""

    def __init__(self, socket: control.ControlRouter, log: Log) -> None:
        self._socket = socket
        self._log = log
        self._handlers: dict[type, Callable[[Any], Any]] = {}

    def on(self, request: type[M], handler: Callable[[M], Any]) -> None:
        """Answer this kind of request with the message that the handler returns."""
        self._handlers[request] = handler

    def heard(self, sender: str, data: bytes) -> bool:
        """Answer, if a person's request has come; False when it comes from somebody else."""
        if not sender.startswith(control.PERSON):
            return False
        try:
            answer = self._answer(envelope.decode(data))
        except EspilotError as error:
            # Bytes that are no message, or a reason why not: the asker is told either.
            answer = Refused(str(error))
        self._log.info("control", "asked by a person", answer=type(answer).__name__)
        self._socket.send(sender, envelope.encode(answer))
        return True

    def _answer(self, request: object) -> Any:
        handler = self._handlers.get(type(request))
        if handler is None:
            raise UsageError(f"this pilot cannot answer {type(request).__name__}")
        return handler(request)


def ask(runtime: Path, request: Any, answer: type[M], *, timeout_s: float = 2.0) -> M | None:
    """Ask the pilot with this runtime directory; None when it does not answer in time.

    `UsageError` with its reason when it refuses, `LocalError` when there is nobody to be asked.
    """
    data = control.ask(runtime, envelope.encode(request), timeout_s=timeout_s)
    if data is None:
        return None
    try:
        message = envelope.decode(data)
    except MessageError as error:
        raise LocalError(f"the pilot's answer cannot be read: {error}") from None
    if isinstance(message, Refused):
        raise UsageError(message.reason)
    if not isinstance(message, answer):
        raise LocalError(
            f"the pilot answered with {type(message).__name__}: is it another version?"
        )
    return message
