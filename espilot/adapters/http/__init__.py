"""HTTP to an event server: the client, its connection, its credentials."""

from espilot.adapters.http.client import DialectChoice, PandaServer
from espilot.adapters.http.connection import Connection, Patience
from espilot.adapters.http.credentials import Credentials, find_credentials

__all__ = [
    "Connection",
    "Credentials",
    "DialectChoice",
    "PandaServer",
    "Patience",
    "find_credentials",
]
