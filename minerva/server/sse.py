"""Server-sent events: one write for everything that has arrived, little work per token."""

from __future__ import annotations

import asyncio
import json
import re
from types import TracebackType

import msgspec
from aiohttp import hdrs, web

PING = b": ping\n\n"
PING_AFTER_S = 15.0
"""Seconds of silence after which a comment keeps proxies and clients from giving up."""

HEADERS = {
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-cache",
    "X-Accel-Buffering": "no",
}

_encode = msgspec.json.Encoder().encode
_UNICODE_NEWLINES = re.compile("[\x85\u2028\u2029]")


def json_string(text: str) -> bytes:
    """`text` as a JSON string that holds no character any client's line splitting could trip over."""
    if not text.isascii() and _UNICODE_NEWLINES.search(text):
        return json.dumps(text).encode()
    return _encode(text)


def event(payload: object) -> bytes:
    return b"data: " + _encode(payload) + b"\n\n"


class _Response(web.StreamResponse):
    _send_headers_immediately = False  # they go with the first event, in one packet


class EventStream:
    """An SSE response. Headers leave with the first write; pings come only after it.

    aiohttp holds a write back while the client does not read, so a slow client costs its own queue alone.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._response = _Response(headers=HEADERS)
        self._last_write = 0.0
        self._pings: asyncio.Task[None] | None = None

    async def __aenter__(self) -> EventStream:
        await self._response.prepare(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pings is not None:
            self._pings.cancel()

    async def write(self, data: bytes) -> None:
        if not data:
            return
        if self._pings is None:
            self._pings = self._loop.create_task(self._keep_alive())
        self._last_write = self._loop.time()
        await self._response.write(data)

    async def end(self, data: bytes) -> web.StreamResponse:
        await self._response.write_eof(data)
        return self._response

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._last_write + PING_AFTER_S - self._loop.time())
            if self._loop.time() - self._last_write >= PING_AFTER_S:
                await self.write(PING)
