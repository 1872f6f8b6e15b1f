"""Whether the load generator itself kept up.

A client that is not scheduled stamps chunks late and all at once, which looks exactly like a server
that stalls. On a busy machine that happens for most of a second, so every run carries its worst lag.
"""

import asyncio
import time
from types import TracebackType

TOLERATED_S = 0.05
PERIOD_S = 0.005


class LagWatch:
    """`async with LagWatch() as w:` w.worst is the longest the event loop came late, in seconds."""

    worst = 0.0

    async def __aenter__(self) -> "LagWatch":
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, _: TracebackType | None
    ) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(PERIOD_S)
            self.worst = max(self.worst, time.perf_counter() - before - PERIOD_S)
