"""Crowds, deaths and clients that behave badly: everyone gets an answer of a known kind, and nothing is left over."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest
from raw_http import answer, connect, exchange, post
from served import Server, serving

from .conftest import ENDLESS, HELLO, WAIT_S, answered, events, figure, worker_of

SHORT = {"messages": HELLO, "max_tokens": 24, "ignore_eos": True, "temperature": 0}


async def stream(http: aiohttp.ClientSession, body: dict[str, Any], begun: asyncio.Event | None = None) -> str:
    """How a streamed answer ended: its finish reason, its error's code, or its status."""
    async with http.post("/v1/chat/completions", json={**body, "stream": True}) as response:
        if response.status != 200:
            found = await response.json()
            assert set(found["error"]) == {"message", "type", "param", "code"}
            if response.status in (429, 503):
                assert int(response.headers["Retry-After"]) >= 1
            return str(response.status)
        reason = "nothing"
        async for event in events(response):
            if begun is not None:
                begun.set()
            if event == "[DONE]":
                return reason
            if "error" in event:
                return str(event["error"]["code"])
            reason = event["choices"][0]["finish_reason"] or reason
    return "cut off"


@pytest.mark.usefixtures("idle")
async def test_a_worker_killed_under_sixteen_streams_costs_them_and_nobody_else(
    server: Server, http: aiohttp.ClientSession
) -> None:
    before = await answered(http)
    begun = asyncio.Event()
    streams = [asyncio.create_task(stream(http, ENDLESS, begun)) for _ in range(16)]
    await asyncio.wait_for(begun.wait(), WAIT_S)
    while await figure(http, "minerva_requests_waiting") < 12:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    worker_of(server).kill()
    endings = Counter(await asyncio.wait_for(asyncio.gather(*streams), WAIT_S))
    assert set(endings) <= {"worker_died", "503"}, endings
    assert endings["worker_died"] >= 1
    assert await answered(http) == before


@pytest.mark.usefixtures("idle")
async def test_a_worker_killed_again_and_again_under_load_never_leaves_a_client_without_an_end(
    server: Server, http: aiohttp.ClientSession
) -> None:
    async def client() -> list[str]:
        return [await stream(http, {**SHORT, "max_tokens": 300, "context_shift": True}) for _ in range(6)]

    clients = [asyncio.create_task(client()) for _ in range(4)]
    for _ in range(2):
        while not await figure(http, "minerva_requests_running"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        worker_of(server).kill()
    endings = Counter(itertools.chain.from_iterable(await asyncio.wait_for(asyncio.gather(*clients), WAIT_S)))
    assert set(endings) <= {"length", "worker_died", "503"}, endings
    assert sum(endings.values()) == 24


async def test_three_hundred_clients_on_four_slots_get_their_answer_or_429(
    server: Server, http: aiohttp.ClientSession, idle: Any
) -> None:
    alone = await answered(http)

    async def ask() -> tuple[int, str]:
        body = {"messages": HELLO, "max_tokens": 8, "temperature": 0}
        async with http.post("/v1/chat/completions", json=body) as response:
            found = await response.json()
            if response.status == 200:
                return 200, found["choices"][0]["message"]["content"]
            assert int(response.headers["Retry-After"]) >= 1
            return response.status, found["error"]["code"]

    outcomes = Counter(await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(300))), WAIT_S))
    assert set(outcomes) <= {(200, alone), (429, "rate_limit_exceeded")}, outcomes
    assert outcomes[200, alone] >= 20
    await idle()
    gateway, worker = psutil.Process(server.process.pid), worker_of(server)
    before = gateway.num_threads(), worker.num_fds(), worker.num_threads(), gateway.memory_info().rss
    for _ in range(2):
        await asyncio.gather(*(ask() for _ in range(300)))
    await idle()
    assert (gateway.num_threads(), worker.num_fds(), worker.num_threads()) == before[:3]
    assert gateway.memory_info().rss - before[3] < 32 << 20


async def test_streams_and_whole_answers_in_a_storm_all_end(http: aiohttp.ClientSession, idle: Any) -> None:
    endings = Counter(await asyncio.gather(*(stream(http, SHORT) for _ in range(100))))
    assert set(endings) <= {"length", "429"}, endings
    assert endings["length"] >= 20
    await idle()


async def test_clients_that_leave_at_any_moment_leave_nothing(
    server: Server, http: aiohttp.ClientSession, idle: Any
) -> None:
    rng = random.Random(3)
    gateway, worker = psutil.Process(server.process.pid), worker_of(server)
    head = post("/v1/chat/completions", json.dumps({**ENDLESS, "stream": True}).encode())

    async def leave() -> None:
        reader, writer = await connect(server.url)
        writer.write(head[: rng.choice([len(head), len(head), rng.randrange(len(head))])])
        for _ in range(rng.randrange(4)):
            try:
                await asyncio.wait_for(reader.read(400), rng.choice([0.001, 0.05]))
            except asyncio.TimeoutError:
                break
        writer.transport.abort()

    async def crowd() -> None:
        for _ in range(5):
            await asyncio.gather(*(leave() for _ in range(12)), answered_or_429(http))

    await crowd()
    await idle()
    before = gateway.num_fds(), worker.num_fds(), gateway.memory_info().rss, worker.memory_info().rss
    for _ in range(3):
        await crowd()
    await idle()
    assert gateway.num_fds() <= before[0] + 2
    assert worker.num_fds() == before[1]
    assert gateway.memory_info().rss - before[2] < 32 << 20
    assert worker.memory_info().rss - before[3] < 32 << 20
    async with http.get("/queue") as response:
        assert (await response.json())["data"] == []


async def answered_or_429(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", json=SHORT) as response:
        assert response.status in (200, 429)
        await response.read()


async def test_clients_that_never_read_hold_up_nobody(server: Server, http: aiohttp.ClientSession, idle: Any) -> None:
    address = urlsplit(server.url)
    body = json.dumps({**ENDLESS, "max_tokens": 3000, "stream": True}).encode()
    stalled = []
    for _ in range(4):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect((address.hostname, address.port))
        client.sendall(post("/v1/chat/completions", body))
        stalled.append(client)
    assert await answered(http)
    await idle()  # their answers are made though nobody reads them, and their slots are free
    for client in stalled:
        client.close()


@pytest.mark.usefixtures("idle")
async def test_half_sent_heads_and_bodies_hold_up_nobody(server: Server, http: aiohttp.ClientSession) -> None:
    whole = post("/v1/chat/completions", json.dumps(SHORT).encode())
    held = [await connect(server.url) for _ in range(40)]
    for i, (_, writer) in enumerate(held):
        writer.write(whole[: len(whole) * (i + 1) // 41])
    assert await answered(http)
    reader, writer = held[20]
    writer.write(whole[len(whole) * 21 // 41 :])  # slow, but it comes: it is served
    assert (await asyncio.wait_for(answer(reader), WAIT_S)).status == 200
    for _, writer in held:
        writer.transport.abort()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Room for eight connections."""
    flags = ("--parallel", "2", "--ctx-size", "512", "--max-connections", "8", "--threads", "1")
    with serving(tmp_path_factory.mktemp("small"), *flags) as running:
        yield running


async def test_connections_beyond_the_limit_are_refused_and_those_within_it_are_served(small: Server) -> None:
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    gateway = psutil.Process(small.process.pid)
    before = gateway.num_fds()
    held = [await connect(small.url) for _ in range(8)]
    for reader, writer in held:
        writer.write(ask)
        assert (await asyncio.wait_for(answer(reader), WAIT_S)).status == 200

    async def refused() -> int | None:
        try:
            return (await exchange(small.url, ask)).status
        except (ConnectionError, asyncio.IncompleteReadError):
            return None  # far beyond it nothing is said

    outcomes = Counter(await asyncio.gather(*(refused() for _ in range(100))))
    assert set(outcomes) <= {429, None}, outcomes
    assert outcomes[429] >= 1
    for reader, writer in held:
        writer.write(ask)
        assert (await asyncio.wait_for(answer(reader), WAIT_S)).status == 200
        writer.close()
    async with aiohttp.ClientSession(small.url) as http:
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while True:
            assert asyncio.get_running_loop().time() < deadline
            async with http.get("/health") as response:
                if response.status == 200:
                    break
        assert await answered(http)
    while gateway.num_fds() > before:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


async def test_idle_connections_that_say_nothing_are_counted_and_freed_with_their_clients(small: Server) -> None:
    silent = [await connect(small.url) for _ in range(8)]
    for _, writer in silent:
        writer.transport.abort()
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while (await exchange(small.url, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")).status != 200:
        assert asyncio.get_running_loop().time() < deadline


async def test_a_model_that_ends_every_worker_is_an_error_and_not_a_loop(tmp_path: Path) -> None:
    """The server's own start tells; no process is left."""
    from minerva.models.catalogue import EMBEDDED

    broken = bytearray(EMBEDDED.read_bytes())
    at = broken.index(b"llama.attention.head_count") + len(b"llama.attention.head_count") + 4
    broken[at : at + 4] = (7).to_bytes(4, "little")
    (tmp_path / "broken.gguf").write_bytes(broken)
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(pytest.fail.Exception) as failed, serving(home, "-m", str(tmp_path / "broken.gguf")):
        pass
    assert "broken.gguf" in str(failed.value)
    assert "Traceback" not in str(failed.value)
