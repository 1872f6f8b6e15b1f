"""What operators and load balancers ask: is it alive, may it get traffic, what is it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from minerva import __version__
from minerva.errors import MinervaError
from minerva.server.json_response import json_response
from minerva.server.state import CATALOGUE, DRAINING, RESIDENCY

if TYPE_CHECKING:
    from minerva.worker.client import Worker


async def health(request: web.Request) -> web.Response:
    """200 while the process lives; 503 while the default model loads, as llama-server answers."""
    worker = _default_worker(request.app)
    if worker is not None and worker.state == "loading":
        return json_response({"status": "loading", "progress": round(worker.progress, 3)}, status=503)
    return json_response({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """200 when a request would be taken and started now."""
    if request.app[DRAINING].begun:
        return json_response({"status": "shutting down"}, status=503)
    worker = _default_worker(request.app)
    state = "not loaded" if worker is None else worker.state
    return json_response({"status": state}, status=200 if state == "ready" else 503)


async def index(request: web.Request) -> web.Response:
    return web.Response(text=f"Minerva {__version__} is running.\nIts models: {request.url.origin()}/v1/models\n")


def _default_worker(app: web.Application) -> Worker | None:
    """The worker of the default model; when another model took its place in memory, that one's."""
    resident = app[RESIDENCY].resident()
    try:
        default = app[CATALOGUE].default().id
    except MinervaError:
        default = None
    workers = {entry.id: worker for entry, worker in resident}
    return workers.get(default or "") or next(iter(workers.values()), None)
