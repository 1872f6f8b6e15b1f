"""Cross-origin requests: pages on this machine and configured origins; never with credentials."""

from __future__ import annotations

import re

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from minerva.errors import ForbiddenError

LOCAL_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
EXPOSED = "x-request-id, retry-after"
MAX_AGE_S = "600"


class Origins:
    """Which origins may read answers: local ones, the server's own, and those of `cors_origins` (`*` is any)."""

    def __init__(self, cors_origins: list[str]) -> None:
        self._any = "*" in cors_origins
        self._listed = frozenset(origin.rstrip("/").lower() for origin in cors_origins)

    def allow(self, request: web.Request, origin: str) -> bool:
        own = f"{request.scheme}://{request.headers.get('Host', '')}"
        return (
            self._any
            or origin.lower() in self._listed
            or origin.lower() == own.lower()
            or LOCAL_ORIGIN.fullmatch(origin) is not None
        )

    def guard(self) -> Middleware:
        """Refuses foreign origins before anything runs for them, and answers preflights."""

        @web.middleware
        async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
            origin = request.headers.get("Origin")
            if origin is None:
                return await handler(request)
            if not self.allow(request, origin):
                raise ForbiddenError(f"Origin {origin!r} is not allowed. To allow it, add it to cors_origins.")
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                return web.Response(status=204, headers=_preflight(request))
            return await handler(request)

        return check_origin

    async def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """The `on_response_prepare` signal: the headers that let an allowed page read the answer."""
        origin = request.headers.get("Origin")
        if origin is not None and self.allow(request, origin):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
            response.headers["Vary"] = "Origin"


def _preflight(request: web.Request) -> dict[str, str]:
    headers = {"Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS", "Access-Control-Max-Age": MAX_AGE_S}
    asked = request.headers.get("Access-Control-Request-Headers")
    if asked is not None:
        headers["Access-Control-Allow-Headers"] = asked
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers
