"""API keys, as `Authorization: Bearer` or `x-api-key`, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from minerva.errors import AuthenticationError
from minerva.server.state import OPEN_PATHS, TENANT


def key_guard(digests: Collection[bytes]) -> Middleware:
    """`digests`: SHA-256 of each key; none means that no key is asked for."""

    @web.middleware
    async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        if digests and request.path not in OPEN_PATHS:
            given = _given(request)
            if given is None:
                raise AuthenticationError("An API key is needed: send it as Authorization: Bearer, or as x-api-key.")
            digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
            if not any(hmac.compare_digest(digest, known) for known in digests):
                raise AuthenticationError("The API key is not known to this server.")
            request[TENANT] = digest.hex()
        return await handler(request)

    return check_key


def _given(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("x-api-key")
