"""The gateway's end of a worker's socket: frames in, frames out, on the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from minerva.worker import protocol as p

log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """Calls `on_frame` for each frame and `on_lost` once, when the socket has ended or is out of step."""

    def __init__(self, on_frame: Callable[[p.ToGateway], None], on_lost: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._buffer += data
        try:
            self._take_frames()
        except Exception:  # whatever it was, the stream cannot be trusted after it
            log.exception("a worker's frame cannot be read")
            self._transport.abort()

    def _take_frames(self) -> None:
        buffer, start = self._buffer, 0
        while len(buffer) - start >= p.HEADER.size:
            (size,) = p.HEADER.unpack_from(buffer, start)
            if size > p.MAX_FRAME:
                raise ValueError(f"a frame of {size} bytes")
            end = start + p.HEADER.size + size
            if len(buffer) < end:
                break
            frame = p.to_gateway.decode(memoryview(buffer)[start + p.HEADER.size : end])
            start = end
            self._on_frame(frame)
        if start:
            del buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()

    def send(self, frame: p.Frame) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(p.encode(frame))

    def close(self) -> None:
        """At once: what a worker has not read by now it never will."""
        if self._transport is not None:
            self._transport.abort()
