"""SIGTERM and Ctrl-C: what runs is finished, nothing new is begun, nothing is left."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from served import Server, serving

from .conftest import ENDLESS, HELLO, WAIT_S, events, worker_of

FLAGS = ("--parallel", "2", "--ctx-size", "512", "--threads", "1")


@asynccontextmanager
async def streaming(server: Server, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """A stream that has begun: its events from the second on."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_S)) as http:
        url = f"{server.url}/v1/chat/completions"
        async with http.post(url, json={**body, "stream": True}) as response:
            assert response.status == 200
            found = events(response)
            await anext(found)
            yield found


async def closed(server: Server) -> None:
    """A signal is on its way: until new connections are refused."""
    while True:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{server.url}/ready") as response:
                assert response.status in (200, 503)
        except aiohttp.ClientConnectionError:
            return


async def until_cut(stream: AsyncIterator[Any]) -> list[Any]:
    received: list[Any] = []
    try:
        async for event in stream:
            received.append(event)
    except aiohttp.ClientError:
        pass
    return received


async def ended(server: Server, within_s: float = 30) -> int:
    return await asyncio.to_thread(server.process.wait, within_s)


async def test_a_stream_that_runs_is_finished_and_nothing_new_begins(tmp_path: Path) -> None:
    with serving(tmp_path, *FLAGS) as server:
        worker = worker_of(server)
        async with streaming(server, {"messages": HELLO, "max_tokens": 450, "ignore_eos": True}) as stream:
            server.process.send_signal(signal.SIGTERM)
            await closed(server)
            received = [event async for event in stream]
        assert received[-1] == "[DONE]"
        assert received[-2]["choices"][0]["finish_reason"] == "length"
        assert await ended(server) == 0
        assert not worker.is_running()


async def test_a_connection_that_was_open_before_gets_503(tmp_path: Path) -> None:
    with serving(tmp_path, *FLAGS, "--grace", "2") as server:
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{server.url}/v1/models") as response:
                await response.read()
            async with streaming(server, ENDLESS) as stream:
                server.process.send_signal(signal.SIGTERM)
                status = 200
                while status == 200:  # the signal is on its way
                    async with http.get(f"{server.url}/ready") as response:
                        status = response.status
                assert status == 503
                received = await until_cut(stream)  # after its grace period
                assert received
                assert received[-1] != "[DONE]"
        assert await ended(server) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path, *FLAGS) as server:
        worker = worker_of(server)
        async with streaming(server, ENDLESS) as stream:
            server.process.send_signal(number)
            await closed(server)
            assert server.process.poll() is None
            server.process.send_signal(number)
            assert await ended(server, 10) == 128 + number
            with pytest.raises(aiohttp.ClientError):
                [event async for event in stream]
        await asyncio.to_thread(psutil.wait_procs, [worker], 10)
        assert not worker.is_running()


async def test_a_server_that_is_killed_leaves_no_worker(tmp_path: Path) -> None:
    with serving(tmp_path, *FLAGS) as server:
        worker = worker_of(server)
        async with streaming(server, ENDLESS):
            server.process.kill()
            await asyncio.to_thread(psutil.wait_procs, [worker], 20)
            assert not worker.is_running()


async def test_ctrl_c_while_the_worker_is_down_ends_it(tmp_path: Path) -> None:
    with serving(tmp_path, *FLAGS) as server:
        worker_of(server).kill()
        server.process.send_signal(signal.SIGINT)
        assert await ended(server) == 0
        assert "Traceback" not in server.log.read_text()
