"""From settings to a served model, and to an orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from minerva.config import Settings
from minerva.models.catalogue import Catalogue, CatalogueEntry
from minerva.observability import logging as log_lines
from minerva.server.app import create_app
from minerva.server.banner import Banner
from minerva.server.draining import drained
from minerva.server.listening import allow_connections, listen, url_of
from minerva.server.protocol import Runner
from minerva.server.state import DRAINING

if TYPE_CHECKING:
    from minerva.models.residency import Residency

WORKER_GRACE_S = 5.0
"""What a worker without requests gets to end by itself."""

CLOSING_GRACE_S = 1.0
"""What connections that outlived the grace period get to end."""

LOGGER = logging.getLogger("minerva.lifecycle")


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises MinervaError when it cannot start, ConfigError when that is by settings."""
    log_lines.configure(settings.log_level, as_json=settings.log_json, secrets=settings.api_key)
    settings.check_bind()
    catalogue = Catalogue.of(settings)
    entry = catalogue.default()
    allow_connections(settings.max_connections)
    sockets = listen(settings.host, settings.port)
    banner = Banner(url_of(sockets[0]), needs_key=bool(settings.api_key_digests()), models_dir=settings.models_dir)
    banner.loading(entry)
    for reason in catalogue.rejected.values():
        banner.skipped(reason)

    from minerva.models.residency import Residency

    asyncio.run(run(settings, catalogue, Residency(catalogue, settings), sockets, banner))


async def run(
    settings: Settings, catalogue: Catalogue, residency: Residency, sockets: list[socket.socket], banner: Banner
) -> None:
    """The server answers from the start, with 503 until the model is loaded. A model that cannot be is raised."""
    app = create_app(settings, catalogue, residency)
    runner = Runner(app, shutdown_timeout=CLOSING_GRACE_S)
    await runner.setup()
    sites = [web.SockSite(runner, bound) for bound in sockets]
    with stop_signals() as stop:
        try:
            for site in sites:
                await site.start()
            await _until(stop, _load(residency, catalogue.default(), banner))
            await stop.wait()
            banner.stopping(app[DRAINING].running, settings.grace_s)
            for site in sites:
                await site.stop()
            if not await drained(app, settings.grace_s):
                LOGGER.warning("%d requests were cut off after %g s", app[DRAINING].running, settings.grace_s)
        finally:
            await runner.cleanup()
            await residency.stop(WORKER_GRACE_S)


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set. The second of them ends the process at once."""
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _load(residency: Residency, entry: CatalogueEntry, banner: Banner) -> None:
    worker = await residency.preload()
    banner.ready(entry, await worker.ready())


async def _until(stop: asyncio.Event, coroutine: Coroutine[Any, Any, None]) -> None:
    """Do the work, or give it up when the server is to stop first. What it raises is raised."""
    work, stopped = asyncio.create_task(coroutine), asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if work.done():
        work.result()
    else:
        work.cancel()
        await asyncio.wait({work})
