"""LMDB's errors in our words."""

from __future__ import annotations

import lmdb

from espilot.errors import QueueError


def queue_error(error: lmdb.Error) -> QueueError:
    """LMDB's error in our words, with the remedy."""
    if isinstance(error, lmdb.MapFullError):
        return QueueError("the queue's map is full: lower [limits] live_ranges")
    # A disk that fills up in the middle of a page shows as an input/output error.
    if isinstance(error, lmdb.DiskError) or "Input/output error" in str(error):
        return QueueError(f"the queue cannot be written, is the disk full? ({error})")
    if isinstance(error, lmdb.ReadersFullError):
        return QueueError("all reader slots of the queue are taken by dead processes")
    return QueueError(f"the queue failed: {error}")
