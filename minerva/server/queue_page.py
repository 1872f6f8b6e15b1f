"""GET /queue: what runs and what waits, in order, for each resident model."""

from __future__ import annotations

import msgspec
from aiohttp import web

from minerva.server.json_response import json_response
from minerva.server.state import RESIDENCY


async def queue(request: web.Request) -> web.Response:
    """Positions count from 1; running requests have 0. Times are in seconds, waits are estimates."""
    data = [
        {"model": entry.id, **msgspec.to_builtins(item)}
        for entry, worker in request.app[RESIDENCY].resident()
        if worker.state == "ready"
        for item in await worker.queue()
    ]
    return json_response({"object": "list", "data": data})
