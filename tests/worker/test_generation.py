"""A running request as a dialect sees it: an iterator that ends once, in one way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from minerva.errors import ContextLengthError, WorkerDiedError
from minerva.worker.generation import Generation
from minerva.worker.protocol import Delta, Failed, Finished, Started

STARTED, HI, END = Started(1, 1, 0), Delta(1, "Hi"), Finished(1, "stop", 1, 0, 1)


@pytest.fixture
def cancelled() -> list[int]:
    return []


@pytest.fixture
def generation(cancelled: list[int]) -> Generation:
    return Generation(1, cancelled.append)


async def events(generation: Generation) -> list[Any]:
    return [event async for event in generation]


async def test_it_yields_what_came_and_ends(generation: Generation) -> None:
    waiting = asyncio.ensure_future(events(generation))
    for event in (STARTED, HI, END):
        await asyncio.sleep(0)
        generation.put(event)
    assert await waiting == [STARTED, HI, END]
    assert await events(generation) == []


async def test_what_came_before_a_failure_is_not_lost(generation: Generation) -> None:
    generation.put(STARTED)
    generation.put(HI)
    generation.fail(WorkerDiedError("gone", retry_after=1.0))
    assert await anext(generation) == STARTED
    assert await anext(generation) == HI
    for _ in range(2):
        with pytest.raises(WorkerDiedError):
            await anext(generation)


async def test_take_empties_it_without_waiting_and_hides_no_failure(generation: Generation) -> None:
    assert generation.take() == []
    generation.put(STARTED)
    generation.put(HI)
    generation.put(Failed.of(1, ContextLengthError("too long", param="messages")))
    assert generation.take() == [STARTED, HI]
    assert generation.take() == []
    with pytest.raises(ContextLengthError, match="too long") as raised:
        await anext(generation)
    assert raised.value.param == "messages"


async def test_cancelling_twice_cancels_once(generation: Generation, cancelled: list[int]) -> None:
    waiting = asyncio.ensure_future(events(generation))
    await asyncio.sleep(0)
    generation.cancel()
    generation.cancel()
    assert await asyncio.wait_for(waiting, 5) == []
    assert cancelled == [1]


async def test_a_generation_that_has_ended_is_not_cancelled(generation: Generation, cancelled: list[int]) -> None:
    async with generation:
        generation.put(END)
    generation.fail(WorkerDiedError("too late"))
    assert cancelled == []
    assert await events(generation) == [END]


async def test_nothing_arrives_after_it_was_left(generation: Generation, cancelled: list[int]) -> None:
    async with generation:
        generation.put(STARTED)
        assert await anext(generation) == STARTED
    generation.put(HI)
    assert cancelled == [1]
    assert await events(generation) == []


async def test_a_reader_that_is_cancelled_leaves_it_readable(generation: Generation) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(generation), 0.01)
    generation.put(STARTED)
    assert await anext(generation) == STARTED
