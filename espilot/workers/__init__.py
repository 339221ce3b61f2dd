"""The worker processes: each module wires one role from pipeline, adapters and queue."""
