"""`_core` driven by hand: one context, one batch, a few lines a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minerva._core import Batch, Context, Model, Sampler
from minerva.engine.params import SamplingParams

GREEDY = SamplingParams(temperature=0.0)
PROMPT = [1, *range(300, 340)]
"""Token ids of no meaning, behind a BOS."""


class Driver:
    def __init__(self, model: Model, **options: Any) -> None:
        options = {"n_ctx": 1024, "n_slots": 4, "n_batch": 512} | options
        self.model = model
        self.context = Context(model, **options)
        self.batch = Batch(options["n_batch"])

    def prefill(self, seq: int, tokens: list[int], start: int = 0) -> NDArray[np.float32]:
        """Computes tokens[start:] of a sequence; gives the logits of the last."""
        self.batch.clear()
        self.batch.add(seq, tokens, start, len(tokens), logits=True)
        self.context.step(self.batch)
        return self.context.logits(len(tokens) - start - 1)

    def sample(self, seq: int, tokens: list[int], sampler: Sampler) -> tuple[int, str, int]:
        """Computes what the sequence lacks, and samples: (token, text, ending)."""
        self.batch.clear()
        self.batch.add(seq, tokens, self.context.length(seq), len(tokens), sampler)
        tokens, text, ending = self.context.step(self.batch)[0]
        return (tokens[0] if tokens else -1), text, ending

    def generate(self, tokens: list[int], sampler: Sampler, n: int, seq: int = 0) -> tuple[list[int], str, int]:
        """Up to n tokens, in a sequence of its own: (tokens, text with what was held back at the end, ending)."""
        self.context.remove(seq)
        tokens, made, text, ending = list(tokens), [], "", 0
        while len(made) < n and not ending:
            token, piece, ending = self.sample(seq, tokens, sampler)
            assert ending >= 0, sampler.error
            tokens.append(token)
            made.append(token)
            text += piece
        return made, text + sampler.flush(), ending

    def greedy(self, tokens: list[int], n: int, seq: int = 0) -> list[int]:
        return self.generate(tokens, Sampler(self.model.vocab, GREEDY), n, seq)[0]


def token_of(model: Model, piece: bytes) -> int:
    """The byte token of SentencePiece for one byte."""
    (byte,) = piece
    token = byte + 3  # after <unk>, <s> and </s>
    assert model.vocab.piece(token) == piece
    return token
