"""A core without a model, for the scheduler's tests alone."""

from __future__ import annotations

import itertools
from typing import Any

from minerva.engine.budget import StepBudget
from minerva.engine.prefix_cache import NoSharing, PrefixCache
from minerva.engine.ram_tier import RamTier
from minerva.engine.scheduler import Chunk, Scheduler
from minerva.engine.sequence import Sequence


class FakeMemory:
    """Cells tagged with sequence ids, as llama.cpp's unified memory has them. A cell remembers its token."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.sequences: dict[int, dict[int, tuple[int, int]]] = {}
        self._ids = itertools.count()

    def compute(self, seq: int, position: int, token: int) -> None:
        cells = self.sequences.setdefault(seq, {})
        assert position == len(cells), f"sequence {seq} has {len(cells)} cells, position {position} is computed"
        cells[position] = (next(self._ids), token)

    def remove(self, seq: int, start: int = 0, stop: int = -1) -> bool:
        cells = self.sequences.get(seq, {})
        for position in [p for p in cells if p >= start and (stop < 0 or p < stop)]:
            del cells[position]
        return True

    def copy(self, source: int, target: int, start: int = 0, stop: int = -1) -> None:
        cells = self.sequences.setdefault(target, {})
        for position, cell in self.sequences[source].items():
            if position >= start and (stop < 0 or position < stop):
                assert position not in cells, "a copy must not land on cells that are there"
                cells[position] = cell

    def length(self, seq: int) -> int:
        return max(self.sequences.get(seq, {}), default=-1) + 1

    def save(self, seq: int) -> bytes:
        return ",".join(str(token) for _, (_, token) in sorted(self.sequences[seq].items())).encode()

    def restore(self, seq: int, blob: bytes) -> bool:
        self.remove(seq)
        if self.used + len(blob.split(b",")) > self.capacity:
            return False
        self.sequences[seq] = {i: (next(self._ids), int(t)) for i, t in enumerate(blob.split(b","))}
        return True

    def tokens(self, seq: int) -> list[int]:
        return [token for _, (_, token) in sorted(self.sequences.get(seq, {}).items())]

    @property
    def used(self) -> int:
        return len({cell for cells in self.sequences.values() for cell, _ in cells.values()})


class FakeCore:
    """Steps a scheduler: every chunk becomes cells, every sequence that is up to date gets a token."""

    def __init__(self, *, sharing: bool = False, ram: int = 0, **sizes: Any) -> None:
        limits = {"n_slots": 4, "n_cells": 1024, "n_ctx": 512, "queue_size": 64} | sizes
        self.memory = FakeMemory(limits["n_cells"])
        batch = limits.pop("batch", 64)
        self.cache = PrefixCache(self.memory, n_slots=limits["n_slots"], ram=RamTier(ram)) if sharing else NoSharing()
        self.scheduler = Scheduler(self.memory, self.cache, budget=StepBudget(batch, 0.2), **limits)
        self.now = 0.0
        self.computed = 0

    def sequence(self, id: int, prompt: int | list[int], max_tokens: int = 4, **kwargs: Any) -> Sequence:
        """A prompt of so many tokens that no other has, or of these."""
        tokens = [id * 1000 + i for i in range(prompt)] if isinstance(prompt, int) else list(prompt)
        sequence = Sequence(id, tokens, None, max_tokens, None, arrived=self.now, **kwargs)  # type: ignore[arg-type]
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> list[Chunk]:
        """Plans, computes, gives tokens, ends what has all of them; everything is verified."""
        self.now += 1.0
        chunks = self.scheduler.plan(self.now)
        for chunk in chunks:
            sequence = chunk.sequence
            for position in range(chunk.start, chunk.stop):
                self.memory.compute(sequence.slot, position, sequence.tokens[position])
            self.computed += chunk.stop - chunk.start
        assert self.memory.used <= self.scheduler.n_cells
        yielding = [c.sequence for c in chunks if c.yields]
        self.scheduler.advance(chunks)
        for sequence in yielding:
            sequence.tokens.append(sequence.id * 7 + sequence.generated)
            if sequence.generated >= (sequence.max_tokens or 0):
                self.scheduler.release(sequence)
        self.verify()
        return chunks

    def verify(self) -> None:
        self.scheduler.check_integrity()
        assert self.memory.used == self.scheduler.used_cells
        for s in self.scheduler.running:
            assert self.memory.tokens(s.slot) == s.tokens[: s.computed]

    def run(self, limit: int = 10_000) -> int:
        """Steps until nothing is left; gives how many that took."""
        for steps in range(limit):
            if not self.scheduler.has_work:
                return steps
            self.step()
        raise AssertionError(f"still work after {limit} steps")
