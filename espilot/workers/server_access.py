"""How this pilot reaches its event server: address, patience, credentials, dialect; and how much
is said in one call.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from espilot.adapters.harvester import HarvesterServer
from espilot.adapters.http import (
    Connection,
    Credentials,
    DialectChoice,
    PandaServer,
    Patience,
    find_credentials,
)
from espilot.config import ServerConfig
from espilot.core.prefetch import LARGEST_REQUEST
from espilot.ports import EventServer
from espilot.wire.panda_v1 import Pilot
from espilot.workers.access_point import access_point
from espilot.workers.beside_harvester import open_access_point
from espilot.workers.context import Context

PROXY_CREDENTIAL, TOKEN_CREDENTIAL = "x509up", "panda.token"
"""Names of the credentials in the drop-in that we ship."""


class ServerAccess:
    """Opens connections that share what was found out about the server."""

    def __init__(self, context: Context) -> None:
        server = context.settings.server
        self._url = context.server_url
        self._patience = Patience(server.timeout_s, server.connect_timeout_s)
        self._pilot = describe_pilot(context)
        self._choice = DialectChoice(server.dialect)
        self.credentials = find_credentials(given_credentials(server, os.environ), os.environ)
        self._harvester = _open_harvester(context)
        harvester = context.settings.harvester if self._harvester is not None else None
        self.poll_s = harvester.poll_s if harvester else server.retry_min_s
        self.heartbeat_s = harvester.heartbeat_s if harvester else server.heartbeat_s
        self.report_max_ranges = (
            harvester.report_max_ranges if harvester else server.report_max_ranges
        )
        self.request_max_ranges = harvester.request_max_ranges if harvester else LARGEST_REQUEST

    @property
    def shows_credentials(self) -> bool:
        """Whether a server that asks for them is talked to."""
        return self._harvester is None and self._url.startswith("https:")

    def hurry(self, call_s: float) -> None:
        """From now on no call of a new connection takes longer."""
        former = self._patience
        self._patience = Patience(
            min(former.timeout_s, call_s), min(former.connect_timeout_s, call_s)
        )

    def open(self) -> EventServer:
        """A connection of its own, for one thread at a time; to a directory all share one."""
        if self._harvester is not None:
            return self._harvester
        connection = Connection(self._url, patience=self._patience, credentials=self.credentials)
        return PandaServer(connection, pilot=self._pilot, choice=self._choice)


def describe_pilot(context: Context) -> Pilot:
    """Who we are to the server, and which jobs we want."""
    server, known = context.settings.server, context.settings.identity
    return Pilot(
        server.site,
        known.node or socket.gethostname(),
        context.task_id,
        server.label,
        wanted={
            "resource_type": server.resource_type,
            "job_type": server.job_type,
            "scheduler_id": known.scheduler_id,
            "harvester_id": known.harvester_id,
            "worker_id": known.worker_id,
        },
        known_as={
            "scheduler_id": known.scheduler_id,
            "pilot_id": known.pilot_id,
            "batch_id": known.batch_id,
        },
    )


def _open_harvester(context: Context) -> HarvesterServer | None:
    if access_point(context.server_url) is None:
        return None
    return open_access_point(
        context.settings,
        context.server_url,
        storage=context.storage,
        state=context.state,
        archives=context.archives,
    )


def given_credentials(server: ServerConfig, environ: Mapping[str, str]) -> Credentials:
    """What the settings name, else what the service manager gave us (LoadCredential)."""
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    loaded = {
        name: Path(directory, name)
        for name in (PROXY_CREDENTIAL, TOKEN_CREDENTIAL)
        if directory and Path(directory, name).is_file()
    }
    return Credentials(
        proxy=Path(server.x509_proxy) if server.x509_proxy else loaded.get(PROXY_CREDENTIAL),
        token=Path(server.token_file) if server.token_file else loaded.get(TOKEN_CREDENTIAL),
        origin=server.token_origin,
        ca=Path(server.ca) if server.ca else None,
    )
