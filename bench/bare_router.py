"""The yardstick: the simplest quick ROUTER, which knows nothing and stores nothing.

`python -m bench.bare_router CHANNEL RANGES`: answers the same range to each request, *no more*
after so many; ignores outputs but for counting them. It says when it is bound, and at the end the
times of the first and the last output.

The range is a constant but for its id: the clients name their outputs after it, and one file that
is written again and again is other work than a new file each time (half of it for one client,
twice as much for 64 that wait for each other). The replies are made beforehand.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import zmq

from bench.children import say

READY = b"Ready for events"
NO_MORE = b"No more events"
RANGE = (
    b'[{"eventRangeID": "7001-11-301-%d-1", "LFN": "EVNT.1._000001.pool.root.1", "GUID": '
    b'"6b5e0f1c-0000-4000-8000-0123456789ab", "scope": "bench", "startEvent": 4, "lastEvent": 4, '
    b'"PFN": "/data/EVNT.1._000001.pool.root.1"}]'
)


def serve(socket: zmq.Socket[bytes], ranges: int) -> tuple[float, float]:
    """Serve until all outputs came; when the first and the last one came (monotonic)."""
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    receive, send, clock = socket.recv_multipart, socket.send_multipart, time.monotonic
    replies = [RANGE % k for k in range(1, ranges + 1)]
    outputs, first = 0, 0.0
    while outputs < ranges:
        poller.poll()
        try:
            while True:
                identity, message = receive(zmq.NOBLOCK)
                if message != READY:
                    outputs += 1
                    first = first or clock()
                elif replies:
                    send((identity, replies.pop()))
                else:
                    send((identity, NO_MORE))
        except zmq.Again:
            continue
    return first, clock()


def refuse_rest(socket: zmq.Socket[bytes]) -> None:
    """Answer *no more* to who still asks, until our stdin ends."""
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    while True:
        sources = dict(poller.poll())
        if sys.stdin.fileno() in sources:
            return
        identity, message = socket.recv_multipart()
        if message == READY:
            socket.send_multipart((identity, NO_MORE))


def main(channel: str, ranges: int) -> None:
    """Bind, serve, say."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.RCVHWM, 0)
    path = Path(f"/tmp/zmq_{channel}")
    socket.bind(f"ipc://{path}")
    say(state="bound")
    first, last = serve(socket, ranges)
    say(first=first, last=last, ranges=ranges)
    refuse_rest(socket)
    socket.close(linger=0)
    context.term()
    path.unlink()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
