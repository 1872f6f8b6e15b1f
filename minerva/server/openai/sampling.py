"""From a request's fields to `SamplingParams`."""

from __future__ import annotations

from typing import Any

import msgspec

from minerva.engine.params import SamplingParams
from minerva.errors import RequestError
from minerva.server.openai.schemas import ChatRequest, CompletionRequest, SamplingBody

RANDOM_SEED = -1
SAME_NAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
    "ignore_eos",
    "context_shift",
)


def chat_sampling(body: ChatRequest) -> SamplingParams:
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
    given = _given(body)
    if body.max_completion_tokens is not None:
        given["max_tokens"] = body.max_completion_tokens
    if body.logprobs:
        given["top_logprobs"] = body.top_logprobs or 0
    return SamplingParams(**given)


def completion_sampling(body: CompletionRequest) -> SamplingParams:
    given = _given(body)
    if body.logprobs is not None:
        given["top_logprobs"] = body.logprobs
    return SamplingParams(**given)


def choices(sampling: SamplingParams, n: int) -> list[SamplingParams]:
    """One per choice, each with its own seed."""
    if sampling.seed is None:
        return [sampling] * n
    return [msgspec.structs.replace(sampling, seed=(sampling.seed + i) % 2**64) for i in range(n)]


def _given(body: SamplingBody) -> dict[str, Any]:
    given = {name: value for name in SAME_NAME if (value := getattr(body, name)) is not None}
    if body.seed is not None and body.seed != RANDOM_SEED:
        given["seed"] = body.seed
    if body.stop is not None:
        given["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    if body.logit_bias:
        given["logit_bias"] = {int(token): bias for token, bias in body.logit_bias.items()}
    return given
