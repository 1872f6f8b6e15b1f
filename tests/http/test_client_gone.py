"""A client that goes away stops its generation."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from raw_http import connect, post
from served import Server

ENDLESS = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1900, "ignore_eos": True}


async def until(gauge: Any, name: str, value: float, within_s: float = 5) -> None:
    deadline = asyncio.get_running_loop().time() + within_s
    while (found := await gauge(name)) != value:
        assert asyncio.get_running_loop().time() < deadline, f"{name} is {found}, not {value}, after {within_s} s"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_generation_stops(server: Server, gauge: Any, stream: bool) -> None:
    await until(gauge, "minerva_requests_running", 0)
    body = json.dumps({**ENDLESS, "n": 2, "stream": stream}).encode()
    reader, writer = await connect(server.url)
    writer.write(post("/v1/chat/completions", body))
    if stream:
        await reader.readuntil(b'"content":')
    await until(gauge, "minerva_requests_running", 2)
    writer.transport.abort()
    await until(gauge, "minerva_requests_running", 0, within_s=1)


async def test_a_request_that_waits_for_a_slot_is_taken_back_too(server: Server, gauge: Any) -> None:
    await until(gauge, "minerva_requests_running", 0)
    body = json.dumps({**ENDLESS, "n": 6}).encode()
    _, writer = await connect(server.url)
    writer.write(post("/v1/chat/completions", body))
    await until(gauge, "minerva_requests_waiting", 2)
    writer.transport.abort()
    await until(gauge, "minerva_requests_waiting", 0, within_s=1)
    await until(gauge, "minerva_requests_running", 0, within_s=1)


async def test_the_others_go_on(server: Server, http: aiohttp.ClientSession, gauge: Any) -> None:
    body = json.dumps({**ENDLESS, "stream": True}).encode()
    reader, writer = await connect(server.url)
    writer.write(post("/v1/chat/completions", body))
    await reader.readuntil(b'"content":')
    other = asyncio.ensure_future(http.post("/v1/chat/completions", json={**ENDLESS, "max_tokens": 200}).__aenter__())
    await until(gauge, "minerva_requests_running", 2)
    writer.transport.abort()
    answer = await (await other).json()
    assert answer["usage"]["completion_tokens"] == 200
