"""A core without a model, for the scheduler's tests alone."""

from __future__ import annotations

from typing import Any

from minerva.engine.budget import StepBudget
from minerva.engine.scheduler import Chunk, Scheduler
from minerva.engine.sequence import Sequence


class FakeMemory:
    """Counts the cells that each slot holds, as llama.cpp's memory would."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}

    def remove(self, seq: int, start: int = 0, stop: int = -1) -> bool:
        self.held[seq] = min(self.held.get(seq, 0), start)
        return True


class FakeCore:
    """Steps a scheduler: every chunk becomes cells, every sequence that is up to date gets a token."""

    def __init__(self, **sizes: Any) -> None:
        self.memory = FakeMemory()
        limits = {"n_slots": 4, "n_cells": 1024, "n_ctx": 512, "queue_size": 64} | sizes
        batch = limits.pop("batch", 64)
        self.scheduler = Scheduler(self.memory, budget=StepBudget(batch, 0.2), **limits)
        self.now = 0.0

    def sequence(self, id: int, prompt: int, max_tokens: int = 4, **kwargs: Any) -> Sequence:
        sequence = Sequence(id, list(range(prompt)), None, max_tokens, None, arrived=self.now, **kwargs)  # type: ignore[arg-type]
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> list[Chunk]:
        """Plans, computes, gives tokens, ends what has all of them."""
        self.now += 1.0
        chunks = self.scheduler.plan(self.now)
        for chunk in chunks:
            slot = chunk.sequence.slot
            assert self.memory.held.get(slot, 0) == chunk.start, "a chunk must go on where its cells end"
            self.memory.held[slot] = chunk.stop
        assert sum(self.memory.held.values()) <= self.scheduler.n_cells
        yielding = [c.sequence for c in chunks if c.yields]
        self.scheduler.advance(chunks)
        for sequence in yielding:
            sequence.tokens.append(0)
            if sequence.generated >= (sequence.max_tokens or 0):
                self.scheduler.release(sequence)
        self.scheduler.check_integrity()
        return chunks

    def run(self, limit: int = 10_000) -> int:
        """Steps until nothing is left; gives how many that took."""
        for steps in range(limit):
            if not self.scheduler.has_work:
                return steps
            self.step()
        raise AssertionError(f"still work after {limit} steps")
