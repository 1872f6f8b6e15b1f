"""The queue as clients and operators see it: bounded, in order, with positions, and honest when it is full."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from served import Server, serving

LONG = {"max_tokens": 400, "ignore_eos": True, "temperature": 0}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One slot, three places in the queue."""
    home = tmp_path_factory.mktemp("narrow")
    with serving(home, "--parallel", "1", "--queue-size", "3", "--api-key", "one", "--api-key", "two") as server:
        yield server


async def ask(session: aiohttp.ClientSession, server: Server, key: str = "one", **fields: Any) -> tuple[int, Any, Any]:
    body = {"messages": [{"role": "user", "content": "Tell me a long story."}], **LONG, **fields}
    headers = {"Authorization": f"Bearer {key}"}
    async with session.post(f"{server.url}/v1/chat/completions", json=body, headers=headers) as response:
        return response.status, response.headers, await response.json()


async def queue(session: aiohttp.ClientSession, server: Server, until: int) -> list[dict[str, Any]]:
    """The queue once it has so many requests."""
    for _ in range(200):
        async with session.get(f"{server.url}/queue", headers={"x-api-key": "one"}) as response:
            items: list[dict[str, Any]] = (await response.json())["data"]
        if len(items) >= until:
            return items
        await asyncio.sleep(0.005)
    raise AssertionError(f"the queue never had {until} requests: {items}")


async def test_a_full_queue_answers_429_with_the_wait_and_serves_the_rest(narrow: Server) -> None:
    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(*(ask(session, narrow) for _ in range(12)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 429}
    for status, headers, body in answers:
        if status == 429:
            assert int(headers["Retry-After"]) >= 1
            assert body["error"]["code"] == "rate_limit_exceeded"
        else:
            assert body["usage"]["completion_tokens"] == LONG["max_tokens"]


async def test_positions_are_visible_and_a_smaller_priority_goes_first(narrow: Server) -> None:
    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(ask(session, narrow, max_tokens=900))]
        await queue(session, narrow, 1)
        tasks.append(asyncio.create_task(ask(session, narrow, priority=5)))
        await queue(session, narrow, 2)
        tasks.append(asyncio.create_task(ask(session, narrow, priority=-5)))
        items = await queue(session, narrow, 3)
        await asyncio.gather(*tasks)
    assert [item["position"] for item in items] == [0, 1, 2]
    assert [item["priority"] for item in items] == [0, -5, 5]
    assert items[0]["generated_tokens"] > 0
    assert items[2]["wait_s"] >= items[1]["wait_s"] > 0


async def test_a_request_whose_time_is_up_while_it_waits_is_told_so(narrow: Server) -> None:
    async with aiohttp.ClientSession() as session:
        first = asyncio.create_task(ask(session, narrow, max_tokens=900))
        await queue(session, narrow, 1)
        status, _, body = await ask(session, narrow, timeout_s=0.05)
        await first
    assert (status, body["error"]["code"]) == (504, "deadline_exceeded")


async def test_one_key_does_not_see_what_another_has_cached(narrow: Server) -> None:
    secret = [{"role": "user", "content": "My secret is " + "sesame " * 30}]
    async with aiohttp.ClientSession() as session:
        cached = []
        for key in ("one", "one", "two"):
            _, _, body = await ask(session, narrow, key, messages=secret, max_tokens=1)
            cached.append(body["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached[1] > 30
    assert cached[2] == 0
