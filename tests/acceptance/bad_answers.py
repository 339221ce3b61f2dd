"""Answers as no event server gives them, but what stands before one does."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

FUNCTIONS = {
    "getJob": "jobs", "acquire_jobs": "jobs",
    "getEventRanges": "ranges", "acquire_event_ranges": "ranges",
    "updateEventRanges": "reports", "update_event_ranges": "reports",
    "get_events_status": "reports", "get_event_range_statuses": "reports",
    "updateJob": "updates", "update_job": "updates",
}  # fmt: skip
"""The flow of the worker that makes each call."""
HOSTILE = {"jobs": 5, "eventRanges": {"a": [1]}, "Returns": 7, "Command": [1], "command": {"x": 9}}
TYPES = json.dumps({**HOSTILE, "StatusCode": 0, "success": True, "message": 1, "data": HOSTILE})
PAGE = (
    "<!DOCTYPE html>\n<html><title>Error</title><body>The service is\r\nunavailable</body></html>"
)
KINDS = ("truncated", "page", "types", "huge", "endless", "redirect")


async def spoil(
    kind: str, request: web.BaseRequest, answer: web.StreamResponse
) -> web.StreamResponse:
    """Another answer in place of this one, whose call is carried out."""
    if kind in ("huge", "endless"):
        return await _pour(request, is_huge=kind == "huge")
    if kind == "redirect":
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/login"})
    if kind == "types":
        return web.Response(text=TYPES)
    if kind == "page":
        return web.Response(text=PAGE)
    text = answer.text if isinstance(answer, web.Response) else None
    assert text
    return web.Response(text=text[: max(1, len(text) * 2 // 3)], status=answer.status)


async def _pour(request: web.BaseRequest, *, is_huge: bool) -> web.StreamResponse:
    """A gigabyte at once, or a little now and then for ever."""
    response = web.StreamResponse()
    if is_huge:
        response.content_length = 10**9
    await response.prepare(request)
    piece, pause_s = (b" " * 2**20, 0.0) if is_huge else (b" ", 0.05)
    try:
        for _ in range(950):
            await response.write(piece)
            await asyncio.sleep(pause_s)
    except ConnectionError:
        return response
    assert request.transport is not None
    request.transport.abort()
    return response
