"""How this pilot reaches its event server: address, patience, credentials, dialect."""

from __future__ import annotations

import os
from pathlib import Path

from espilot.adapters.http import (
    Connection,
    Credentials,
    DialectChoice,
    PandaServer,
    Patience,
    find_credentials,
)
from espilot.config import ServerConfig
from espilot.wire.panda_v1 import Pilot
from espilot.workers.context import Context


class ServerAccess:
    """Opens connections that share what was found out about the server."""

    def __init__(self, context: Context) -> None:
        server = context.settings.server
        self._url = context.server_url
        self._patience = Patience(server.timeout_s, server.connect_timeout_s)
        self._pilot = Pilot(server.site, "localhost", context.task_id)
        self._choice = DialectChoice(server.dialect)
        self.credentials = find_credentials(_given(server), os.environ)

    def open(self) -> PandaServer:
        """A connection of its own, for one thread at a time."""
        connection = Connection(self._url, patience=self._patience, credentials=self.credentials)
        return PandaServer(connection, pilot=self._pilot, choice=self._choice)


def _given(server: ServerConfig) -> Credentials:
    """What the settings name."""
    return Credentials(
        proxy=Path(server.x509_proxy) if server.x509_proxy else None,
        token=Path(server.token_file) if server.token_file else None,
        origin=server.token_origin,
        ca=Path(server.ca) if server.ca else None,
    )
