"""Payloads for tests that make files and report nothing.

    python file_payload.py ask [--how HOW] [--delay-ms N] [--clients N]
    python file_payload.py read --file FILE [--how HOW] [--delay-ms N]

`ask` gets its ranges over the channel, `read` from a file of them. HOW: `rename` (the default)
writes under another name first, `direct` writes under the name itself, in two steps.
FILE_PAYLOAD_DELAY_MS in the environment is another default of the delay.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from espilot.payload.fake.content import expected_content
from espilot.payload.pool import run_processes

SIZE_BYTES = 100


def make(path: str, range_id: str, how: str, delay_s: float) -> None:
    """Make one output."""
    content = expected_content(range_id, SIZE_BYTES)
    directory, _, name = path.rpartition("/")
    target = f"{directory}/.{name}.{os.getpid()}" if how == "rename" else path
    with Path(target).open("wb") as file:
        file.write(content[:50])
        file.flush()
        time.sleep(delay_s)
        file.write(content[50:])
    if how == "rename":
        Path(target).rename(path)


def ask(options: argparse.Namespace) -> None:
    """Ask for one range after the other, in the text dialect."""
    import zmq

    from espilot.wire import payload_text as text

    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect("ipc:///tmp/zmq_" + os.environ["PILOT_EVENTRANGECHANNEL"])
    while True:
        socket.send(text.READY)
        reply = socket.recv()
        if reply == text.NO_MORE:
            return
        range_id = text.parse_reply(reply)["eventRangeID"]
        path = f"{os.environ['ESPILOT_OUTPUT_DIR']}/output.{range_id}"
        make(path, range_id, options.how, options.delay_ms / 1000)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=("ask", "read"))
    parser.add_argument("--file", type=Path)
    parser.add_argument("--how", choices=("rename", "direct"), default="rename")
    delay_ms = int(os.environ.get("FILE_PAYLOAD_DELAY_MS", "0"))
    parser.add_argument("--delay-ms", type=int, default=delay_ms)
    parser.add_argument("--clients", type=int, default=1)
    options = parser.parse_args()
    if options.way == "ask":
        raise SystemExit(run_processes(lambda index: ask(options), options.clients))
    for line in options.file.read_text().splitlines():
        entry = json.loads(line)
        for path in entry["outputs"]:
            make(path, entry["eventRangeID"], options.how, options.delay_ms / 1000)


if __name__ == "__main__":
    main()
