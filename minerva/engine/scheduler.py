"""Which tokens of which sequences the next step computes. Pure policy: no I/O, no thread, no clock of its own."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from minerva.engine.budget import StepBudget, share
from minerva.engine.prefix_cache import Memory, Sharing
from minerva.engine.radix import common_prefix
from minerva.engine.sequence import Sequence, Status
from minerva.engine.speculation import Ngrams, Speculator
from minerva.errors import EngineError, OverloadedError

HEADROOM = 8
"""Free cells per running sequence that an admission must leave, so that it is not undone a step later."""


WORTH_WAITING = 32
"""Tokens. For a longer prefix that another request is computing, a request waits instead of computing it too."""


@dataclass(slots=True, frozen=True)
class Chunk:
    """Tokens start..stop-1 of a sequence, and guesses at what follows them. The last of them yields a token when it
    is the sequence's last, and one more for each guess that is right.
    """

    sequence: Sequence
    start: int
    stop: int
    drafts: list[int] = field(default_factory=list)

    @property
    def yields(self) -> bool:
        return self.stop == len(self.sequence.tokens)


class Scheduler:
    """Sequences wait in order of priority and arrival, and run in slots 0..n_slots-1.

    `n_cells` is what all sequences may hold together, `n_ctx` what one may hold, in tokens. When the cells run
    out cached prefixes are evicted, then the youngest running sequence leaves its own to the cache and waits: one
    that was admitted never fails because others came.
    """

    def __init__(
        self,
        memory: Memory,
        cache: Sharing,
        *,
        n_slots: int,
        n_cells: int,
        n_ctx: int,
        budget: StepBudget,
        queue_size: int,
        speculator: Speculator | None = None,
    ) -> None:
        self.memory = memory
        self.cache = cache
        self.n_slots = n_slots
        self.n_cells = n_cells
        self.n_ctx = n_ctx
        self.budget = budget
        self.queue_size = queue_size
        self.speculator = speculator
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
        drafts = {} if prompts else self._draft(decoding)
        chunks = [Chunk(s, s.computed, s.computed + 1, drafts.get(s.id, [])) for s in decoding]
        budget = self.budget.prompt_tokens(len(decoding))
        for sequence, n in zip(prompts, share(budget, [s.remaining for s in prompts]), strict=True):
            if n:
                chunks.append(Chunk(sequence, sequence.computed, sequence.computed + n))
        return chunks

    def advance(self, chunks: list[Chunk]) -> None:
        """The chunks are computed. A prompt that is complete is there for others from now on."""
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.computed = chunk.stop
            if chunk.yields and not sequence.generated:
                self.cache.publish(sequence)

    def extend(self, chunk: Chunk, tokens: list[int]) -> None:
        """The chunk, now computed, yielded these tokens: all but the last one were guessed, and are computed, too."""
        sequence = chunk.sequence
        sequence.tokens += tokens
        if chunk.drafts:
            right = len(tokens) - 1
            sequence.computed += right
            self.memory.remove(sequence.slot, sequence.computed)
            assert self.speculator is not None
            self.speculator.observe(sequence, len(chunk.drafts), right)

    def shift(self, sequence: Sequence) -> None:
        """Makes room in a full context: the first quarter and the last quarter stay, and are computed again as one
        text. Moving cached positions instead would move them for everyone who shares their cells.
        """
        keep, drop = self.n_ctx // 4, self.n_ctx // 2
        self.cache.publish(sequence)
        self.cache.detach(sequence)
        self.memory.remove(sequence.slot)
        sequence.computed = 0
        del sequence.tokens[keep : keep + drop]
        sequence.dropped += drop
        sequence.ngrams = Ngrams()
        self.cache.attach(sequence, 0)

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
            if s.slot != -1 or s.computed or s.node is not None:
                raise EngineError(f"waiting sequence {s.id} holds slot {s.slot} and {s.computed} cells")
        self.cache.check_integrity(self.running)

    @property
    def used_cells(self) -> int:
        """Cells of running sequences and of the cache; the rest is free."""
        return self.cache.cells + sum(s.computed - s.shared for s in self.running)

    def preempt(self, sequence: Sequence) -> None:
        """Takes a running sequence's slot; it waits, tokens and sampler intact, its cells left to the cache."""
        self.running.remove(sequence)
        self._free(sequence)
        sequence.status = Status.WAITING
        self._enqueue(sequence)
        self.preemptions += 1

    def _draft(self, decoding: list[Sequence]) -> dict[int, list[int]]:
        if self.speculator is None or not decoding:
            return {}
        cells = self.n_cells - self.cache.cells - sum(s.own for s in self.running)
        return self.speculator.draft(decoding, cells, self.n_ctx, self.budget)

    def _enqueue(self, sequence: Sequence) -> None:
        bisect.insort(self.waiting, sequence, key=_order)

    def _admit(self, now: float) -> None:
        for sequence in list(self.waiting):
            if not self.free_slots:
                return
            if self._is_led(sequence):
                continue
            sequence.slot = self.free_slots.pop()
            self.cache.attach(sequence, self._room())
            if self.running and sequence.own + HEADROOM * (len(self.running) + 1) > self._room():
                self._free(sequence)
                return
            self.waiting.remove(sequence)
            sequence.status = Status.RUNNING
            if sequence.admitted is None:
                sequence.admitted = now
            self.running.append(sequence)

    def _room(self) -> int:
        """Cells that could be had for one more sequence, by eviction at most."""
        return self.n_cells - self.cache.locked_cells - sum(s.own for s in self.running)

    def _is_led(self, sequence: Sequence) -> bool:
        """True while another sequence is computing a prefix that this one needs, too."""
        leader = sequence.leader
        if leader is None:
            leader, length = self._find_leader(sequence)
            if leader is None:
                return False
            sequence.leader, sequence.leader_len = leader, length
        if leader.status is Status.RUNNING and leader.computed < sequence.leader_len:
            return True
        if leader.status is Status.RUNNING:
            self.cache.publish(leader)
        sequence.leader = None
        return False

    def _find_leader(self, sequence: Sequence) -> tuple[Sequence | None, int]:
        """The running sequence that will soon hold the most of this one's prompt, if that is worth the wait."""
        limit = len(sequence.tokens) - 1
        best, longest = None, self.cache.peek(sequence) + WORTH_WAITING
        for other in self.running:
            if not other.decoding and other.namespace == sequence.namespace and limit >= longest:
                n = common_prefix(other.tokens, sequence.tokens, 0, limit)
                if n >= longest:
                    best, longest = other, n
        return best, longest

    def _make_room(self) -> None:
        while (over := self.cache.cells + sum(s.own for s in self.running) - self.n_cells) > 0:
            if not self.cache.evict(over):
                if len(self.running) == 1:
                    raise EngineError(f"one sequence needs {over} cells more than there are")
                self.preempt(max(self.running, key=_order))

    def _free(self, sequence: Sequence) -> None:
        if sequence.computed:
            self.cache.publish(sequence)
        self.cache.detach(sequence)
        self.memory.remove(sequence.slot)
        self.free_slots.append(sequence.slot)
        sequence.slot = -1
        sequence.computed = 0


def _order(sequence: Sequence) -> tuple[int, float, int]:
    return (sequence.priority, sequence.arrived, sequence.id)
