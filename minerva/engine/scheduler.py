"""Which tokens of which sequences the next step computes. Pure policy: no I/O, no thread, no clock of its own."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Protocol

from minerva.engine.budget import StepBudget, share
from minerva.engine.sequence import Sequence, Status
from minerva.errors import EngineError, OverloadedError

HEADROOM = 8
"""Free cells per running sequence that an admission must leave, so that it is not undone a step later."""


class Memory(Protocol):
    """The KV cache as the scheduler uses it: `minerva._core.Context` is one."""

    def remove(self, seq: int, start: int = 0, stop: int = -1) -> bool: ...


@dataclass(slots=True, frozen=True)
class Chunk:
    """Tokens start..stop-1 of a sequence; the last of them yields a token when it is the sequence's last."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def yields(self) -> bool:
        return self.stop == len(self.sequence.tokens)


class Scheduler:
    """Sequences wait in order of priority and arrival, and run in slots 0..n_slots-1.

    `n_cells` is what all sequences may hold together, `n_ctx` what one may hold, in tokens. When the cells run
    out the youngest running sequence gives its own back and waits to be computed again: one that was admitted
    never fails because others came.
    """

    def __init__(
        self, memory: Memory, *, n_slots: int, n_cells: int, n_ctx: int, budget: StepBudget, queue_size: int
    ) -> None:
        self.memory = memory
        self.n_slots = n_slots
        self.n_cells = n_cells
        self.n_ctx = n_ctx
        self.budget = budget
        self.queue_size = queue_size
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.free_slots = list(range(n_slots - 1, -1, -1))
        self.preemptions = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Raises `OverloadedError` when the queue is full."""
        if len(self.waiting) >= self.queue_size:
            raise OverloadedError(f"the queue is full: {len(self.waiting)} requests are waiting", retry_after=5.0)
        self._enqueue(sequence)

    def plan(self, now: float) -> list[Chunk]:
        """The next step's chunks: every decoding sequence's token, then prompts within the budget."""
        self._admit(now)
        self._make_room()
        decoding = [s for s in self.running if s.decoding]
        prompts = [s for s in self.running if not s.decoding]
        chunks = [Chunk(s, s.computed, s.computed + 1) for s in decoding]
        budget = self.budget.prompt_tokens(len(decoding))
        for sequence, n in zip(prompts, share(budget, [s.remaining for s in prompts]), strict=True):
            if n:
                chunks.append(Chunk(sequence, sequence.computed, sequence.computed + n))
        return chunks

    def advance(self, chunks: list[Chunk]) -> None:
        """The chunks are computed."""
        for chunk in chunks:
            chunk.sequence.computed = chunk.stop

    def release(self, sequence: Sequence) -> None:
        """The sequence has ended, from wherever it was."""
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
            self._free(sequence)
        elif sequence.status is Status.WAITING:
            self.waiting.remove(sequence)
        sequence.status = Status.FINISHED

    def expired(self, now: float) -> list[Sequence]:
        """Sequences whose deadline has passed."""
        late = [s for s in self.waiting if s.deadline is not None and s.deadline <= now]
        return late + [s for s in self.running if s.deadline is not None and s.deadline <= now]

    def check_integrity(self) -> None:
        """Slots and cells are conserved. Raises `EngineError` when they are not."""
        slots = sorted([s.slot for s in self.running] + self.free_slots)
        if slots != list(range(self.n_slots)):
            raise EngineError(f"slots are not conserved: {slots}")
        if self.used_cells > self.n_cells:
            raise EngineError(f"{self.used_cells} cells in use of {self.n_cells}")
        for s in self.waiting:
            if s.slot != -1 or s.computed != 0:
                raise EngineError(f"waiting sequence {s.id} holds slot {s.slot} and {s.computed} cells")

    @property
    def used_cells(self) -> int:
        return sum(s.computed for s in self.running)

    def _enqueue(self, sequence: Sequence) -> None:
        bisect.insort(self.waiting, sequence, key=lambda s: (s.priority, s.arrived, s.id))

    def _admit(self, now: float) -> None:
        promised = sum(len(s.tokens) for s in self.running)
        while self.waiting and self.free_slots:
            sequence = self.waiting[0]
            headroom = HEADROOM * (len(self.running) + 1)
            if self.running and promised + len(sequence.tokens) + headroom > self.n_cells:
                return
            self.waiting.pop(0)
            sequence.slot = self.free_slots.pop()
            sequence.status = Status.RUNNING
            if sequence.admitted is None:
                sequence.admitted = now
            self.running.append(sequence)
            promised += len(sequence.tokens)

    def _make_room(self) -> None:
        while len(self.running) > 1 and sum(len(s.tokens) for s in self.running) > self.n_cells:
            self.preempt(max(self.running, key=lambda s: (s.priority, s.arrived, s.id)))

    def preempt(self, sequence: Sequence) -> None:
        """Takes a running sequence's cells and slot; it waits to be computed again, tokens and sampler intact."""
        self.running.remove(sequence)
        self._free(sequence)
        sequence.status = Status.WAITING
        self._enqueue(sequence)
        self.preemptions += 1

    def _free(self, sequence: Sequence) -> None:
        self.memory.remove(sequence.slot)
        self.free_slots.append(sequence.slot)
        sequence.slot = -1
        sequence.computed = 0
