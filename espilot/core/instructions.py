"""What a server's command means.

* A command is a comma-separated list; each part is read as whole words, never by what it contains.
* Kill and soft kill concern the job; `debug` and `debugoff` switch the debug mode.
* Inquiries (`tail`, `ls`, `ps`, `du`) are answered with the next update. Whatever follows their
  first word is data: nothing is ever given to a shell.
* Anything else is unknown: it is said in the log and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

INQUIRIES = ("tail", "ls", "ps", "du")
NO_COMMANDS = ("", "NULL", "null", "None", "alreadydone")


@dataclass(frozen=True, slots=True)
class Orders:
    """The parts of one command. `debug` None: not mentioned; `inquiry` the last one, in words."""

    kill: bool = False
    soft_kill: bool = False
    debug: bool | None = None
    keep_workdir: bool = False
    inquiry: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def read_orders(command: str) -> Orders:
    """The orders in a command."""
    kill = soft_kill = keep_workdir = False
    debug: bool | None = None
    inquiry: tuple[str, ...] = ()
    unknown: list[str] = []
    for part in command.split(","):
        words = tuple(part.split())
        if part.strip() in NO_COMMANDS:
            continue
        if words[0] in INQUIRIES:
            # Who asks for something wants to hear the answer.
            inquiry, debug = words, True
        elif words == ("tobekilled",):
            kill = True
        elif words == ("softkill",):
            soft_kill = True
        elif words in (("debug",), ("debugoff",)):
            debug = words == ("debug",)
        elif words == ("nocleanup",):
            keep_workdir = True
        else:
            unknown.append(part.strip()[:60])
    return Orders(kill, soft_kill, debug, keep_workdir, inquiry, tuple(unknown))
