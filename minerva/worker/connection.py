"""The gateway's end of a worker's socket: frames in, frames out, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from minerva.worker import protocol as p


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
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= p.HEADER.size:
            (size,) = p.HEADER.unpack_from(buffer, start)
            if size > p.MAX_FRAME:
                self.close()
                return
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
        if self._transport is not None:
            self._transport.close()
