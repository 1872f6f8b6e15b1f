"""A server that ends takes nothing new and lets what runs finish."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from minerva.server.draining import drained
from minerva.server.state import DRAINING, RESIDENCY


async def test_new_requests_are_refused_and_running_ones_finish(serve: Any, monkeypatch: Any) -> None:
    async with serve() as app, aiohttp.ClientSession(app.url) as http:
        entered, release = asyncio.Event(), asyncio.Event()

        class Slow:
            async def __aenter__(self) -> None:
                entered.set()
                await release.wait()
                raise ZeroDivisionError

            async def __aexit__(self, *error: object) -> None: ...

        monkeypatch.setattr(app.app[RESIDENCY], "lease", lambda model: Slow())
        running = asyncio.ensure_future(http.post("/v1/completions", json={"prompt": "x"}).__aenter__())
        await entered.wait()
        assert not await drained(app.app, 0.05)
        async with http.post("/v1/completions", json={"prompt": "x"}) as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "5"
            assert response.headers["Connection"] == "close"
            assert (await response.json())["error"]["code"] == "shutting_down"
        async with http.get("/ready") as response:
            assert response.status == 503
        async with http.get("/health") as response:
            assert response.status == 200
        release.set()
        assert await drained(app.app, 5)
        assert (await running).status == 500
        assert app.app[DRAINING].running == 0
