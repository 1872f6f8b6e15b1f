"""A graceful end: new requests are refused, running ones are waited for."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler

from minerva.errors import ShuttingDownError
from minerva.server.state import DRAINING, OPEN_PATHS

RETRY_AFTER_S = 5.0


class Draining:
    """Counts running requests; once begun, it stays."""

    def __init__(self) -> None:
        self.begun = False
        self.running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self) -> None:
        self.begun = True

    def enter(self) -> None:
        if self.begun:
            raise ShuttingDownError("The server is shutting down; it takes no new requests.", retry_after=RETRY_AFTER_S)
        self.running += 1
        self._idle.clear()

    def leave(self) -> None:
        self.running -= 1
        if self.running == 0:
            self._idle.set()

    async def wait_idle(self) -> None:
        await self._idle.wait()


async def drained(app: web.Application, grace_s: float) -> bool:
    """Refuse new requests and wait for the running ones; False when `grace_s` seconds were not enough."""
    draining = app[DRAINING]
    draining.begin()
    try:
        await asyncio.wait_for(draining.wait_idle(), grace_s)
    except asyncio.TimeoutError:
        return False
    return True


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path in OPEN_PATHS:
        return await handler(request)
    draining = request.app[DRAINING]
    draining.enter()
    try:
        return await handler(request)
    finally:
        draining.leave()
