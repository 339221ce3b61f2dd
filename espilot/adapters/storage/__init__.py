"""Storage elements, one kind per file."""
