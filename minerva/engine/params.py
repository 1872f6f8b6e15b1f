"""What a caller may ask of one generation, validated where it is made."""

from __future__ import annotations

import math

import msgspec

from minerva.errors import RequestError

MAX_STOPS = 64
MAX_STOP_BYTES = 1024
MAX_LOGIT_BIAS = 1024
MAX_BIAS = 1e6
"""Far above any logit; an infinite one would make every probability NaN."""
MAX_TOP_LOGPROBS = 20


class SamplingParams(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Sampling and stopping. Defaults are llama-server's.

    `temperature` 0 is greedy. `top_k` 0 keeps the whole vocabulary. `seed` None draws one.
    `max_tokens` None means up to the end of the context; with `context_shift` an answer goes on past it, without the
    middle of what was said. `logit_bias` maps a token id to a bias added to
    its logit. `top_logprobs` None gives no log-probabilities; 0 gives the chosen token's alone.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logit_bias: dict[int, float] = {}
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int | None = None
    ignore_eos: bool = False
    context_shift: bool = False
    top_logprobs: int | None = None

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_k", self.top_k, 0, 2**31 - 1)
        _within("top_p", self.top_p, 0.0, 1.0)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("typical_p", self.typical_p, 0.0, 1.0)
        _within("repeat_penalty", self.repeat_penalty, 0.01, 100.0)
        _within("repeat_last_n", self.repeat_last_n, 0, 65536)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("max_tokens", self.max_tokens, 1, 2**31 - 1)
        _within("seed", self.seed, -(2**63), 2**64 - 1)
        _within("top_logprobs", self.top_logprobs, 0, MAX_TOP_LOGPROBS)
        _within("logit_bias (entries)", len(self.logit_bias), 0, MAX_LOGIT_BIAS)
        for token, bias in self.logit_bias.items():
            _within("logit_bias (token id)", token, 0, 2**31 - 1)
            _within("logit_bias (value)", bias, -math.inf, MAX_BIAS)
        _within("stop (entries)", len(self.stop), 0, MAX_STOPS)
        for text in self.stop:
            _within("stop (bytes)", len(text.encode()), 1, MAX_STOP_BYTES)


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        field = name.split(" ")[0]
        raise RequestError(f"{name} must be from {low} to {high}, got {value}", param=field)
