from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from minerva.config import Settings
from minerva.errors import MinervaError, ModelLoadError
from minerva.models.catalogue import Catalogue
from minerva.server import lifecycle, listening
from minerva.server.banner import Banner
from minerva.worker.protocol import Reply, WorkerModel

from .models.gguf_bytes import write

MODEL = WorkerModel(
    architecture="llama",
    description="llama",
    n_ctx=4096,
    n_ctx_train=4096,
    n_slots=4,
    n_cells=16384,
    n_vocab=5,
    n_params=4480,
    size=6000,
    device="CPU, 2 threads",
    gpu_layers=0,
    threads=2,
    kv_unified=True,
    template="",
    notes=["half the context, to fit into memory"],
)


class SlowResidency:
    """Stands in for a worker process: loading and tokenising take until a test says so."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.entry = catalogue.default()
        self.loaded, self.answered, self.asked = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self.stopped = False
        self.state, self.progress, self.restarts, self.model = "loading", 0.5, 0, None

    async def ready(self) -> WorkerModel:
        await self.loaded.wait()
        if self.error:
            raise self.error
        self.state = "ready"
        return MODEL

    async def tokenize(self, *_: Any, **__: Any) -> Reply:
        self.asked.set()
        await self.answered.wait()
        return Reply(1, tokens=[1, 2])

    @asynccontextmanager
    async def lease(self, model_id: str | None) -> AsyncIterator[Any]:
        yield SimpleNamespace(worker=self, entry=self.entry)

    async def preload(self) -> SlowResidency:
        return self

    def resident(self) -> list[Any]:
        return [(self.entry, self)]

    async def stop(self, grace_s: float) -> None:
        self.stopped = True


class Served:
    """A server in this process, its output, and a client."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = Settings(models_dir=folder, port=0, **settings)
        self.catalogue = Catalogue(folder, embedded=folder / "none")
        self.residency = SlowResidency(self.catalogue)
        sockets = listening.listen("127.0.0.1", 0)
        self.url = listening.url_of(sockets[0])
        banner = Banner(self.url, needs_key=False, models_dir=folder)
        residency: Any = self.residency
        self.ended = asyncio.create_task(lifecycle.run(self.settings, self.catalogue, residency, sockets, banner))
        self.client = aiohttp.ClientSession(self.url)

    async def status(self, path: str) -> int:
        async with self.client.get(path) as response:
            return response.status

    async def until(self, path: str, status: int) -> None:
        while await self.status(path) != status:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def tokenize(self) -> Any:
        async with self.client.post("/tokenize", json={"content": "a"}) as response:
            return await response.json()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    write(tmp_path / "tiny.gguf")
    server = Served(tmp_path, grace_s=0.5)
    yield server
    await server.client.close()
    if not server.ended.done():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait({server.ended})


async def test_answers_while_the_model_loads(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    await served.until("/health", 503)
    assert "ready" not in capsys.readouterr().out
    served.residency.loaded.set()
    await served.until("/ready", 200)
    out = capsys.readouterr().out
    assert out.endswith("ready\n")
    for text in ("tiny (Q4_K_M, 4.48K parameters)", "CPU, 2 threads", "4,096 tokens × 4 slots", "note     half the"):
        assert text in out
    assert re.search(rf"curl {served.url}/v1/chat/completions .*\n", out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_running_requests_finish(served: Served, number: signal.Signals) -> None:
    served.residency.loaded.set()
    await served.until("/ready", 200)
    running = asyncio.create_task(served.tokenize())
    await served.residency.asked.wait()
    os.kill(os.getpid(), number)
    await asyncio.sleep(0.1)
    assert not served.ended.done()
    with pytest.raises(aiohttp.ClientConnectorError):
        await aiohttp.ClientSession(served.url).get("/health")
    served.residency.answered.set()
    assert (await running)["tokens"] == [1, 2]
    await asyncio.wait_for(served.ended, 5)
    assert served.residency.stopped


async def test_the_grace_period_ends(served: Served) -> None:
    served.residency.loaded.set()
    await served.until("/ready", 200)
    running = asyncio.create_task(served.tokenize())
    await served.residency.asked.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(served.ended, 5)
    with pytest.raises(aiohttp.ClientError):
        await running


async def test_the_second_signal_ends_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    served.residency.loaded.set()
    await served.until("/ready", 200)
    running = asyncio.create_task(served.tokenize())
    await served.residency.asked.wait()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
    assert ended == [130]
    served.residency.answered.set()
    await running


async def test_a_signal_while_the_model_loads(served: Served) -> None:
    await served.until("/health", 503)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(served.ended, 5)
    assert served.residency.stopped


async def test_a_model_that_cannot_be_loaded_is_the_reason_to_end(served: Served) -> None:
    served.residency.error = ModelLoadError("out of memory")
    served.residency.loaded.set()
    with pytest.raises(ModelLoadError, match="out of memory"):
        await served.ended
    assert served.residency.stopped


def test_port_in_use() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(MinervaError, match=f"port {port} is in use by another program: stop it or pass --port"):
            listening.listen("127.0.0.1", port)


def test_addresses_that_cannot_be_had() -> None:
    with pytest.raises(MinervaError, match=r"192\.0\.2\.1 is not an address of this machine"):
        listening.listen("192.0.2.1", 0)
    with pytest.raises(MinervaError, match="is unknown: pass an address of this machine"):
        listening.listen("no such host", 0)


def test_every_address_of_a_name_is_on_one_port() -> None:
    sockets = listening.listen("localhost", 0)
    assert len({bound.getsockname()[1] for bound in sockets}) == 1
    for bound in sockets:
        bound.close()


def test_url_for_a_client_on_this_machine() -> None:
    (bound,) = listening.listen("0.0.0.0", 0)
    assert listening.url_of(bound) == f"http://127.0.0.1:{bound.getsockname()[1]}"
    bound.close()
