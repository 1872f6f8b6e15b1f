"""llama.cpp's sampler chain by its definition, in numpy: what a seed has to give."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from minerva.engine.params import SamplingParams

Row = NDArray[np.float32]


class Chain:
    """Candidates are (ids, logits) in the order in which llama.cpp holds them: a draw walks along them."""

    def __init__(self, params: SamplingParams, seed: int, history: Iterable[int] = ()) -> None:
        self.params = params
        self.history = list(history)
        self._bits = np.random.RandomState(seed)._bit_generator  # std::mt19937, seeded the same way

    def sample(self, logits: Row) -> int:
        p = self.params
        logits = self.adjusted(logits)
        if p.temperature == 0:
            token = int(logits.argmax())
        else:
            ids = np.arange(len(logits))
            if p.top_k:
                ids = by_logit(ids, logits)[: p.top_k]
            if p.typical_p < 1:
                ids = typical(ids, logits, p.typical_p)
            if p.top_p < 1:
                ids = top_p(ids, logits, p.top_p)
            if p.min_p > 0:
                ids = ids[logits[ids] >= logits[ids].max() + np.log(np.float32(p.min_p))]
            token = self._draw(ids, logits[ids] / np.float32(p.temperature))
        self.history.append(token)
        return token

    def adjusted(self, logits: Row) -> Row:
        p, out = self.params, logits.copy()
        for token, bias in p.logit_bias.items():
            out[token] += np.float32(bias)
        window = self.history[-p.repeat_last_n :] if p.repeat_last_n else []
        for token in set(window):
            repeat = np.float32(p.repeat_penalty)
            out[token] = out[token] * repeat if out[token] <= 0 else out[token] / repeat
            out[token] -= np.float32(window.count(token) * p.frequency_penalty + p.presence_penalty)
        return out

    def _draw(self, ids: NDArray[np.int64], logits: Row) -> int:
        """libstdc++'s and libc++'s uniform_real_distribution<double> on a 32-bit generator takes two numbers."""
        low, high = int(self._bits.random_raw()), int(self._bits.random_raw())
        weights = np.exp(logits - logits.max()).astype(np.float64)
        target = weights.sum() * ((low + high * 2.0**32) / 2.0**64)
        return int(ids[np.searchsorted(np.cumsum(weights), target)])


def by_logit(ids: NDArray[np.int64], logits: Row) -> NDArray[np.int64]:
    return ids[np.argsort(-logits[ids], kind="stable")]


def softmax(logits: Row) -> Row:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def top_p(ids: NDArray[np.int64], logits: Row, p: float) -> NDArray[np.int64]:
    """Holtzman et al. 2020: the fewest likeliest tokens that together have at least p."""
    ids = by_logit(ids, logits)
    return ids[: int(np.searchsorted(np.cumsum(softmax(logits[ids])), np.float32(p))) + 1]


def typical(ids: NDArray[np.int64], logits: Row, p: float) -> NDArray[np.int64]:
    """Meister et al. 2023: the tokens whose surprise is nearest to the entropy, until they have more than p."""
    ids = by_logit(ids, logits)
    probabilities = softmax(logits[ids])
    surprise = -np.log(probabilities)
    nearest = np.argsort(np.abs(surprise - (probabilities * surprise).sum()), kind="stable")
    return ids[nearest[: int(np.searchsorted(np.cumsum(probabilities[nearest]), np.float32(p), "right")) + 1]]


def log_softmax(logits: Row) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
