"""All checks, in the order in which a person would make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from espilot.diagnosis.local import check_channel, check_disk, check_limits, check_payload
from espilot.diagnosis.remote import check_clock, check_credentials, check_server, check_storage
from espilot.diagnosis.subject import Fault, Finding, Nothing, State, Subject
from espilot.errors import EspilotError

Check = Callable[[Subject], str]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "credentials": check_credentials,
        "server": check_server,
        "clock": check_clock,
        "storage": check_storage,
        "disk": check_disk,
        "limits": check_limits,
        "channel": check_channel,
        "payload": check_payload,
    }
)

FIXES: Mapping[str, str] = MappingProxyType(
    {
        "credentials": "see server.x509_proxy, server.token_file and server.token_origin",
        "server": "see server.url and server.ca; is there a way through the network?",
        "storage": "see storage and [endpoints]",
        "disk": "choose another --workdir or --state-dir",
        "channel": "make /tmp writable",
        "payload": "see payload.command, payload.exec; `espilot check-payload` tells more",
    }
)
"""What to do where the fault itself does not say."""


def examine(subject: Subject, checks: Mapping[str, Check] = CHECKS) -> Iterator[Finding]:
    """Make all checks; none keeps another from being made."""
    for name, check in checks.items():
        yield _find(name, check, subject)


def _find(name: str, check: Check, subject: Subject) -> Finding:
    try:
        return Finding(name, State.OK, check(subject))
    except Nothing as nothing:
        return Finding(name, State.SKIPPED, str(nothing))
    except Fault as fault:
        return Finding(name, State.BAD, fault.text, fault.fix)
    except EspilotError as error:
        return Finding(name, State.BAD, str(error), FIXES.get(name, ""))
    except OSError as error:
        text = f"{error.strerror}: {error.filename or 'this machine'}"
        return Finding(name, State.BAD, text, FIXES.get(name, ""))
