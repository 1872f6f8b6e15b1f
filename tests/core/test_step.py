"""`Context.step`: what it refuses, what is left after a refusal, and that it runs without the GIL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minerva._core import Batch, Grammar, Model, Sampler
from minerva.engine.params import SamplingParams
from minerva.errors import EngineError, InvalidModelError
from tests.core.driving import GREEDY, PROMPT, Driver


def still_works(driver: Driver) -> None:
    driver.context.clear()
    fresh = Driver(driver.model, n_ctx=driver.context.n_ctx, n_batch=driver.batch.capacity)
    assert driver.greedy(PROMPT, 4) == fresh.greedy(PROMPT, 4)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 0), (2, 1), (3, 3), (0, 4), (5, 6)])
def test_a_range_outside_the_tokens_is_refused(start: int, stop: int) -> None:
    batch = Batch(8)
    with pytest.raises(EngineError, match="of a sequence of 3"):
        batch.add(0, [1, 2, 3], start, stop)
    assert len(batch) == 0


def test_a_full_batch_takes_no_more_and_keeps_what_it_has() -> None:
    batch = Batch(8)
    batch.add(0, PROMPT, 0, 6)
    with pytest.raises(EngineError, match="full at 8"):
        batch.add(1, PROMPT, 0, 3)
    assert len(batch) == 6
    batch.add(1, PROMPT, 0, 2)
    assert (len(batch), batch.capacity) == (8, 8)
    batch.clear()
    assert len(batch) == 0


def test_an_empty_batch_gives_nothing(make: Callable[..., Driver]) -> None:
    assert make().context.step(Batch(8)) == []


def test_a_batch_larger_than_the_context_was_made_for_is_an_error_and_not_the_end(make: Callable[..., Driver]) -> None:
    driver = make(n_batch=64)
    batch = Batch(128)
    batch.add(0, list(range(1, 66)), 0, 65)
    with pytest.raises(EngineError, match="65 tokens"):
        driver.context.step(batch)
    batch.clear()
    for i in range(5):  # four slots, so four rows of logits
        batch.add(0, PROMPT, i, i + 1, logits=True)
    with pytest.raises(EngineError, match="5 outputs"):
        driver.context.step(batch)
    still_works(driver)


@pytest.mark.parametrize(
    ("seq", "tokens", "start"),
    [(4, [1, 2, 3], 0), (-1, [1, 2, 3], 0), (0, [1, 10**6, 3], 0), (0, [1, -5, 3], 0)],
    ids=["no such slot", "negative slot", "no such token", "negative token"],
)
def test_what_llama_cpp_cannot_decode_is_an_error_that_says_why(
    make: Callable[..., Driver], seq: int, tokens: list[int], start: int
) -> None:
    driver = make()
    driver.batch.add(seq, tokens, start, len(tokens), logits=True)
    with pytest.raises(EngineError, match=r"refused the batch .*: .*invalid"):
        driver.context.step(driver.batch)
    still_works(driver)


def test_a_position_computed_twice_is_an_error(make: Callable[..., Driver]) -> None:
    driver = make()
    driver.prefill(0, PROMPT)
    with pytest.raises(EngineError, match="consecutive"):
        driver.prefill(0, PROMPT)
    assert driver.context.length(0) == len(PROMPT)
    still_works(driver)


def test_without_room_in_the_cache_nobody_loses_a_cell(make: Callable[..., Driver]) -> None:
    driver, fresh = make(n_ctx=256), make(n_ctx=256)
    tokens = [1, *range(300, 540)]
    for d in (driver, fresh):
        d.prefill(0, tokens)
    with pytest.raises(EngineError, match="no room"):
        driver.prefill(1, PROMPT)
    assert (driver.context.length(0), driver.context.length(1)) == (len(tokens), 0)
    more = [*tokens, 7]
    np.testing.assert_array_equal(driver.prefill(0, more, len(tokens)), fresh.prefill(0, more, len(tokens)))
    driver.context.remove(0)
    driver.prefill(1, PROMPT)


def test_a_row_that_asked_for_no_logits_has_none(make: Callable[..., Driver]) -> None:
    driver = make()
    driver.prefill(0, PROMPT)
    for row in (0, len(PROMPT), 10**6):
        with pytest.raises(EngineError, match="no logits"):
            driver.context.logits(row)
    assert driver.context.logits(len(PROMPT) - 1).shape == (len(driver.model.vocab),)


def test_logits_outlive_the_step_they_came_from(make: Callable[..., Driver]) -> None:
    driver = make()
    kept = driver.prefill(0, PROMPT)
    before = kept.copy()
    driver.prefill(1, [5, 6, 7])
    np.testing.assert_array_equal(kept, before)


def test_outputs_come_in_the_order_of_the_samplers(make: Callable[..., Driver]) -> None:
    driver = make()
    samplers = [Sampler(driver.model.vocab, SamplingParams(logit_bias={500 + i: 100.0})) for i in range(3)]
    for seq, sampler in ((2, samplers[0]), (0, samplers[1]), (3, samplers[2])):
        driver.batch.add(seq, PROMPT, 0, len(PROMPT), sampler)
        driver.batch.add(1, PROMPT, seq, seq + 1) if seq == 0 else None
    assert [tokens for tokens, _, _ in driver.context.step(driver.batch)] == [[500], [501], [502]]


def test_a_sampler_that_finds_no_token_says_why_and_the_others_get_theirs(make: Callable[..., Driver]) -> None:
    driver = make()
    vocab = driver.model.vocab
    only_a = [token for token in range(len(vocab)) if vocab.piece(token).lstrip() in (b"a",)]
    stuck = Sampler(
        vocab, SamplingParams(logit_bias=dict.fromkeys(only_a, float("-inf"))), grammar=Grammar('root ::= "a"')
    )
    driver.batch.add(0, PROMPT, 0, len(PROMPT), stuck)
    driver.batch.add(1, PROMPT, 0, len(PROMPT), Sampler(vocab, GREEDY))
    (first, second) = driver.context.step(driver.batch)
    assert first == ([], "", -1)
    assert "grammar" in stuck.error
    assert second[2] == 0
    still_works(driver)


def test_other_threads_run_during_a_step(load_model: Callable[..., Any]) -> None:
    driver = Driver(load_model(shape="wide", qtype="f16"), n_ctx=4096, n_batch=4096)
    took = []

    def step() -> None:
        start = time.perf_counter()
        driver.prefill(0, [1, *range(300, 4000)])
        took.append(time.perf_counter() - start)

    thread = threading.Thread(target=step)
    ticks = 0
    thread.start()
    while thread.is_alive():
        time.sleep(0.002)
        ticks += 1
    assert took[0] > 0.05, "too short a step to tell"
    assert ticks > 5


def test_a_context_keeps_its_model_alive(model_file: Callable[..., Any]) -> None:
    driver = Driver(Model(str(model_file())))
    expected = driver.greedy(PROMPT, 4)
    context = driver.context
    del driver.model
    assert context.model.n_layer == 2
    assert Driver(context.model).greedy(PROMPT, 4) == expected


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 100, b"GGUF\x03\0\0\0" + b"\xff" * 64])
def test_a_file_that_is_no_model_is_an_error_that_names_it(tmp_path: Any, content: bytes) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=r"broken\.gguf"):
        Model(str(path))


def test_a_truncated_model_is_an_error(model_file: Callable[..., Any], tmp_path: Any) -> None:
    raw = model_file().read_bytes()
    path = tmp_path / "half.gguf"
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InvalidModelError, match="half"):
        Model(str(path))


def test_what_the_progress_callback_raises_ends_the_load(model_file: Callable[..., Any]) -> None:
    seen: list[float] = []
    Model(str(model_file()), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    def stop(fraction: float) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        Model(str(model_file()), progress=stop)
