"""How many prompt tokens a step may carry while others decode, so that their next token comes in time.

Following Sarathi-Serve (Agrawal et al., OSDI 2024): prompts are computed in chunks beside the decodes, and the
chunk is as large as the target for the gap between tokens allows.
"""

from __future__ import annotations

SMOOTHING = 0.2
MIN_CHUNK = 16
"""Tokens. A prompt always advances, also on a machine that cannot keep the target."""


UNKNOWN_WORTH = 0.5
"""Part of the guesses that must be right while nobody knows yet what one costs."""


class StepBudget:
    """Learns what steps cost: with so many sequences decoding, for each prompt token beside them, for each guess."""

    def __init__(self, max_tokens: int, target_s: float) -> None:
        self.max_tokens = max_tokens
        self.target_s = target_s
        self.prefill_s_per_token = 0.0
        self.draft_s_per_token = 0.0
        self._decode_s: dict[int, float] = {}

    def decode_s(self, decoding: int) -> float:
        """Seconds of a step in which so many decode and nothing else; by the nearest count that was seen."""
        if decoding in self._decode_s or not self._decode_s:
            return self._decode_s.get(decoding, 0.0)
        return self._decode_s[min(self._decode_s, key=lambda n: abs(n - decoding))]

    def prompt_tokens(self, decoding: int) -> int:
        """Prompt tokens for the next step beside so many decoding sequences."""
        room = self.max_tokens - decoding
        if decoding == 0 or self.prefill_s_per_token == 0.0:
            return room
        fits = int((self.target_s - self.decode_s(decoding)) / self.prefill_s_per_token)
        return max(min(fits, room), min(MIN_CHUNK, room))

    def worth(self, decoding: int, guess_s: float) -> float:
        """The part of its guesses that must be right for a sequence's guesses to raise the throughput, when one takes
        `guess_s` to make.
        """
        step_s = self.decode_s(decoding)
        if step_s == 0.0 or self.draft_s_per_token == 0.0:
            return UNKNOWN_WORTH
        return decoding * (self.draft_s_per_token + guess_s) / step_s

    def observe(self, decoding: int, prompt_tokens: int, drafted: int, seconds: float) -> None:
        """Takes in what a step took."""
        alone = self.decode_s(decoding) if decoding else 0.0
        if prompt_tokens >= MIN_CHUNK and not drafted:
            spent = max(seconds - alone, 0.1 * seconds)
            self.prefill_s_per_token = _blend(self.prefill_s_per_token, spent / prompt_tokens)
        elif drafted and not prompt_tokens:
            spent = max(seconds - alone, 0.1 * seconds)
            self.draft_s_per_token = _blend(self.draft_s_per_token, spent / drafted)
        elif decoding and not prompt_tokens:
            self._decode_s[decoding] = _blend(self._decode_s.get(decoding, 0.0), seconds)


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
