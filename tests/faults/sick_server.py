"""The built-in server with faults: `python sick_server.py DB PORT QUIRKS_JSON [JOB_FILE]`.

Prints its URL and the task's id; a second start on the same database takes the same port again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from espilot.cli.server import read_task_file
from espilot.server.app import serve
from espilot.server.options import Quirks, ServerOptions
from espilot.server.store import Store


def main() -> None:
    """Serve one task until TERM."""
    database, port = Path(sys.argv[1]), int(sys.argv[2])
    options = ServerOptions(sent_timeout_s=10.0, quirks=Quirks(**json.loads(sys.argv[3])))
    task = read_task_file(Path(sys.argv[4]))
    store = Store(database, options, now=time.time())
    known = store.task_ids()
    task_id = known[0] if known else store.create_task(task, time.time())
    store.close()

    def tell(url: str) -> None:
        sys.stdout.write(json.dumps({"url": url, "task": task_id}) + "\n")
        sys.stdout.flush()

    serve(db=database, port=port, options=options, on_listening=tell)


if __name__ == "__main__":
    main()
