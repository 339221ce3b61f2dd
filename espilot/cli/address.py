"""Where something listens, as an object for programs."""

from __future__ import annotations

from typing import Any

SCHEMA = "espilot.address/1"


def address_document(url: str, **more: Any) -> dict[str, Any]:
    """The address of a page or a server, and what else is to be told of it."""
    return {"schema": SCHEMA, "url": url, **more}
