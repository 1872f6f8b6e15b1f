"""aiohttp's connection handler with Minerva's limits and error shape, and the runner that uses it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from aiohttp import http_exceptions, web
from aiohttp.typedefs import Handler

from minerva.errors import HeadersTooLargeError, MinervaError, OverloadedError, RequestError
from minerva.server.error_responses import error_response
from minerva.server.state import SETTINGS

LOGGER = logging.getLogger("minerva.server")

HANDLER_OPTIONS: dict[str, Any] = {
    "handler_cancellation": True,  # a client that goes away cancels its handler, and so its generation
    "access_log": None,
    "max_line_size": 8190,
    "max_field_size": 16384,
    "keepalive_timeout": 75.0,
    "lingering_time": 2.0,
}


class Protocol(web.RequestHandler):
    """One connection. `crowded`: it came when `max_connections` were open; its first request gets 429."""

    __slots__ = ("crowded",)

    crowded: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = cast(Server, self._manager)
        open_connections = len(server.connections)
        self.crowded = open_connections >= server.max_connections
        super().connection_made(transport)
        if open_connections >= 2 * server.max_connections:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What cannot be read as HTTP never reaches a middleware. The offending bytes are not echoed."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun; the connection can only be closed")
        error: MinervaError
        if isinstance(exc, http_exceptions.LineTooLong) or "Too many headers" in str(exc):
            error = HeadersTooLargeError("The request line or a header is too long, or there are too many headers.")
        elif isinstance(exc, http_exceptions.HttpProcessingError):
            error = RequestError(f"Not a valid HTTP request ({type(exc).__name__}).")
        else:
            LOGGER.error("connection failed", exc_info=exc)
            error = MinervaError("Internal error.")
        response = error_response("/", error)
        response.force_close()
        return response


class Server(web.Server):
    """Makes a `Protocol` per connection."""

    def __init__(self, base: web.Server, max_connections: int) -> None:
        super().__init__(base.request_handler, request_factory=base.request_factory, **HANDLER_OPTIONS)
        self.max_connections = max_connections

    def __call__(self) -> web.RequestHandler:
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """The AppRunner to serve an app of `create_app` with."""

    def __init__(self, app: web.Application, *, shutdown_timeout: float = 5.0) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=shutdown_timeout)

    async def _make_server(self) -> web.Server:
        return Server(await super()._make_server(), self.app[SETTINGS].max_connections)


@web.middleware
async def refuse_crowd(request: web.Request, handler: Handler) -> web.StreamResponse:
    if getattr(request.protocol, "crowded", False):
        limit = request.app[SETTINGS].max_connections
        raise OverloadedError(f"Too many connections: the server keeps {limit} open.", retry_after=1)
    return await handler(request)
