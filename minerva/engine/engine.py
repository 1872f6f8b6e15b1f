"""The engine's thread: plan, step, hand out what came of it, again."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from minerva.engine.counters import Counters
from minerva.engine.output import Output
from minerva.engine.scheduler import Chunk, Scheduler
from minerva.engine.sequence import Sequence, Status
from minerva.errors import DeadlineError, EngineError, MinervaError, OverloadedError, ShuttingDownError

if TYPE_CHECKING:
    from minerva._core import Batch, Context
    from minerva.engine.constraints import TokenConstraint

log = logging.getLogger(__name__)

SMOOTHING = 0.1
"""Weight of one request in the time that requests keep their slots."""


class Engine:
    """Runs sequences over one context. Every method may be called from any thread.

    A sequence's `emit` is called on the engine's thread and must not block. Its last output has `finish` or `error`.
    """

    def __init__(self, context: Context, batch: Batch, scheduler: Scheduler, *, check_integrity: bool = False) -> None:
        self.context = context
        self.scheduler = scheduler
        self.counters = Counters()
        self._batch = batch
        self._masks = ThreadPoolExecutor(1, thread_name_prefix="minerva-masks")
        self._check_integrity = check_integrity
        self._service_s = 0.0
        self._live: dict[int, Sequence] = {}
        self._added: deque[Sequence] = deque()
        self._cancelled: deque[int] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="minerva-engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, sequence: Sequence) -> None:
        """Queues a sequence; a full queue comes back as an error output."""
        with self._wake:
            if self._stopping:
                raise ShuttingDownError("the model is being unloaded", retry_after=5.0)
            sequence.arrived = time.monotonic()
            self._added.append(sequence)
            self._wake.notify()

    def cancel(self, id: int) -> None:
        """Ends a sequence within one step, without another output. An unknown id is one that has ended already."""
        with self._wake:
            self._cancelled.append(id)
            self._wake.notify()

    def stop(self) -> None:
        """Ends every sequence with an error, then the thread. Returns when it has ended."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def running(self) -> int:
        return len(self.scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self.scheduler.waiting) + len(self._added)

    def wait_s(self, position: int) -> float:
        """Seconds until a request at this place of the queue gets a slot, by how long the last ones kept theirs."""
        return max(1.0, (position + 1) * self._service_s / self.scheduler.n_slots)

    def queue(self) -> list[Sequence]:
        """Running sequences, then waiting ones in the order in which they will be admitted."""
        return [*self.scheduler.running, *self.scheduler.waiting]

    def gauges(self) -> dict[str, float]:
        """KV cells and bytes as they are now."""
        scheduler = self.scheduler
        return {
            "slots": scheduler.n_slots,
            "kv_cells": scheduler.n_cells,
            "kv_cells_used": scheduler.used_cells,
            "cached_prefix_cells": scheduler.cache.cells,
            "cache_ram_bytes": scheduler.cache.ram_bytes,
        }

    def _run(self) -> None:
        while self._take_commands():
            try:
                self._step()
            except Exception as e:
                log.exception("the engine's step failed")
                self._fail_all(e if isinstance(e, MinervaError) else EngineError(f"the step failed: {e}"))
        self._fail_all(ShuttingDownError("the model is being unloaded", retry_after=5.0))

    def _take_commands(self) -> bool:
        """Takes what was asked since the last step; without work, waits for some. False when it is time to stop."""
        if not (self._added or self._cancelled or self._stopping) and self.scheduler.has_work:
            return True
        with self._wake:
            while not (self._added or self._cancelled or self._stopping or self.scheduler.has_work):
                self._wake.wait()
            added, self._added = self._added, deque()
            cancelled, self._cancelled = self._cancelled, deque()
        for sequence in added:
            try:
                self.scheduler.add(sequence)
            except OverloadedError as e:
                self.counters.requests_refused += 1
                e.retry_after = self.wait_s(self.waiting)
                sequence.emit(Output(sequence, error=e))
            else:
                self._live[sequence.id] = sequence
        for id in cancelled:
            gone = self._live.pop(id, None)
            if gone is not None:
                self.scheduler.release(gone)
                self.counters.requests_cancelled += 1
        return not self._stopping

    def _step(self) -> None:
        now = time.monotonic()
        for late in self.scheduler.expired(now):
            self._end(late, error=DeadlineError("the request's time is up"))
        chunks = self.scheduler.plan(now)
        if not chunks:
            return
        self._fill(chunks)
        constraints = [c.sequence.constraint for c in chunks if c.yields and c.sequence.constraint is not None]
        if constraints:
            masks = self._masks.submit(_fill_masks, constraints)
            outputs = self.context.step(self._batch, masks.result)
        else:
            outputs = self.context.step(self._batch)
        done = time.monotonic()
        self._account(chunks, done - now)
        self.scheduler.advance(chunks)
        yielding = [chunk for chunk in chunks if chunk.yields]
        for chunk, (tokens, text, ending) in zip(yielding, outputs, strict=True):
            self._take(chunk, tokens, text, ending, done)
        if self._check_integrity:
            self._verify()

    def _fill(self, chunks: list[Chunk]) -> None:
        self._batch.clear()
        for chunk in chunks:
            s = chunk.sequence
            if not chunk.drafts:
                self._batch.add(s.slot, s.tokens, chunk.start, chunk.stop, s.sampler if chunk.yields else None)
                continue
            n = len(chunk.drafts)
            s.tokens += chunk.drafts
            self._batch.add(s.slot, s.tokens, chunk.start, chunk.stop + n, s.sampler, drafts=n)
            del s.tokens[-n:]

    def _take(self, chunk: Chunk, tokens: list[int], text: str, ending: int, now: float) -> None:
        sequence = chunk.sequence
        if ending < 0:
            self._end(sequence, error=EngineError(sequence.sampler.error))
            return
        if sequence.first_token is None:
            sequence.first_token = now
            self.counters.cached_tokens += sequence.cached
        self.scheduler.extend(chunk, tokens)
        self.counters.generated_tokens += len(tokens)
        logprobs = sequence.sampler.logprobs() if sequence.wants_logprobs else None
        finish = stop_sequence = None
        if ending:
            finish, stop_sequence = "stop", sequence.sampler.stop_sequence
            if stop_sequence is None:
                logprobs = None
        elif sequence.constraint is not None:
            try:
                sequence.constraint.accept(tokens[0])
            except EngineError as e:
                self._end(sequence, error=e)
                return
            finish = "stop" if sequence.constraint.complete else None
        if finish is None and self._is_full(sequence):
            finish = "length"
        elif finish is None and len(sequence.tokens) >= self.scheduler.n_ctx:
            self.scheduler.shift(sequence)
        if finish and not ending:
            text += sequence.sampler.flush()
        if finish:
            self._release(sequence)
            self.counters.requests_finished += 1
            self._service_s += SMOOTHING * (now - (sequence.admitted or now) - self._service_s)
        sequence.emit(Output(sequence, text, logprobs, finish, stop_sequence, at=now))

    def _is_full(self, sequence: Sequence) -> bool:
        limit = sequence.max_tokens
        full = len(sequence.tokens) >= self.scheduler.n_ctx and not sequence.shifts
        return full or (limit is not None and sequence.generated >= limit)

    def _account(self, chunks: list[Chunk], seconds: float) -> None:
        decoding = sum(1 for c in chunks if c.sequence.decoding)
        prompt_tokens = sum(c.stop - c.start for c in chunks if not c.sequence.decoding)
        self.scheduler.budget.observe(decoding, prompt_tokens, sum(len(c.drafts) for c in chunks), seconds)
        self.counters.steps += 1
        self.counters.step_s += seconds
        self.counters.prompt_tokens += prompt_tokens
        self.counters.preemptions = self.scheduler.preemptions
        self.counters.evicted_tokens = self.scheduler.cache.evicted
        if self.scheduler.speculator is not None:
            self.counters.drafted_tokens = self.scheduler.speculator.drafted
            self.counters.accepted_tokens = self.scheduler.speculator.accepted

    def _end(self, sequence: Sequence, *, error: MinervaError) -> None:
        self._release(sequence)
        self.counters.requests_failed += 1
        sequence.emit(Output(sequence, error=error))

    def _release(self, sequence: Sequence) -> None:
        self._live.pop(sequence.id, None)
        self.scheduler.release(sequence)

    def _fail_all(self, error: MinervaError) -> None:
        for sequence in [*self.scheduler.running, *self.scheduler.waiting]:
            self._end(sequence, error=error)
        for sequence in self._added:
            sequence.emit(Output(sequence, error=error))
        self._added.clear()

    def _verify(self) -> None:
        """What the scheduler believes is computed is what llama.cpp's memory holds."""
        self.scheduler.check_integrity()
        for s in self.scheduler.running:
            held = self.context.length(s.slot)
            if s.status is Status.RUNNING and held != s.computed:
                raise EngineError(f"sequence {s.id}: {s.computed} tokens computed, slot {s.slot} holds {held}")


def _fill_masks(constraints: list[TokenConstraint]) -> None:
    """One that cannot be filled allows nothing, which fails its own sequence and no other."""
    for constraint in constraints:
        try:
            constraint.fill()
        except Exception:
            log.exception("a constraint's mask cannot be computed")
            constraint.mask.fill(0)
