"""Until when the credentials are good: told with the worker's figures, looked at again soon, since
a site renews them in place."""

from __future__ import annotations

import time

from espilot.adapters.http import Credentials
from espilot.workers.child import Child

LOOK_S = 10.0


class CredentialWatch:
    """Keeps the facts `credentials` (Unix time by kind) and `credential_ends` up to date.

    The latter is the end of the credential that the server is shown: the token, else the proxy;
    None where it does not say, is over already, or is not needed there.
    """

    def __init__(self, child: Child, credentials: Credentials, *, needed: bool) -> None:
        self._facts = child.facts
        self._credentials = credentials
        self._needed = needed
        self._stamp: object = None
        self._look()
        child.loop.every(LOOK_S, self._look)

    def _look(self) -> None:
        stamp = self._credentials.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        expiries = self._credentials.expiries()
        self._facts["credentials"] = expiries
        at_unix = expiries.get("proxy" if self._credentials.token is None else "token", 0.0)
        # Of one that is over already the server speaks for itself.
        is_deadline = self._needed and at_unix > time.time()
        self._facts["credential_ends"] = at_unix if is_deadline else None
