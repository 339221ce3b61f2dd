"""The shared-memory queue: the only owner of lmdb."""
