"""One running request as the gateway holds it: an async iterator of events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from minerva.engine.messages import Delta, Event, Failed, Finished, Started
from minerva.errors import MinervaError


class Generation:
    """Yields `Started`, `Delta`s and `Finished`; raises what the request failed with. Use it as a context manager:
    leaving it before the end cancels the request.
    """

    def __init__(self, id: int, cancel: Callable[[int], None]) -> None:
        self.id = id
        self._cancel = cancel
        self._events: deque[Started | Delta | Finished] = deque()
        self._error: MinervaError | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Started | Delta | Finished:
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    def take(self) -> list[Started | Delta | Finished]:
        """What has arrived already, without waiting."""
        events = list(self._events)
        self._events.clear()
        return events

    def cancel(self) -> None:
        """Stops the request within one step. Does nothing when it has ended."""
        if not self._ended:
            self._ended = True
            self._cancel(self.id)
            self._wake()

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def put(self, event: Event) -> None:
        """Called by the worker's handle as events arrive."""
        if self._ended:
            return
        if isinstance(event, Failed):
            self.fail(event.exception())
            return
        self._events.append(event)
        if isinstance(event, Finished):
            self._ended = True
        self._wake()

    def fail(self, error: MinervaError) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
