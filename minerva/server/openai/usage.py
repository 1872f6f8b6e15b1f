"""Token counts and times of finished generations."""

from __future__ import annotations

from typing import Any

from minerva.worker.protocol import Finished


def usage(finished: list[Finished], n: int) -> dict[str, Any]:
    """`finished` in the order of the choices, `n` for each prompt; a prompt counts once."""
    prompts = finished[::n]
    prompt_tokens = sum(end.prompt_tokens for end in prompts)
    completion_tokens = sum(end.completion_tokens for end in finished)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(end.cached_tokens for end in prompts)},
    }


def timings(finished: list[Finished]) -> dict[str, float]:
    """llama-server's fields. Several generations ran at once, so tokens add up and the longest time counts."""
    cached = sum(end.cached_tokens for end in finished)
    prompt_n = sum(end.prompt_tokens for end in finished) - cached
    predicted_n = sum(end.completion_tokens for end in finished)
    prompt_ms = max(end.prompt_s for end in finished) * 1e3
    predicted_ms = max(end.decode_s for end in finished) * 1e3
    return {
        "cache_n": cached,
        "prompt_n": prompt_n,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / prompt_n if prompt_n else 0.0,
        "prompt_per_second": prompt_n / prompt_ms * 1e3 if prompt_ms else 0.0,
        "predicted_n": predicted_n,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_ms / predicted_n if predicted_n else 0.0,
        "predicted_per_second": predicted_n / predicted_ms * 1e3 if predicted_ms else 0.0,
    }
