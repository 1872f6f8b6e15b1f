"""From a request to running generations, and from generations to an answer, for every dialect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from minerva.engine.params import SamplingParams
from minerva.errors import WorkerDiedError
from minerva.server.state import REQUEST_ID, SETTINGS, TENANT
from minerva.server.transcript import Output, Source, logged
from minerva.worker.protocol import Delta, Finished, Prompt, TokenLogprob, ToolCallDelta

if TYPE_CHECKING:
    from minerva.models.residency import Lease
    from minerva.worker.generation import Generation

Result = TypeVar("Result")


@dataclass(slots=True)
class Collected:
    """A whole generation."""

    finished: Finished
    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallDelta] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


@asynccontextmanager
async def running(
    request: web.Request,
    lease: Lease,
    asked: Iterable[tuple[Prompt, SamplingParams]],
    *,
    priority: int | None = None,
    timeout_s: float | None = None,
) -> AsyncIterator[list[Source]]:
    """Starts all that is asked; whatever still runs at the end (an error, a lost client) is cancelled.

    `timeout_s` may shorten what the server allows a request, not lengthen it.
    """
    settings = request.app[SETTINGS]
    limits = [limit for limit in (timeout_s, settings.request_timeout_s) if limit is not None]
    sources: list[Source] = []
    async with AsyncExitStack() as stack:
        for prompt, sampling in asked:
            generation = await lease.worker.generate(
                prompt,
                sampling,
                priority=priority or 0,
                timeout_s=min(limits, default=None),
                namespace=request.get(TENANT, ""),
            )
            source = _batches(await stack.enter_async_context(generation))
            sources.append(logged(source, prompt, request[REQUEST_ID]) if settings.log_prompts else source)
        yield sources


async def _batches(generation: Generation) -> Source:
    """Everything that has arrived, each time something has; ends after `Finished`."""
    async for event in generation:
        batch: list[Output] = [event, *generation.take()]
        yield batch
        if isinstance(batch[-1], Finished):
            return


async def collect(source: Source) -> Collected:
    texts: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, list[ToolCallDelta]] = {}
    logprobs: list[TokenLogprob] = []
    async for batch in source:
        for event in batch:
            if isinstance(event, Delta):
                texts.append(event.text)
                reasoning.append(event.reasoning)
                logprobs += event.logprobs
                for call in event.tool_calls:
                    calls.setdefault(call.index, []).append(call)
            elif isinstance(event, Finished):
                whole = [_joined(pieces) for _, pieces in sorted(calls.items())]
                return Collected(event, "".join(texts), "".join(reasoning), whole, logprobs)
    raise WorkerDiedError("The generation ended without a result.")


def _joined(pieces: list[ToolCallDelta]) -> ToolCallDelta:
    first = pieces[0]
    name = "".join(piece.name for piece in pieces)
    return ToolCallDelta(first.index, first.id, name, "".join(piece.arguments for piece in pieces))


async def together(work: list[Awaitable[Result]]) -> list[Result]:
    """All at once; the first failure cancels the others and is raised."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
