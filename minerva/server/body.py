"""Reading a JSON body: bounded in size and time, decoded strictly, checked against a schema."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import pydantic
import pydantic_core
from aiohttp import web

from minerva.errors import BodyTooLargeError, RequestError, TimeoutReadingError
from minerva.server.state import SETTINGS
from minerva.server.validation import invalid

IDLE_S = 30.0
"""Seconds without a byte of the body until 408."""

TOTAL_S = 300.0
"""Seconds for the whole body until 408."""

Schema = TypeVar("Schema", bound=pydantic.BaseModel)


async def read_body(request: web.Request, schema: type[Schema]) -> Schema:
    return parse(await _read(request), schema)


def parse(body: bytes, schema: type[Schema]) -> Schema:
    """JSON nested deeper than 200, invalid UTF-8, lone surrogates and NaN are not JSON here."""
    try:
        document = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError(f"The body is not valid JSON: {error}") from None
    try:
        return schema.model_validate(document)
    except pydantic.ValidationError as error:
        raise invalid(error, document) from None


async def _read(request: web.Request) -> bytes:
    limit = request.app[SETTINGS].max_body_mb * 1024 * 1024
    if (request.content_length or 0) > limit:
        raise _too_large(request)
    try:
        return await asyncio.wait_for(_collect(request, limit), TOTAL_S)
    except asyncio.TimeoutError:
        raise TimeoutReadingError("The body did not arrive in time.") from None
    except web.RequestPayloadError as error:
        raise RequestError(f"The body is broken: {type(error.__cause__ or error).__name__}") from None


async def _collect(request: web.Request, limit: float) -> bytes:
    body = bytearray()
    while not request.content.at_eof():
        body += await asyncio.wait_for(request.content.readany(), IDLE_S)
        if len(body) > limit:
            raise _too_large(request)
    return bytes(body)


def _too_large(request: web.Request) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than {request.app[SETTINGS].max_body_mb} MB (max_body_mb).")
