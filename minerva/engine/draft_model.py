"""A small model that guesses for a large one. It keeps a KV cache of its own, in step with the sequences' slots."""

from __future__ import annotations

import time
from pathlib import Path

from minerva._core import Batch, Context, Model, Sampler, Vocab
from minerva.engine.params import SamplingParams
from minerva.engine.radix import common_prefix
from minerva.engine.sequence import Sequence
from minerva.errors import ModelLoadError

GREEDY = SamplingParams(temperature=0, ignore_eos=True)
MAX_VOCAB_DIFFERENCE = 128
"""Tokens by which two vocabularies of one family may differ at their ends, as llama.cpp allows."""

CHECKED_TOKENS = 1000
SMOOTHING = 0.2


class DraftModel:
    """Raises `ModelLoadError` for a model that does not share the target's vocabulary."""

    def __init__(
        self, path: Path, target: Vocab, *, n_cells: int, n_slots: int, n_batch: int, threads: int, gpu_layers: int
    ) -> None:
        model = Model(str(path), gpu_layers=gpu_layers)
        _check_vocabulary(path, model.vocab, target)
        self.cost_s = 0.0
        self._context = Context(
            model, n_ctx=n_cells, n_slots=n_slots, n_batch=n_batch, threads=threads, threads_batch=threads
        )
        self._batch = Batch(n_batch)
        self._samplers = [Sampler(model.vocab, GREEDY) for _ in range(n_slots)]
        self._held: list[list[int]] = [[] for _ in range(n_slots)]

    def guess(self, wanted: list[tuple[Sequence, int]]) -> dict[int, list[int]]:
        started = time.monotonic()
        guesses: dict[int, list[int]] = {s.id: [] for s, _ in wanted}
        texts = {s.slot: list(s.tokens) for s, _ in wanted}
        for slot, text in texts.items():
            self._cut(slot, common_prefix(self._held[slot], text, 0, len(text) - 1))
        while left := [s for s, n in wanted if len(guesses[s.id]) < n]:
            self._batch.clear()
            whole = []
            for s in left:
                text, held = texts[s.slot], self._held[s.slot]
                stop = min(len(text), len(held) + self._batch.capacity - len(self._batch))
                if stop > len(held):
                    complete = stop == len(text)
                    sampler = self._samplers[s.slot] if complete else None
                    self._batch.add(s.slot, text, len(held), stop, sampler)
                    held += text[len(held) : stop]
                    if complete:
                        whole.append(s)
            for s, (tokens, _, _) in zip(whole, self._context.step(self._batch), strict=True):
                guesses[s.id] += tokens
                texts[s.slot] += tokens
        made = sum(len(guess) for guess in guesses.values())
        self.cost_s += SMOOTHING * ((time.monotonic() - started) / made - self.cost_s)
        return guesses

    def _cut(self, slot: int, length: int) -> None:
        self._context.remove(slot, length)
        del self._held[slot][length:]


def _check_vocabulary(path: Path, draft: Vocab, target: Vocab) -> None:
    if abs(len(draft) - len(target)) > MAX_VOCAB_DIFFERENCE or draft.eos != target.eos:
        raise ModelLoadError(f"the draft model {path} has another vocabulary than the model it is to guess for")
    for token in range(5, min(len(draft), len(target), CHECKED_TOKENS)):
        if draft.piece(token) != target.piece(token):
            raise ModelLoadError(f"the draft model {path} has another token {token} than the model it is to guess for")
