"""Whole servers under bad luck and bad clients, seen from outside."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

sys.path.append(str(Path(__file__).parents[1] / "http"))

from served import Server, serving

HELLO = [{"role": "user", "content": "Hello"}]
ENDLESS: dict[str, Any] = {"messages": HELLO, "max_tokens": 1_000_000, "ignore_eos": True, "context_shift": True}
"""An answer that ends when its client goes away."""

WAIT_S = 60.0


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Four slots, sixteen places in the queue."""
    flags = ("--parallel", "4", "--queue-size", "16", "--ctx-size", "512", "--kv-size", "2048", "--threads", "1")
    with serving(tmp_path_factory.mktemp("faults"), *flags) as running:
        yield running


@pytest.fixture
async def http(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(server.url, connector=connector, timeout=timeout) as session:
        yield session


@pytest.fixture
async def idle(server: Server, http: aiohttp.ClientSession) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Waits until nothing runs and nothing waits; so does every test at its end, and is served after it."""

    async def wait() -> None:
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while await figure(http, "minerva_requests_running") + await figure(http, "minerva_requests_waiting"):
            assert asyncio.get_running_loop().time() < deadline, "the server does not become idle"
            await asyncio.sleep(0.02)

    await wait()
    yield wait
    await wait()
    await answered(http)


async def figure(http: aiohttp.ClientSession, name: str) -> float:
    async with http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))


async def answered(http: aiohttp.ClientSession) -> str:
    """The next request is served."""
    body = {"messages": HELLO, "max_tokens": 8, "temperature": 0}
    async with http.post("/v1/chat/completions", json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
    text: str = answer["choices"][0]["message"]["content"]
    assert text
    return text


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """The payloads of a stream; "[DONE]" as it is."""
    async for line in response.content:
        if line.startswith(b"data: "):
            payload = line.removeprefix(b"data: ").strip()
            yield "[DONE]" if payload == b"[DONE]" else json.loads(payload)


def worker_of(server: Server) -> psutil.Process:
    children = psutil.Process(server.process.pid).children()
    (worker,) = [child for child in children if "minerva.worker" in " ".join(child.cmdline())]
    return worker
