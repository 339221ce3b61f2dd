"""espilot: a pilot for the event service."""

__version__ = "0.1.0"
