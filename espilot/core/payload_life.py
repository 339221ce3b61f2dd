"""The life of the payload over its starts, as the supervisor sees it.

Rules:

* Each start is an epoch with a channel of its own; the channel is open before the payload starts.
* The channel of an ended payload is drained before anything else happens.
* When the dispatcher dies, its waiting clients would wait for ever: the payload is ended too.
* Whether it starts again is decided when its channel is settled, with what is known then.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType


class Life(Enum):
    """Where the payload is."""

    IDLE = "idle"
    """No job wants one."""
    BINDING = "binding"
    """The dispatcher opens the channel of the next start."""
    RUNNING = "running"
    """Its launcher runs."""
    STOPPING = "stopping"
    """Its launcher was told to end it."""
    SETTLING = "settling"
    """It is reaped; its channel is drained."""
    PAUSING = "pausing"
    """It will start again after a pause."""
    OVER = "over"
    """It will not run again for this job."""


class Event(Enum):
    """What happens to it."""

    WANTED = "wanted"
    """A job has work for it."""
    BOUND = "bound"
    """The channel is open."""
    STOP = "stop"
    """It shall end: a verdict, a drain, the death of the dispatcher."""
    EXITED = "exited"
    """Its launcher is reaped."""
    AGAIN = "again"
    """The channel is settled, and there is work and a start left."""
    ENOUGH = "enough"
    """The channel is settled, or the pause is cut short, and it shall not run again."""
    PAUSE_ENDED = "pause-ended"
    """The pause before the next start is over."""
    JOB_ENDED = "job-ended"
    """The job has got its final update."""


class Effect(Enum):
    """What is to be done."""

    OPEN_CHANNEL = "open-channel"
    """Count a new epoch and have its channel opened."""
    START = "start"
    """Start the launcher."""
    TERMINATE = "terminate"
    """Tell the launcher to end the payload's tree."""
    SETTLE = "settle"
    """Have the channel drained."""
    PAUSE = "pause"
    """Wait before the next start."""


TRANSITIONS = MappingProxyType(
    {
        (Life.IDLE, Event.WANTED): (Life.BINDING, (Effect.OPEN_CHANNEL,)),
        (Life.BINDING, Event.BOUND): (Life.RUNNING, (Effect.START,)),
        (Life.BINDING, Event.STOP): (Life.SETTLING, (Effect.SETTLE,)),
        (Life.RUNNING, Event.STOP): (Life.STOPPING, (Effect.TERMINATE,)),
        (Life.RUNNING, Event.EXITED): (Life.SETTLING, (Effect.SETTLE,)),
        (Life.STOPPING, Event.EXITED): (Life.SETTLING, (Effect.SETTLE,)),
        (Life.SETTLING, Event.AGAIN): (Life.PAUSING, (Effect.PAUSE,)),
        (Life.SETTLING, Event.ENOUGH): (Life.OVER, ()),
        (Life.PAUSING, Event.PAUSE_ENDED): (Life.BINDING, (Effect.OPEN_CHANNEL,)),
        (Life.PAUSING, Event.ENOUGH): (Life.OVER, ()),
        (Life.PAUSING, Event.STOP): (Life.OVER, ()),
        (Life.OVER, Event.JOB_ENDED): (Life.IDLE, ()),
    }
)
"""Whatever is not listed changes nothing: it comes late, or again."""


def handle(life: Life, event: Event) -> tuple[Life, tuple[Effect, ...]]:
    """The state after an event, and what is to be done."""
    return TRANSITIONS.get((life, event), (life, ()))


def channel_mode(life: Life, *, draining: bool, storage: str) -> tuple[str, str]:
    """What the dispatcher shall do with the channel, and the reason for a *no more*.

    `storage` is `ok`, `behind`, `trouble` or `given-up`.
    """
    if life in (Life.BINDING, Life.RUNNING):
        if draining:
            return "no-more", "drain"
        if storage == "given-up":
            return "no-more", "storage"
        return ("serve" if storage == "ok" else "outcomes"), ""
    return ("outcomes" if life is Life.STOPPING else "settle"), ""
