"""What an engine has done since it started; monotonic, read from other threads."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct):
    """Tokens, steps and requests; `step_s` is the time spent inside llama.cpp, in seconds.

    `prompt_tokens` were computed, `cached_tokens` did not have to be; `accepted_tokens` of the `drafted_tokens` that
    were guessed were right.
    """

    steps: int = 0
    step_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    requests_finished: int = 0
    requests_cancelled: int = 0
    requests_failed: int = 0
    requests_refused: int = 0
    preemptions: int = 0
    evicted_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
