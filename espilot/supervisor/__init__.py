"""Processes: start, watch, stop, restart."""
