"""The engine's thread over the embedded model: what is asked at once is answered as it would be alone.

Every test ends with an idle engine whose slots and cells are all accounted for.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minerva.engine.budget import StepBudget
from minerva.engine.constraints import TokenConstraint
from minerva.engine.engine import Engine
from minerva.engine.loading import Loaded, load
from minerva.engine.messages import Constraint, TextPrompt, TokenPrompt
from minerva.engine.options import EngineOptions
from minerva.engine.output import Output
from minerva.engine.params import SamplingParams
from minerva.errors import DeadlineError, EngineError, MinervaError, OverloadedError, ShuttingDownError
from minerva.models.catalogue import EMBEDDED

WAIT_S = 60.0
STORY = "Once upon a time a small server on a small machine answered every question that it was asked. "
CLOSE = 0.05
"""Two tokens whose log-probabilities are this close may change places with the shape of a batch."""


class Asked:
    """One request, from outside: what it was given, and that it has ended."""

    def __init__(self, loaded: Loaded, prompt: Any, limits: dict[str, Any], sampling: SamplingParams) -> None:
        self.outputs: list[Output] = []
        self.times_ended = 0
        self.ended = threading.Event()
        self.begun = threading.Event()
        prepared = loaded.frontend.prepare(prompt, sampling)
        self.sequence = loaded.frontend.sequence(next(_ids), prepared, sampling, self._emit, **limits)
        loaded.engine.submit(self.sequence)

    def _emit(self, output: Output) -> None:
        self.outputs.append(output)
        self.begun.set()
        if output.finish or output.error:
            self.times_ended += 1
            self.ended.set()

    def wait(self) -> Asked:
        assert self.ended.wait(WAIT_S), "the request has not ended"
        assert self.times_ended == 1
        return self

    @property
    def error(self) -> MinervaError | None:
        return self.wait().outputs[-1].error

    @property
    def finish(self) -> str | None:
        return self.wait().outputs[-1].finish

    @property
    def text(self) -> str:
        assert self.error is None
        return "".join(output.text for output in self.outputs)

    @property
    def tokens(self) -> list[int]:
        assert self.error is None
        return self.sequence.tokens[self.sequence.prompt_len :]

    @property
    def margins(self) -> list[float]:
        """By token, how much likelier it was than the next likely one."""
        values = []
        for output in self.wait().outputs:
            if output.logprobs:
                _, (_, _, first), (_, _, second) = output.logprobs[:3]
                values.append(first - second)
        return values


_ids = itertools.count(1)


class Bench:
    """A loaded engine, and ways to ask it."""

    def __init__(self, **options: Any) -> None:
        chosen = {"ctx_size": 512, "kv_size": 2048, "parallel": 4, "threads": 1, "gpu_layers": 0, "itl_target_ms": 5e4}
        self.loaded = load(EngineOptions(model=str(EMBEDDED), check_integrity=True, **{**chosen, **options}))
        self.engine: Engine = self.loaded.engine

    def ask(
        self, prompt: str | list[int], *, constraint: Constraint | None = None, limits: Any = None, **sampling: Any
    ) -> Asked:
        wanted: Any = {"temperature": 0, "max_tokens": 16, "ignore_eos": True}
        make: Any = TextPrompt(text=prompt, constraint=constraint) if isinstance(prompt, str) else TokenPrompt(prompt)
        if isinstance(prompt, list):
            make = TokenPrompt(tokens=prompt, constraint=constraint)
        return Asked(self.loaded, make, limits or {}, SamplingParams(**{**wanted, **sampling}))

    def endless(self, prompt: str = "Hello", **more: Any) -> Asked:
        return self.ask(prompt, max_tokens=None, context_shift=True, **more)

    def wait_idle(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while self.engine.running or self.engine.waiting or self.engine._cancelled:
            assert time.monotonic() < deadline, "the engine has not become idle"
            time.sleep(0.002)

    def check_conserved(self) -> None:
        scheduler = self.engine.scheduler
        scheduler.check_integrity()
        assert sorted(scheduler.free_slots) == list(range(scheduler.n_slots))
        assert scheduler.cache.locked_cells == 0
        assert scheduler.used_cells == scheduler.cache.cells
        assert [self.loaded.context.length(slot) for slot in range(scheduler.n_slots)] == [0] * scheduler.n_slots
        assert not self.engine._live


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """`bench(option=…)`: a started engine."""
    made: list[Bench] = []

    def start(**options: Any) -> Bench:
        made.append(Bench(**options))
        made[-1].engine.start()
        return made[-1]

    yield start
    for each in made:
        if not each.engine._stopping:
            each.wait_idle()
            each.check_conserved()
        each.engine.stop()


class Watched:
    """Stands before a context; `before` and `after` are called around each step."""

    def __init__(self, engine: Engine) -> None:
        self._context = engine.context
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.steps = 0
        engine.context = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def step(self, *args: Any) -> Any:
        self.before()
        outputs = self._context.step(*args)
        self.steps += 1
        self.after()
        return outputs


class Gate:
    """Steps wait for `allow`; `arrived` tells that one does."""

    def __init__(self, watched: Watched) -> None:
        self._permits = threading.Semaphore(0)
        self._arrived = threading.Semaphore(0)
        watched.before = self._pass

    def _pass(self) -> None:
        self._arrived.release()
        assert self._permits.acquire(timeout=WAIT_S)

    def allow(self, steps: int) -> None:
        self._permits.release(steps)

    def wait_at_step(self) -> None:
        assert self._arrived.acquire(timeout=WAIT_S), "no step has come"

    def pass_steps(self, n: int) -> None:
        """Lets n steps through; the next one waits when this returns."""
        for _ in range(n):
            self.allow(1)
            self.wait_at_step()


def same(got: Asked, alone: Asked) -> None:
    """The same tokens; after two likely ones that were close, whatever follows."""
    pairs = zip(got.tokens, alone.tokens, strict=True)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if at is not None:
        margin = alone.margins[at]
        assert margin < CLOSE, f"token {at} differs, though it was likelier by {margin}"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_step_that_fails_fails_what_runs_and_the_next_request_is_served(
    bench: Callable[..., Bench], when: str
) -> None:
    b = bench()
    first = b.ask(STORY).text
    watched = Watched(b.engine)
    failing = threading.Event()

    def fail() -> None:
        if failing.is_set():
            failing.clear()
            raise RuntimeError("the device is on fire")

    setattr(watched, when, fail)
    running = [b.endless(STORY + str(i)) for i in range(3)]
    assert all(asked.begun.wait(WAIT_S) for asked in running)
    failing.set()
    for asked in running:
        assert isinstance(asked.error, EngineError)
        assert "on fire" in str(asked.error)
    again = b.ask(STORY)
    assert again.text == first
    assert b.ask(STORY + "0", max_tokens=1).tokens
    assert b.engine.counters.requests_failed == 3


def test_a_request_that_fails_by_itself_leaves_the_others_alone(bench: Callable[..., Bench]) -> None:
    b = bench()
    others = [b.ask(STORY + str(i), max_tokens=100) for i in range(3)]
    late = b.endless(limits={"deadline": time.monotonic() + 0.05})
    assert isinstance(late.error, DeadlineError)
    assert [len(asked.tokens) for asked in others] == [100] * 3


@pytest.mark.parametrize("broken", ["accept", "fill"])
def test_a_constraint_that_breaks_while_it_is_followed_fails_its_own_request_alone(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    b = bench()
    others = [b.ask(STORY + str(i), max_tokens=150) for i in range(2)]
    if broken == "accept":
        own = b.ask("Hello", constraint=Constraint("regex", "a{2000000000}"))
    else:
        fill = TokenConstraint.fill
        masks = itertools.count()

        def fails_once(self: TokenConstraint) -> None:
            if next(masks) == 3:
                raise RuntimeError("no mask")
            fill(self)

        monkeypatch.setattr(TokenConstraint, "fill", fails_once)
        own = b.ask("Hello", constraint=Constraint("regex", "[ab]{200}"), max_tokens=100)
    assert isinstance(own.error, EngineError)
    assert "constraint" in str(own.error)
    for other in others:
        assert len(other.tokens) == 150


@pytest.mark.parametrize("phase", ["waiting", "prefilling", "decoding"])
def test_a_cancelled_request_is_gone_after_the_present_step(bench: Callable[..., Bench], phase: str) -> None:
    b = bench(parallel=1, batch_size=16)
    gate = Gate(Watched(b.engine))
    others = [b.endless()] if phase == "waiting" else []
    cancelled = b.ask(STORY * 4, max_tokens=200)
    gate.wait_at_step()
    gate.pass_steps({"waiting": 2, "prefilling": 2, "decoding": 20}[phase])
    s = cancelled.sequence
    assert {"waiting": s.slot < 0, "prefilling": 0 < s.computed < s.prompt_len, "decoding": s.generated > 1}[phase]
    for asked in [cancelled, *others]:
        b.engine.cancel(asked.sequence.id)
        b.engine.cancel(asked.sequence.id)
    shown = len(cancelled.outputs)
    gate.allow(1)
    b.wait_idle()
    assert len(cancelled.outputs) <= shown + 1
    assert not cancelled.ended.is_set()
    assert b.engine.counters.requests_cancelled == 1 + len(others)
    gate.allow(1000)


def test_cancelling_what_has_ended_or_never_was_does_nothing(bench: Callable[..., Bench]) -> None:
    b = bench()
    done = b.ask("Hello").wait()
    b.engine.cancel(done.sequence.id)
    b.engine.cancel(999_999)
    b.wait_idle()
    assert b.engine.counters.requests_cancelled == 0
    assert b.ask("Hello").text == done.text


@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
def test_a_request_whose_time_is_up_is_told_so(bench: Callable[..., Bench], waits: bool) -> None:
    b = bench(parallel=1)
    other = b.endless() if waits else None
    late = b.endless(limits={"deadline": time.monotonic() + 0.05})
    assert isinstance(late.error, DeadlineError)
    assert late.times_ended == 1
    if other is not None:
        assert not other.ended.is_set()
        b.engine.cancel(other.sequence.id)


def test_a_full_queue_refuses_with_the_wait_and_serves_those_it_took(bench: Callable[..., Bench]) -> None:
    b = bench(parallel=1, queue_size=2)
    gate = Gate(Watched(b.engine))
    asked = [b.ask("Hello")]
    gate.wait_at_step()
    asked += [b.ask("Hello") for _ in range(5)]
    gate.allow(1000)
    errors = [each.error for each in asked]
    assert errors[:3] == [None] * 3
    for error in errors[3:]:
        assert isinstance(error, OverloadedError)
        assert error.retry_after is not None
        assert error.retry_after >= 1.0
    assert b.engine.counters.requests_refused == 3


def test_stopping_ends_everything_with_an_error_and_takes_nothing_new(bench: Callable[..., Bench]) -> None:
    b = bench(parallel=2)
    asked = [b.endless() for _ in range(4)]
    assert asked[0].begun.wait(WAIT_S)
    b.engine.stop()
    for each in asked:
        assert isinstance(each.error, ShuttingDownError)
    with pytest.raises(ShuttingDownError):
        b.ask("Hello")
    b.engine.stop()
    b.check_conserved()


def test_a_third_of_the_memory_gives_everyone_the_answer_that_they_have_alone(bench: Callable[..., Bench]) -> None:
    prompts = [f"{i}. {STORY * 4}" for i in range(10)]
    wanted: Any = {"max_tokens": 120, "top_logprobs": 2}
    roomy = bench(parallel=1, prefix_cache=False, speculate=False, kv_size=512)
    alone = [roomy.ask(prompt, **wanted).wait() for prompt in prompts]
    needed = sum(len(asked.sequence.tokens) for asked in alone)
    b = bench(parallel=10, kv_size=512)
    assert b.engine.scheduler.n_cells * 3 <= needed
    together = [b.ask(prompt, **wanted) for prompt in prompts]
    for got, one in zip(together, alone, strict=True):
        assert got.finish == "length"
        same(got, one)
    assert b.engine.counters.preemptions > 0
    assert b.engine.counters.requests_failed == 0


def test_a_prompt_that_many_ask_at_once_is_computed_once(bench: Callable[..., Bench]) -> None:
    b = bench(parallel=8, batch_size=64)
    asked = [b.ask(STORY * 6, max_tokens=20) for _ in range(8)]
    assert len({each.text for each in asked}) == 1
    n = asked[0].sequence.prompt_len
    assert n > 100
    assert b.engine.counters.prompt_tokens <= n + 2 * len(asked)
    assert b.engine.counters.cached_tokens >= 7 * (n - 2)


def test_a_prompt_seen_before_gives_the_text_of_the_first_time(bench: Callable[..., Bench]) -> None:
    b = bench()
    wanted: Any = {"max_tokens": 100, "top_logprobs": 2}
    first = b.ask(STORY * 4, **wanted).wait()
    for more in ("", "And then it slept."):
        hit = b.ask(STORY * 4 + more, **wanted).wait()
        assert hit.sequence.cached >= first.sequence.prompt_len - 4
        cold = bench(prefix_cache=False).ask(STORY * 4 + more, **wanted).wait()
        assert cold.sequence.cached == 0
        same(hit, cold)


def test_another_namespace_shares_nothing(bench: Callable[..., Bench]) -> None:
    b = bench()
    mine = b.ask(STORY * 4, limits={"namespace": "one"}).wait()
    theirs = b.ask(STORY * 4, limits={"namespace": "two"}).wait()
    again = b.ask(STORY * 4, limits={"namespace": "one"}).wait()
    assert (mine.sequence.cached, theirs.sequence.cached) == (0, 0)
    assert again.sequence.cached == again.sequence.prompt_len - 1
    assert mine.text == theirs.text == again.text


def test_a_prompt_that_had_to_make_room_comes_back_from_ram(bench: Callable[..., Bench]) -> None:
    b = bench(parallel=1, kv_size=512)
    wanted: Any = {"max_tokens": 40, "top_logprobs": 2}
    first = b.ask("First. " + STORY * 8, **wanted).wait()
    for i in range(4):
        b.ask(f"{i}th. " + STORY * 10, **wanted).wait()
    assert b.engine.counters.evicted_tokens > 0
    assert b.engine.scheduler.cache.peek(first.sequence) < 10
    before = b.engine.counters.prompt_tokens
    again = b.ask("First. " + STORY * 8, **wanted).wait()
    assert again.sequence.cached >= first.sequence.prompt_len - 2
    assert b.engine.counters.prompt_tokens - before <= 3
    same(again, first)


def test_without_ram_for_them_evicted_prompts_are_computed_again(bench: Callable[..., Bench]) -> None:
    b = bench(parallel=1, kv_size=512, cache_ram_mib=0)
    first = b.ask("First. " + STORY * 8, top_logprobs=2).wait()
    for i in range(4):
        b.ask(f"{i}th. " + STORY * 10).wait()
    again = b.ask("First. " + STORY * 8).wait()
    assert again.sequence.cached < 64
    same(again, first)


def test_a_constrained_answer_that_is_cancelled_leaves_the_next_one_held_to_its_own(
    bench: Callable[..., Bench],
) -> None:
    b = bench(parallel=2)
    letters = Constraint("regex", "[a-z]{400}")
    for _ in range(5):
        cancelled = b.ask("Hello", constraint=letters, max_tokens=None)
        assert cancelled.begun.wait(WAIT_S)
        b.engine.cancel(cancelled.sequence.id)
    held = b.ask("Hello", constraint=letters, max_tokens=12, ignore_eos=False).text
    assert held
    assert set(held) <= set("abcdefghijklmnopqrstuvwxyz")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    schema["additionalProperties"] = False
    free = b.ask("Hello", max_tokens=30)
    whole = b.ask("Hello", constraint=Constraint("json_schema", json.dumps(schema)), max_tokens=60, ignore_eos=False)
    if whole.finish == "stop":
        assert isinstance(json.loads(whole.text)["n"], int)
    assert len(free.tokens) == 30


def test_guessing_ahead_changes_no_greedy_text(bench: Callable[..., Bench]) -> None:
    prompt = "a b c d e f g h a b c d e f g h a b c d e f g h a b c d "
    guessing, plain = bench(parallel=1), bench(parallel=1, speculate=False)
    slow = plain.ask(prompt, max_tokens=200, top_logprobs=2).wait()
    fast = guessing.ask(prompt, max_tokens=200)
    same(fast, slow)
    assert guessing.engine.counters.drafted_tokens > 0
    assert plain.engine.counters.drafted_tokens == 0


def test_guesses_that_are_cancelled_or_fail_leave_no_cells_behind(bench: Callable[..., Bench]) -> None:
    b = bench(parallel=2)
    prompt = "x y z x y z x y z x y z "
    for _ in range(5):
        asked = b.endless(prompt)
        assert asked.begun.wait(WAIT_S)
        b.engine.cancel(asked.sequence.id)
    b.wait_idle()
    b.check_conserved()
    assert b.ask(prompt).finish == "length"


def test_guesses_make_no_answer_longer_than_its_context(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepBudget, "worth", lambda *args: 0.0)  # guess always
    guessing = bench(ctx_size=256, parallel=1)
    ends = [guessing.ask("x y z " * n, max_tokens=None).wait() for n in range(8, 16)]
    assert {len(asked.sequence.tokens) for asked in ends} == {256}


def test_an_answer_ends_with_its_context_unless_it_may_shift(bench: Callable[..., Bench]) -> None:
    b = bench(ctx_size=256, parallel=2, speculate=False)
    ends = b.ask("Hello", max_tokens=None)
    assert ends.finish == "length"
    assert len(ends.sequence.tokens) <= 256
    goes_on = b.ask("Hello", max_tokens=700, context_shift=True)
    assert goes_on.finish == "length"
    assert goes_on.sequence.generated == 700
    assert len(goes_on.sequence.tokens) <= 256
    shown = ends.text.rstrip("\ufffd")
    assert goes_on.text[: len(shown) - 8] == shown[:-8]


def test_a_crowd_that_comes_and_goes_is_answered_or_cancelled_and_leaves_nothing(bench: Callable[..., Bench]) -> None:
    b = bench(parallel=4, kv_size=512, queue_size=64)
    asked = [b.ask(f"{i % 5}. {STORY * (i % 4)}", max_tokens=10 + 7 * (i % 5)) for i in range(40)]
    gone = asked[::3]
    for each in gone:
        b.engine.cancel(each.sequence.id)
    for each in asked:
        if each not in gone:
            assert each.finish == "length"
    b.wait_idle()
    counters = b.engine.counters
    assert counters.requests_finished + counters.requests_cancelled == 40
    assert counters.requests_failed == 0
