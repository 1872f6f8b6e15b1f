"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from minerva.server.body import read_body
from minerva.server.generations import Collected, collect, running, together
from minerva.server.json_response import json_response
from minerva.server.openai.chat_chunks import ChatChunks, ending
from minerva.server.openai.envelope import envelope, failure
from minerva.server.openai.logprobs import chat_logprobs
from minerva.server.openai.prompts import chat_prompt
from minerva.server.openai.sampling import chat_sampling, choices
from minerva.server.openai.schemas import ChatRequest
from minerva.server.openai.usage import timings, usage
from minerva.server.state import RESIDENCY
from minerva.server.streaming import send_events


async def chat_completions(request: web.Request) -> web.StreamResponse:
    body = await read_body(request, ChatRequest)
    n = body.n or 1
    prompt = chat_prompt(body)
    asked = [(prompt, sampling) for sampling in choices(chat_sampling(body), n)]
    async with (
        request.app[RESIDENCY].lease(body.model or None) as lease,
        running(request, lease, asked, priority=body.priority, timeout_s=body.timeout_s) as sources,
    ):
        if body.stream:
            shared = envelope("chatcmpl", "chat.completion.chunk", lease.entry.id)
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            encoders = [ChatChunks(shared, index, with_timings=not with_usage) for index in range(n)]
            return await send_events(
                request,
                sources,
                encoders,
                ending=lambda: ending(shared, encoders, with_usage=with_usage),
                failure=failure,
            )
        collected = await together([collect(source) for source in sources])
        finished = [whole.finished for whole in collected]
        return json_response(
            {
                **envelope("chatcmpl", "chat.completion", lease.entry.id),
                "choices": [_choice(i, whole, bool(body.logprobs)) for i, whole in enumerate(collected)],
                "usage": usage(finished, n),
                "timings": timings(finished),
            }
        )


def _choice(index: int, whole: Collected, with_logprobs: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": whole.text}
    if whole.reasoning:
        message["reasoning_content"] = whole.reasoning
    if whole.tool_calls:
        message["content"] = whole.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in whole.tool_calls
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(whole.logprobs) if with_logprobs else None,
        "finish_reason": whole.finished.reason,
    }
