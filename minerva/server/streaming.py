"""Running generations, by their sources → one SSE response, for every dialect that streams events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from aiohttp import web

from minerva.errors import MinervaError
from minerva.server.error_responses import internal
from minerva.server.generations import together
from minerva.server.sse import EventStream
from minerva.server.state import ERROR_CODE, REQUEST_ID
from minerva.server.transcript import Output, Source

LOGGER = logging.getLogger("minerva.server")


class Encoder(Protocol):
    """Turns one generation's events into a dialect's server-sent events, framed."""

    def encode(self, batch: list[Output]) -> bytes: ...


async def send_events(
    request: web.Request,
    sources: Sequence[Source],
    encoders: Sequence[Encoder],
    *,
    ending: Callable[[], bytes],
    failure: Callable[[MinervaError], bytes],
) -> web.StreamResponse:
    """Nothing is sent before the first event, so what fails by then still has its own status.

    A later failure becomes the dialect's error event, which ends the stream.
    """
    first = await sources[0].__anext__()
    async with EventStream(request) as stream:
        try:
            await stream.write(encoders[0].encode(first))
            await together([_pump(stream, *pair) for pair in zip(sources, encoders, strict=True)])
            last = ending()
        except MinervaError as error:
            request[ERROR_CODE] = error.code
            last = failure(error)
        except ConnectionError:
            raise  # the client is gone
        except Exception:
            LOGGER.exception("request %s failed while streaming", request[REQUEST_ID])
            request[ERROR_CODE] = MinervaError.code
            last = failure(internal(request))
        return await stream.end(last)


async def _pump(stream: EventStream, source: Source, encoder: Encoder) -> None:
    async for batch in source:
        await stream.write(encoder.encode(batch))
