"""What a stream does when a generation is silent, fails or breaks; scripted, for the sake of time and faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from minerva.errors import ContextLengthError, OverloadedError, WorkerDiedError
from minerva.server import sse
from minerva.server.state import RESIDENCY
from minerva.worker.generation import Generation
from minerva.worker.protocol import Delta, Failed, Finished, Started

END = Finished(1, "stop", 1, 0, 1)
Script = Callable[[Generation], Awaitable[None]]


def scripted(app: Any, monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    """Every generation of this app now follows `script`."""

    async def generate(*args: object, **options: object) -> Generation:
        generation = Generation(1, lambda id: None)
        playing = asyncio.ensure_future(script(generation))
        playing.add_done_callback(lambda played: played.exception())
        return generation

    @asynccontextmanager
    async def lease(model: str | None) -> AsyncIterator[Any]:
        yield SimpleNamespace(worker=SimpleNamespace(generate=generate), entry=SimpleNamespace(id="scripted"))

    monkeypatch.setattr(app.app[RESIDENCY], "lease", lease)


async def stream(app: Any, n: int = 1) -> tuple[int, list[str]]:
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "n": n}
    async with aiohttp.ClientSession(app.url) as http, http.post("/v1/chat/completions", json=body) as response:
        return response.status, (await response.text()).strip().split("\n\n")


async def test_silence_is_filled_with_pings_but_not_before_the_first_event(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sse, "PING_AFTER_S", 0.05)

    async def slow(generation: Generation) -> None:
        await asyncio.sleep(0.3)
        generation.put(Started(1, 1, 0))
        await asyncio.sleep(0.3)
        generation.put(END)

    async with serve() as app:
        scripted(app, monkeypatch, slow)
        _, events = await stream(app)
    pings = [i for i, event in enumerate(events) if event == ": ping"]
    assert "assistant" in events[0]
    assert 2 <= len(pings) <= 6
    assert events[-1] == "data: [DONE]"
    assert pings[-1] < len(events) - 2


async def test_what_fails_first_has_its_own_status(serve: Any, monkeypatch: Any) -> None:
    async def refused(generation: Generation) -> None:
        generation.put(Failed.of(1, ContextLengthError("9 tokens, but the context has 8")))

    async def crowded(generation: Generation) -> None:
        generation.put(Failed.of(1, OverloadedError("512 requests wait", retry_after=2.5)))

    async with serve() as app:
        scripted(app, monkeypatch, refused)
        status, events = await stream(app)
        assert (status, json.loads(events[0])["error"]["code"]) == (400, "context_length_exceeded")
        scripted(app, monkeypatch, crowded)
        async with aiohttp.ClientSession(app.url) as http:
            response = await http.post("/v1/completions", json={"prompt": "x"})
            assert response.status == 429
            assert response.headers["Retry-After"] == "3"


@pytest.mark.parametrize("n", [1, 3])
async def test_what_fails_later_is_an_error_event_and_the_end(serve: Any, monkeypatch: Any, n: int) -> None:
    async def dies(generation: Generation) -> None:
        generation.put(Started(1, 1, 0))
        generation.put(Delta(1, "Hi"))
        await asyncio.sleep(0.05)
        generation.put(Failed.of(1, WorkerDiedError("the worker ended")))

    async with serve() as app:
        scripted(app, monkeypatch, dies)
        status, events = await stream(app, n)
    assert status == 200
    assert sum('"content":"Hi"' in event for event in events) == n
    assert json.loads(events[-1].removeprefix("data: ")) == {
        "error": {"message": "the worker ended", "type": "server_error", "param": None, "code": "worker_died"}
    }


async def test_a_bug_while_streaming_is_an_error_event_without_details(serve: Any, monkeypatch: Any) -> None:
    async def broken(generation: Generation) -> None:
        generation.put(Started(1, 1, 0))
        generation.put(Delta(1, 5))  # type: ignore[arg-type]
        generation.put(END)

    async with serve() as app:
        scripted(app, monkeypatch, broken)
        _, events = await stream(app)
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "internal_error"
    assert "Error'" not in events[-1]
