"""GET /metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from minerva.errors import MinervaError
from minerva.observability.metrics import CONTENT_TYPE, EngineSample
from minerva.server.state import METRICS, RESIDENCY

if TYPE_CHECKING:
    from minerva.worker.client import Worker

PATIENCE_S = 2.0
"""Seconds for a worker to answer; a hung one is listed without figures."""


async def metrics(request: web.Request) -> web.Response:
    samples = await asyncio.gather(*(_sample(entry.id, worker) for entry, worker in request.app[RESIDENCY].resident()))
    return web.Response(body=request.app[METRICS].page(samples), headers={"Content-Type": CONTENT_TYPE})


async def _sample(model: str, worker: Worker) -> EngineSample:
    known = EngineSample(model, worker.state, worker.restarts)
    if worker.state != "ready":
        return known
    try:
        pong = await asyncio.wait_for(worker.stats(), PATIENCE_S)
    except (MinervaError, asyncio.TimeoutError):
        return known
    return EngineSample(model, worker.state, worker.restarts, pong.running, pong.waiting, pong.counters, pong.gauges)
