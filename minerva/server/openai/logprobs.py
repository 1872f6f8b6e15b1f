"""Log-probabilities in the shape of chat completions and in the older one of completions."""

from __future__ import annotations

from typing import Any

from minerva.worker.protocol import TokenLogprob

LOWEST = -1e30
"""Stands for minus infinity, which JSON cannot carry."""


def chat_logprobs(tokens: list[TokenLogprob]) -> dict[str, Any]:
    return {"content": [{**_one(token), "top_logprobs": [_one(other) for other in token.top]} for token in tokens]}


def legacy_logprobs(tokens: list[TokenLogprob], offset: int) -> dict[str, Any]:
    """`offset`: how many characters came before the first token."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [{other.token: _finite(other.logprob) for other in token.top} for token in tokens],
        "text_offset": offsets,
    }


def _one(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": _finite(token.logprob), "bytes": list(token.token_bytes)}


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)
