"""Guesses at the next tokens, taken from what the sequence has said before; the model checks them in one step.

Prompt lookup (Saxena, 2023): where the last few tokens have occurred before, what followed them then is the guess.
Guesses cost a row each in the batch, so they are made only where they have paid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minerva.engine.sequence import Sequence

NGRAM = 3
MIN_DRAFT = 2
MAX_DRAFT = 16
SMOOTHING = 0.3
PROBE_EVERY = 64
"""Tokens after which a sequence whose guesses did not pay may try again."""


class Lookup:
    """One sequence's guesses. `rate` is how many of its guessed tokens were right, lately."""

    def __init__(self) -> None:
        self.rate = 1.0
        self.length = MIN_DRAFT * 2
        self._seen: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._paused_until = 0

    def draft(self, tokens: list[int], limit: int, worth: float) -> list[int]:
        """At most `limit` guesses at what follows `tokens`, none where fewer than `worth` of them come true."""
        self._index(tokens)
        n = min(limit, self.length)
        if n < MIN_DRAFT or len(tokens) <= NGRAM or len(tokens) < self._paused_until:
            return []
        if self.rate < worth:
            self._paused_until = len(tokens) + PROBE_EVERY
            self.rate = (self.rate + worth) / 2 + 0.01
            self.length = MIN_DRAFT
            return []
        at = self._seen.get(tuple(tokens[-NGRAM:]), -1)
        return tokens[at : at + n] if at >= 0 else []

    def observe(self, drafted: int, right: int) -> None:
        self.rate += SMOOTHING * (right / drafted - self.rate)
        if right == drafted:
            self.length = min(2 * self.length, MAX_DRAFT)
        elif 2 * right < drafted:
            self.length = max(self.length // 2, MIN_DRAFT)

    def _index(self, tokens: list[int]) -> None:
        """The last n-gram itself is left out: nothing has followed it yet."""
        for end in range(max(self._indexed, NGRAM), len(tokens)):
            self._seen[tuple(tokens[end - NGRAM : end])] = end
        self._indexed = max(self._indexed, len(tokens))


class Speculator:
    """Who may guess in a step, and how much. A batch of `max_rows` has no room for guesses."""

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.drafted = 0
        self.accepted = 0

    def draft(self, sequences: list[Sequence], cells: int, n_ctx: int, worth: float) -> dict[int, list[int]]:
        """Guesses by sequence id, for sequences that are decoding, free of constraints and of log-probabilities.

        `cells` are free in the KV cache, a sequence may hold `n_ctx`; `worth` is the part of the guesses that must
        be right for them to pay.
        """
        drafts: dict[int, list[int]] = {}
        room = min(self.max_rows - len(sequences), cells)
        for s in sequences:
            if room < MIN_DRAFT:
                break
            if s.constraint is not None or s.wants_logprobs or s.lookup is None:
                continue
            left = min(room, n_ctx - len(s.tokens))
            if s.max_tokens is not None:
                left = min(left, s.max_tokens - s.generated - 1)
            guess = s.lookup.draft(s.tokens, left, worth)
            if guess:
                drafts[s.id] = guess
                room -= len(guess)
        return drafts

    def observe(self, sequence: Sequence, drafted: int, right: int) -> None:
        assert sequence.lookup is not None
        sequence.lookup.observe(drafted, right)
        self.drafted += drafted
        self.accepted += right
