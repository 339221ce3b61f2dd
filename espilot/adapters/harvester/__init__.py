"""Harvester's access point as an event server."""

from espilot.adapters.harvester.access_point import HarvesterServer, Terms
from espilot.adapters.harvester.reports import Outputs

__all__ = ["HarvesterServer", "Outputs", "Terms"]
