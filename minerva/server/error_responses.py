"""Every failure becomes the error shape of the dialect that the path belongs to."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from minerva import errors
from minerva.errors import MinervaError, RequestError
from minerva.server.openai.errors import openai_error
from minerva.server.state import ERROR_CODE, REQUEST_ID

LOGGER = logging.getLogger("minerva.server")

Shape: TypeAlias = Callable[[MinervaError], dict[str, Any]]

SHAPES: tuple[tuple[str, Shape], ...] = (("/", openai_error),)
"""Path prefix → shape; the first that fits."""

CLOSING = (
    errors.BodyTooLargeError,
    errors.TimeoutReadingError,
    errors.HeadersTooLargeError,
    errors.OverloadedError,
    errors.ShuttingDownError,
)
"""After these the connection is closed: what follows on it is unread, or unwanted."""


def error_response(path: str, error: MinervaError, status: int | None = None) -> web.Response:
    shape = next(shape for prefix, shape in SHAPES if path.startswith(prefix))
    response = web.Response(
        status=status or error.status, body=msgspec.json.encode(shape(error)), content_type="application/json"
    )
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, CLOSING):
        response.force_close()
    return response


@web.middleware
async def render_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Nothing of an unforeseen exception reaches the client; the log has it, under the request's id."""
    try:
        return await handler(request)
    except MinervaError as error:
        response = error_response(request.path, error)
        code = error.code
    except web.HTTPException as raised:
        failure = _of_http(request, raised)
        response = error_response(request.path, failure, raised.status)
        if isinstance(raised, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = raised.headers["Allow"]
        code = failure.code
    except Exception as unforeseen:
        if isinstance(unforeseen, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            raise  # the client is gone
        LOGGER.exception("request %s failed", request[REQUEST_ID])
        response = error_response(request.path, internal(request))
        code = MinervaError.code
    request[ERROR_CODE] = code
    return response


def internal(request: web.Request) -> MinervaError:
    return MinervaError(f"Internal error. The server's log has the details under request {request[REQUEST_ID]}.")


def _of_http(request: web.Request, raised: web.HTTPException) -> MinervaError:
    if isinstance(raised, web.HTTPNotFound):
        return errors.RouteNotFoundError(f"Unknown route: {request.method} {request.path}")
    if isinstance(raised, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(raised.allowed_methods))
        return errors.MethodNotAllowedError(f"{request.path} does not take {request.method}, but {allowed}")
    return RequestError(raised.reason) if raised.status < 500 else MinervaError(raised.reason)
