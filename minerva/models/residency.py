"""Which models are resident: loaded on demand, once, and never taken away from a request that uses them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minerva.errors import ShuttingDownError
from minerva.models.catalogue import Catalogue, CatalogueEntry
from minerva.worker.client import Worker

if TYPE_CHECKING:
    from minerva.config import Settings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Lease:
    """A model in use. While any lease on it is held it is not unloaded."""

    entry: CatalogueEntry
    worker: Worker


@dataclass(slots=True)
class _Resident:
    entry: CatalogueEntry
    worker: Worker
    leases: int = 0
    last_used: int = 0


class Residency:
    """At most `settings.max_models` workers; the least recently used idle one makes room for the next."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self.catalogue = catalogue
        self._settings = settings
        self._residents: dict[str, _Resident] = {}
        self._leaving: dict[asyncio.Task[None], Worker] = {}
        """Being unloaded: each keeps its place until its process is gone."""
        self._clock = 0
        self._changed = asyncio.Event()
        self._stopping = False

    @contextlib.asynccontextmanager
    async def lease(self, model_id: str | None) -> AsyncIterator[Lease]:
        """The model, ready to use; `model_id` None is the default one. Raises `ModelNotFoundError`,
        `InvalidModelError`, `ModelLoadError` or `UnavailableError`.
        """
        entry = self.catalogue.get(model_id) if model_id else self.catalogue.default()
        resident = await self._acquire(entry)
        try:
            await resident.worker.ready()
            yield Lease(resident.entry, resident.worker)
        finally:
            resident.leases -= 1
            self._notify()

    async def preload(self) -> Worker:
        """Starts the default model; does not wait for it."""
        resident = await self._acquire(self.catalogue.default())
        resident.leases -= 1
        return resident.worker

    def resident(self) -> list[tuple[CatalogueEntry, Worker]]:
        return [(r.entry, r.worker) for r in self._residents.values()]

    async def stop(self, grace_s: float) -> None:
        """Unloads every model."""
        self._stopping = True
        self._notify()
        workers = [r.worker for r in self._residents.values()] + list(self._leaving.values())
        await asyncio.gather(*(worker.stop(grace_s) for worker in workers))
        self._residents.clear()

    async def _acquire(self, entry: CatalogueEntry) -> _Resident:
        while True:
            if self._stopping:
                raise ShuttingDownError("the server is stopping", retry_after=5.0)
            resident = self._residents.get(entry.id)
            if resident is not None and resident.worker.state == "failed" and not resident.leases:
                self._unload(resident)
                resident = None
            if resident is None and len(self._residents) + len(self._leaving) < self._settings.max_models:
                resident = await self._load(entry)
            if resident is not None:
                self._clock += 1
                resident.last_used = self._clock
                resident.leases += 1
                return resident
            idle = [r for r in self._residents.values() if r.leases == 0]
            if idle and not self._leaving:
                self._unload(min(idle, key=lambda r: r.last_used))
            await self._changed.wait()

    async def _load(self, entry: CatalogueEntry) -> _Resident:
        log.info("loading %s", entry.id)
        worker = Worker(self._settings.engine_options(entry.path), name=entry.id)
        resident = self._residents[entry.id] = _Resident(entry, worker)
        await worker.start()
        return resident

    def _unload(self, resident: _Resident) -> None:
        """In a task of its own: neither a request that gives up nor one for another model has to do with it."""
        log.info("unloading %s", resident.entry.id)
        del self._residents[resident.entry.id]
        leaving = asyncio.create_task(resident.worker.stop(self._settings.grace_s), name=f"unload {resident.entry.id}")
        self._leaving[leaving] = resident.worker
        leaving.add_done_callback(self._left)

    def _left(self, leaving: asyncio.Task[None]) -> None:
        del self._leaving[leaving]
        self._notify()

    def _notify(self) -> None:
        """Wakes all who wait for a place: each looks again."""
        self._changed.set()
        self._changed = asyncio.Event()
