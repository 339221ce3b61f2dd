"""The event engine in one process, behind `espilot.api`."""
