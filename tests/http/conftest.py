"""One real server with the embedded model for the whole run, and bare apps for what comes before any model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from served import App, Server, serving

from minerva.config import Settings
from minerva.models.catalogue import Catalogue
from minerva.models.residency import Residency
from minerva.server.app import create_app
from minerva.server.protocol import Runner


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), "--parallel", "4", "--ctx-size", "2048") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def model(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


@pytest.fixture
async def http(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(server.url, timeout=timeout) as session:
        yield session


@pytest.fixture
def gauge(http: aiohttp.ClientSession) -> Callable[[str], Any]:
    """Reads one metric, over all models."""

    async def read(name: str) -> float:
        async with http.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))

    return read


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[App]]:
    """`async with serve(api_key=["k"]) as app`: a gateway with these settings, in this process, no model loaded."""

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[App]:
        chosen = Settings(models_dir=tmp_path, **settings)
        catalogue = Catalogue.of(chosen)
        residency = Residency(catalogue, chosen)
        app = create_app(chosen, catalogue, residency)
        runner = Runner(app, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield App(f"http://127.0.0.1:{runner.addresses[0][1]}", app)
        finally:
            await runner.cleanup()
            await residency.stop(0)

    return start
