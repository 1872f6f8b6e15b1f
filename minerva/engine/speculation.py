"""Guesses at the next tokens; the model checks them all in one step.

Prompt lookup (Saxena, 2023): where the last few tokens have occurred before, what followed them then is the guess. A
draft model (`draft_model.py`) guesses in its place. Guesses cost a row each in the batch, so a sequence makes them
only while they pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from minerva.engine.budget import StepBudget
    from minerva.engine.sequence import Sequence

NGRAM = 3
MIN_DRAFT = 2
MAX_DRAFT = 16
SMOOTHING = 0.3
PROBE_EVERY = 64
"""Tokens after which a sequence whose guesses did not pay may try again."""


class Pace:
    """How much one sequence guesses. `rate` is how many of its guesses were right, lately."""

    def __init__(self) -> None:
        self.rate = 1.0
        self.length = MIN_DRAFT * 2
        self._paused_until = 0

    def allow(self, at: int, limit: int, worth: float) -> int:
        """Guesses to make at this length of the sequence: none where fewer than `worth` of them come true."""
        n = min(limit, self.length)
        if n < MIN_DRAFT or at < self._paused_until:
            return 0
        if self.rate < worth:
            self._paused_until = at + PROBE_EVERY
            self.rate = (self.rate + worth) / 2 + 0.01
            self.length = MIN_DRAFT
            return 0
        return n

    def observe(self, drafted: int, right: int) -> None:
        self.rate += SMOOTHING * (right / drafted - self.rate)
        if right == drafted:
            self.length = min(2 * self.length, MAX_DRAFT)
        elif 2 * right < drafted:
            self.length = max(self.length // 2, MIN_DRAFT)


class Guesser(Protocol):
    """`cost_s` is what one guess takes to make, in seconds."""

    cost_s: float

    def guess(self, wanted: list[tuple[Sequence, int]]) -> dict[int, list[int]]:
        """By sequence id, up to so many guesses at what follows its tokens; absent where there are none."""
        ...


class PromptLookup:
    """Guesses from each sequence's own tokens, by where its last n-gram stood before."""

    cost_s = 0.0

    def guess(self, wanted: list[tuple[Sequence, int]]) -> dict[int, list[int]]:
        found = {s.id: s.ngrams.following(s.tokens, n) for s, n in wanted}
        return {id: guess for id, guess in found.items() if len(guess) >= MIN_DRAFT}


class Ngrams:
    """Where each n-gram of a growing text ends."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        self._indexed = 0

    def following(self, tokens: list[int], n: int) -> list[int]:
        """The n tokens that came after the last n-gram when it stood there before."""
        for end in range(max(self._indexed, NGRAM), len(tokens)):  # the last one itself is left out
            self._ends[tuple(tokens[end - NGRAM : end])] = end
        self._indexed = max(self._indexed, len(tokens))
        at = self._ends.get(tuple(tokens[-NGRAM:]), -1)
        return tokens[at : at + n] if at >= 0 else []


class Speculator:
    """Who may guess in a step, and how much. A batch of `max_rows` has no room for guesses."""

    def __init__(self, guesser: Guesser, max_rows: int) -> None:
        self.guesser = guesser
        self.max_rows = max_rows
        self.drafted = 0
        self.accepted = 0

    def draft(self, sequences: list[Sequence], cells: int, n_ctx: int, budget: StepBudget) -> dict[int, list[int]]:
        """Guesses by sequence id, for decoding sequences without constraints or log-probabilities.

        `cells` are free in the KV cache; a sequence may hold `n_ctx` tokens.
        """
        worth = budget.worth(len(sequences), self.guesser.cost_s)
        room = min(self.max_rows - len(sequences), cells)
        wanted = []
        for s in sequences:
            if s.constraint is not None or s.wants_logprobs:
                continue
            limit = min(room, n_ctx - len(s.tokens) - 1)
            if s.max_tokens is not None:
                limit = min(limit, s.max_tokens - s.generated - 1)
            if n := s.pace.allow(len(s.tokens), limit, worth):
                wanted.append((s, n))
                room -= n
        return self.guesser.guess(wanted) if wanted else {}

    def observe(self, sequence: Sequence, drafted: int, right: int) -> None:
        sequence.pace.observe(drafted, right)
        self.drafted += drafted
        self.accepted += right
