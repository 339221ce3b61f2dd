"""A payload for protocol tests: it speaks both dialects and does wrong what it is told to."""
