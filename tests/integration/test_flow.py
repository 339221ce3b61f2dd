"""One kind of call to the server: what hurry changes."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

from espilot.adapters.loop import Loop
from espilot.config import Settings
from espilot.workers.calls import Calls
from espilot.workers.flow import Conversation, Flow


class Worker:
    """A worker with numbered connections."""

    def __init__(self) -> None:
        self.loop = Loop()
        log = SimpleNamespace(warning=lambda *_, **__: None)
        self.child = SimpleNamespace(loop=self.loop, log=log, settings=Settings(), facts={})
        self.calls = Calls(self.loop, 2)
        self.opened = 0

    def open_server(self) -> Any:
        """The next connection."""
        self.opened += 1
        return self.opened

    def step(self) -> None:
        """Nothing more to do."""

    def refused(self, flow: str) -> None:
        """Nobody is."""


def test_the_call_after_one_that_was_under_way_is_in_a_hurry_too() -> None:
    """A call that was under way keeps its patience; the next one has a connection with less."""
    worker = Worker()
    flow = Flow(cast("Conversation", worker), "reports")
    go_on, used = threading.Event(), []

    def slow() -> int:
        used.append(flow.server)
        assert go_on.wait(20)
        return 1

    def ended(_: int) -> None:
        worker.loop.stop()

    flow.call(slow, ended)
    worker.loop.every(0.01, lambda: go_on.set() if flow.server != 1 else None)
    worker.loop.call_later(0.05, lambda: flow.hurry(15.0))
    worker.loop.run()
    assert not flow.busy and flow.server == 2
    flow.call(slow, ended)
    worker.loop.run()
    worker.calls.close()
    assert used == [1, 2]
