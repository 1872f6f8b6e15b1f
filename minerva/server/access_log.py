"""One log line and one count a request, and the id that ties it to the response.

Neither the prompt, nor the query, nor a key is in the line.
"""

from __future__ import annotations

import logging
import re
import time
import uuid

from aiohttp import web
from aiohttp.typedefs import Handler

from minerva.server.state import ERROR_CODE, METRICS, REQUEST_ID

LOGGER = logging.getLogger("minerva.access")
HEADER = "x-request-id"
CLIENT_CLOSED = 499
"""nginx's status for a client that went away before the answer was complete."""

_ACCEPTED = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@web.middleware
async def log_access(request: web.Request, handler: Handler) -> web.StreamResponse:
    given = request.headers.get(HEADER, "")
    request[REQUEST_ID] = given if _ACCEPTED.fullmatch(given) else f"req_{uuid.uuid4().hex}"
    started = time.perf_counter()
    status = CLIENT_CLOSED
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        seconds = time.perf_counter() - started
        resource = request.match_info.route.resource
        route = "unknown" if resource is None else resource.canonical
        request.app[METRICS].count(request.method, route, status, seconds)
        LOGGER.info(
            "%s %s %d %.1f ms %s%s",
            request.method,
            request.rel_url.raw_path,
            status,
            seconds * 1e3,
            request[REQUEST_ID],
            f" {request[ERROR_CODE]}" if ERROR_CODE in request else "",
        )


async def mark_response(request: web.Request, response: web.StreamResponse) -> None:
    """The `on_response_prepare` signal. Versions are nobody's business."""
    response.headers["Server"] = "minerva"
    if REQUEST_ID in request:
        response.headers[HEADER] = request[REQUEST_ID]
