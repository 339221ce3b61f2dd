"""The built-in event server."""
