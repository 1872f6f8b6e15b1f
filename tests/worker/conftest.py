"""Workers on the embedded model: real child processes, stopped at the end of each test."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import psutil
import pytest

from minerva.engine.options import EngineOptions
from minerva.models.catalogue import EMBEDDED
from minerva.worker import client
from minerva.worker.client import Worker

OPTIONS = EngineOptions(
    model=str(EMBEDDED), ctx_size=512, kv_size=1024, parallel=4, threads=1, gpu_layers=0, check_integrity=True
)


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[Worker]]]:
    """`await start(option=…)`: a worker on the embedded model, not waited for."""
    workers: list[Worker] = []

    async def begin(**options: Any) -> Worker:
        worker = Worker(msgspec.structs.replace(OPTIONS, **options), name="tiny")
        workers.append(worker)
        await worker.start()
        return worker

    yield begin
    for worker in workers:
        await worker.stop(2)


@pytest.fixture
def fast_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_S", (0.01, 0.02, 0.03))


async def until(holds: Callable[[], bool], within_s: float = 30) -> None:
    async def poll() -> None:
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), within_s)


async def kill(worker: Worker) -> int:
    """Kills the process of a worker once it has one, as the system would; gives its id."""
    await until(lambda: worker.pid is not None and psutil.pid_exists(worker.pid))
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid
