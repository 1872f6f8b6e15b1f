"""POST /v1/completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from minerva.errors import UnsupportedError
from minerva.server.body import read_body
from minerva.server.generations import Collected, collect, running, together
from minerva.server.json_response import json_response
from minerva.server.openai.completion_chunks import CompletionChunks, ending
from minerva.server.openai.completion_prompts import completion_prompts
from minerva.server.openai.envelope import envelope, failure
from minerva.server.openai.logprobs import legacy_logprobs
from minerva.server.openai.sampling import choices, completion_sampling
from minerva.server.openai.schemas import CompletionRequest
from minerva.server.openai.usage import timings, usage
from minerva.server.state import RESIDENCY
from minerva.server.streaming import send_events
from minerva.worker.protocol import Prompt, TextPrompt, TokenPrompt

if TYPE_CHECKING:
    from minerva.worker.client import Worker


async def completions(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, CompletionRequest)
    n = body.n or 1
    _refuse(body, n)
    prompts = completion_prompts(body)
    asked = [(prompt, sampling) for prompt in prompts for sampling in choices(completion_sampling(body), n)]
    async with request.app[RESIDENCY].lease(body.model or None) as lease:
        echoes = [await _echo(lease.worker, prompt) if body.echo else "" for prompt in prompts for _ in range(n)]
        async with running(request, lease, asked, priority=body.priority, timeout_s=body.timeout_s) as sources:
            if body.stream:
                shared = envelope("cmpl", "text_completion", lease.entry.id)
                with_usage = bool(body.stream_options and body.stream_options.include_usage)
                encoders = [
                    CompletionChunks(shared, index, echo=echo, with_timings=not with_usage)
                    for index, echo in enumerate(echoes)
                ]
                return await send_events(
                    request,
                    sources,
                    encoders,
                    ending=lambda: ending(shared, encoders, n, with_usage=with_usage),
                    failure=failure,
                )
            collected = await together([collect(source) for source in sources])
        finished = [whole.finished for whole in collected]
        return json_response(
            {
                **envelope("cmpl", "text_completion", lease.entry.id),
                "choices": [
                    _choice(i, whole, echo, with_logprobs=body.logprobs is not None)
                    for i, (whole, echo) in enumerate(zip(collected, echoes, strict=True))
                ],
                "usage": usage(finished, n),
                "timings": timings(finished),
            }
        )


def _refuse(body: CompletionRequest, n: int) -> None:
    if body.best_of is not None and body.best_of != n:
        raise UnsupportedError("best_of is only supported when it equals n", param="best_of")
    if body.echo and body.logprobs is not None:
        raise UnsupportedError("logprobs of an echoed prompt are not supported", param="echo")


async def _echo(worker: Worker, prompt: Prompt) -> str:
    if isinstance(prompt, TokenPrompt):
        return await worker.detokenize(prompt.tokens)
    assert isinstance(prompt, TextPrompt)
    return prompt.text


def _choice(index: int, whole: Collected, echo: str, *, with_logprobs: bool) -> dict[str, Any]:
    return {
        "index": index,
        "text": echo + whole.text,
        "logprobs": legacy_logprobs(whole.logprobs, 0) if with_logprobs else None,
        "finish_reason": whole.finished.reason,
    }
