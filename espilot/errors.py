"""The error tree: whose fault it is, and what can be done next.

Every error that may reach a person has a one-line text that names the thing and the remedy.
"""

from __future__ import annotations


class EspilotError(Exception):
    """Anything espilot raises on purpose."""


class UsageError(EspilotError):
    """The person who called us: a wrong option, a missing or malformed file."""


class ConfigError(UsageError):
    """A setting or a job file that cannot be used; the text names the key."""


class LocalError(EspilotError):
    """This node: no space, no permission, an unusable directory."""


class NoSpaceError(LocalError):
    """Too little local disk space."""


class NoDirectoryError(LocalError):
    """A directory that cannot be made or written."""


class ServerError(EspilotError):
    """The event server, or the way to it."""


class ServerUnavailable(ServerError):
    """No usable answer; the outcome of the call is unknown. Ask again, or verify."""


class ServerRefused(ServerError):
    """The server understood and said no; repeating the same call does not help."""


class StorageError(EspilotError):
    """The storage element, or the way to it."""


class StorageRetryable(StorageError):
    """A transfer that may work later: time-out, connection lost, server busy, disk full.

    `retry_after_s` is the pause that the storage asked for, where it did.
    """

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class StorageDiffers(StorageRetryable):
    """A file on the storage is missing, or is not what it should be; a late one may still come."""


class StorageFatal(StorageError):
    """A transfer that will not work by repeating it: no permission, bad name, wrong credentials."""


class PayloadError(EspilotError):
    """The payload broke its contract; it concerns one range or one client, never the pilot."""


class MessageError(PayloadError):
    """Bytes that are no message of the protocol; the text is safe to log and short."""


class OutputError(PayloadError):
    """An output that cannot be taken: outside the work directory, missing, empty, changed.

    `code` is the pilot error code that the range is reported with.
    """

    def __init__(self, text: str, code: int = 1303) -> None:
        super().__init__(text)
        self.code = code


class InputError(EspilotError):
    """An input of a job that cannot be used: missing, damaged, too large.

    `corrupt`: its content is wrong for good, so it must be made again. `code` is the pilot error
    code of the job.
    """

    def __init__(self, text: str, *, corrupt: bool = False, code: int = 1099) -> None:
        super().__init__(text)
        self.corrupt = corrupt
        self.code = code


class QueueError(EspilotError):
    """The shared-memory queue cannot be used: not local, damaged, held by another pilot, full."""


class StateError(QueueError):
    """A move that the state of a range or archive does not allow. Nothing was changed."""
