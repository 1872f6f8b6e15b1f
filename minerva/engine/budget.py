"""How many prompt tokens a step may carry while others decode, so that their next token comes in time.

Following Sarathi-Serve (Agrawal et al., OSDI 2024): prompts are computed in chunks beside the decodes, and the
chunk is as large as the target for the gap between tokens allows.
"""

from __future__ import annotations

SMOOTHING = 0.2
MIN_CHUNK = 16
"""Tokens. A prompt always advances, also on a machine that cannot keep the target."""


class StepBudget:
    """Learns what a step costs: `decode_s` for the decodes alone, and so much for each prompt token beside them."""

    def __init__(self, max_tokens: int, target_s: float) -> None:
        self.max_tokens = max_tokens
        self.target_s = target_s
        self.decode_s = 0.0
        self.prefill_s_per_token = 0.0

    def prompt_tokens(self, decoding: int) -> int:
        """Prompt tokens for the next step beside so many decoding sequences."""
        room = self.max_tokens - decoding
        if decoding == 0 or self.prefill_s_per_token == 0.0:
            return room
        fits = int((self.target_s - self.decode_s) / self.prefill_s_per_token)
        return max(min(fits, room), min(MIN_CHUNK, room))

    def observe(self, decoding: int, prompt_tokens: int, seconds: float) -> None:
        """Takes in what a step took."""
        if prompt_tokens == 0:
            if decoding:
                self.decode_s = _blend(self.decode_s, seconds)
            return
        if prompt_tokens >= MIN_CHUNK:
            spent = max(seconds - (self.decode_s if decoding else 0.0), 0.1 * seconds)
            self.prefill_s_per_token = _blend(self.prefill_s_per_token, spent / prompt_tokens)


def _blend(old: float, new: float) -> float:
    return new if old == 0.0 else old + SMOOTHING * (new - old)


def share(budget: int, wants: list[int]) -> list[int]:
    """Splits a step's prompt tokens among prompts that want so many each, oldest first.

    The oldest is sure of half, so that it never starves; what is left goes to the shortest first.
    """
    given = [0] * len(wants)
    if not wants:
        return given
    given[0] = min(wants[0], (budget + 1) // 2)
    left = budget - given[0]
    for i in sorted(range(len(wants)), key=lambda i: wants[i] - given[i]):
        more = min(left, wants[i] - given[i])
        given[i] += more
        left -= more
    return given
