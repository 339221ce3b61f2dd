"""Serves a page beside whatever else its process does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espilot.adapters.page_server import PageServer, Source

STOP_S = 0.1


@contextmanager
def serving(source: Source, *, port: int = 0, path: Path | None = None) -> Iterator[str]:
    """Serve in a thread of its own; where. `LocalError` when the address cannot be had."""
    server = PageServer(source, port=port, path=path)
    # The library's server looks at times whether it shall end.
    thread = threading.Thread(target=server.serve_forever, args=(STOP_S,), name="page", daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.stop()
        thread.join()
        server.server_close()
