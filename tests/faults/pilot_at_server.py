"""The whole pilot at a server that the test has started: `pilot_at_server.py URL TASK_ID ARGS...`.

ARGS are those of `espilot run`. All but the address of the server is as in a local run.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from unittest.mock import patch

from espilot.cli import main, run_command

URL, TASK_ID = sys.argv[1], int(sys.argv[2])
make_context = run_command.make_context

if __name__ == "__main__":
    with patch.object(
        run_command,
        "make_context",
        lambda *given: replace(make_context(*given), server_url=URL, task_id=TASK_ID),
    ):
        sys.exit(main.main(sys.argv[3:]))
