"""Sampling: what each parameter means, and for a seed the token that llama.cpp's own chain gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minerva._core import Sampler
from minerva.engine.params import SamplingParams
from minerva.errors import RequestError
from tests.core.chain import Chain, log_softmax
from tests.core.driving import PROMPT, Driver, token_of

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
"""Every sampler off: a draw from the whole vocabulary."""


class Rows:
    """Decodes one token behind a short prompt, over and over: a step costs little, its logits are known."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.vocab = driver.model.vocab
        driver.prefill(0, PROMPT[:-1])

    def logits(self, last: int = PROMPT[-1]) -> NDArray[np.float32]:
        self.driver.context.remove(0, len(PROMPT) - 1)
        return self.driver.prefill(0, [*PROMPT[:-1], last], len(PROMPT) - 1)

    def sample(self, sampler: Sampler, last: int = PROMPT[-1]) -> tuple[int, str, int]:
        self.driver.context.remove(0, len(PROMPT) - 1)
        return self.driver.sample(0, [*PROMPT[:-1], last], sampler)


@pytest.fixture(scope="module")
def rows(model: Any) -> Rows:
    return Rows(Driver(model))


CHAINS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "whole vocabulary": PLAIN,
    "cold": {**PLAIN, "temperature": 0.2},
    "hot": {**PLAIN, "temperature": 5.0, "top_k": 100},
    "top_k 1": {"top_k": 1},
    "top_k": {**PLAIN, "top_k": 20},
    "top_k past the direct path": {**PLAIN, "top_k": 2000},
    "top_k past the vocabulary": {**PLAIN, "top_k": 10**6},
    "top_p": {**PLAIN, "top_p": 0.5},
    "top_p of top_k": {**PLAIN, "top_k": 50, "top_p": 0.7},
    "min_p": {**PLAIN, "min_p": 0.2},
    "min_p of top_k": {**PLAIN, "top_k": 100, "min_p": 0.3},
    "typical": {**PLAIN, "typical_p": 0.3},
    "typical of top_k": {**PLAIN, "top_k": 60, "typical_p": 0.6},
    "everything": {"temperature": 0.7, "top_k": 80, "typical_p": 0.9, "top_p": 0.8, "min_p": 0.1},
    "top_p 0": {"top_p": 0.0},
    "typical 0": {"typical_p": 0.0},
    "min_p 1": {"min_p": 1.0},
    "penalties": {"repeat_penalty": 1.5, "frequency_penalty": 0.4, "presence_penalty": 0.3, "top_k": 30},
    "short memory": {"repeat_penalty": 3.0, "repeat_last_n": 3, "temperature": 0.3},
    "biases": {"logit_bias": {500: 6.0, 501: 5.5, 502: 5.0}, "min_p": 0.0, "top_p": 0.9},
}


@pytest.mark.parametrize("options", CHAINS.values(), ids=list(CHAINS))
def test_a_seed_gives_the_token_of_llama_cpps_chain(rows: Rows, options: dict[str, Any]) -> None:
    params = SamplingParams(**options)
    lasts = [PROMPT[-1], 700, 701]
    logits = {last: rows.logits(last) for last in lasts}
    for seed in range(12):
        sampler, chain = Sampler(rows.vocab, params, seed=seed), Chain(params, seed)
        for i in range(6):  # one sampler's draws, one after the other
            last = lasts[i % 3]
            assert rows.sample(sampler, last)[0] == chain.sample(logits[last]), f"seed {seed}, token {i}"


def test_temperature_0_takes_the_likeliest(rows: Rows) -> None:
    sampler = Sampler(rows.vocab, SamplingParams(temperature=0.0, top_k=3, top_p=0.1))
    for last in range(600, 620):
        assert rows.sample(sampler, last)[0] == rows.logits(last).argmax()


@pytest.mark.parametrize("temperature", [1e-3, 1e-8, 1e-38, 1e-300])
def test_a_temperature_close_to_0_is_close_to_greedy(rows: Rows, temperature: float) -> None:
    sampler = Sampler(rows.vocab, SamplingParams(**{**PLAIN, "temperature": temperature}), seed=1)
    assert rows.sample(sampler)[0] == rows.logits().argmax()


def test_draws_follow_the_probabilities(rows: Rows) -> None:
    logits = rows.logits()
    top = np.argsort(-logits)[:4]
    sampler = Sampler(rows.vocab, SamplingParams(**{**PLAIN, "top_k": 4}), seed=7)
    drawn = [rows.sample(sampler)[0] for _ in range(800)]
    p = np.exp(log_softmax(logits[top]))
    for token, expected in zip(top, p, strict=True):
        assert drawn.count(token) / 800 == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 800))


def test_one_seed_one_text_another_seed_another(make: Callable[..., Driver], model: Any) -> None:
    driver = make()

    def text(seed: int) -> list[int]:
        return driver.generate(PROMPT, Sampler(model.vocab, SamplingParams(temperature=1.0), seed=seed), 16)[0]

    assert text(1) == text(1)
    assert len({tuple(text(seed)) for seed in range(6)}) == 6


def test_a_greedy_text_under_penalties_is_that_of_their_formula(make: Callable[..., Driver], model: Any) -> None:
    params = SamplingParams(
        temperature=0.0, repeat_penalty=1.3, frequency_penalty=0.2, presence_penalty=0.1, repeat_last_n=16
    )
    driver = make()
    sampler, chain = Sampler(model.vocab, params), Chain(params, 0, PROMPT)
    sampler.accept_prompt(PROMPT[-16:])
    made = driver.generate(PROMPT, sampler, 48)[0]
    driver.context.clear()
    tokens = list(PROMPT)
    for token in made:
        logits = driver.prefill(0, tokens, driver.context.length(0))
        assert token == chain.sample(logits)
        tokens.append(token)


def test_penalties_keep_a_greedy_text_from_repeating_itself(make: Callable[..., Driver], model: Any) -> None:
    bias = dict.fromkeys(range(1000, 1040), 50.0)  # forty tokens to choose from
    free = SamplingParams(temperature=0.0, logit_bias=bias)
    fresh = SamplingParams(
        temperature=0.0, logit_bias=bias, presence_penalty=2.0, frequency_penalty=2.0, repeat_penalty=9.0
    )
    driver = make()
    assert len(set(driver.generate(PROMPT, Sampler(model.vocab, free), 40)[0])) < 30
    assert sorted(driver.generate(PROMPT, Sampler(model.vocab, fresh), 40)[0]) == list(range(1000, 1040))


@pytest.mark.parametrize("bias", [-100.0, -math.inf])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 5}, PLAIN], ids=["greedy", "top_k", "all"])
def test_a_banned_token_never_comes(rows: Rows, bias: float, options: dict[str, Any]) -> None:
    banned = [int(token) for token in np.argsort(-rows.logits())[:5]]
    params = SamplingParams(**options, logit_bias=dict.fromkeys(banned, bias))
    sampler = Sampler(rows.vocab, params, seed=3)
    assert not {rows.sample(sampler)[0] for _ in range(20)} & set(banned)


@pytest.mark.parametrize("bias", [100.0, 1e6])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 5}, PLAIN], ids=["greedy", "top_k", "all"])
def test_a_forced_token_always_comes(rows: Rows, bias: float, options: dict[str, Any]) -> None:
    sampler = Sampler(rows.vocab, SamplingParams(**options, logit_bias={1234: bias}), seed=3)
    assert [rows.sample(sampler)[0] for _ in range(5)] == [1234] * 5


def test_a_bias_for_a_token_that_does_not_exist_is_refused(rows: Rows) -> None:
    with pytest.raises(RequestError, match=f"{len(rows.vocab)}") as refused:
        Sampler(rows.vocab, SamplingParams(logit_bias={len(rows.vocab): 1.0}))
    assert refused.value.param == "logit_bias"


def test_a_prompt_token_that_does_not_exist_is_refused(rows: Rows) -> None:
    sampler = Sampler(rows.vocab, SamplingParams(repeat_penalty=2.0))
    for token in (-1, len(rows.vocab)):
        with pytest.raises(RequestError, match="token id"):
            sampler.accept_prompt([token])


def test_the_end_of_text_ends_the_sequence_and_is_not_shown(rows: Rows) -> None:
    sampler = Sampler(rows.vocab, SamplingParams(logit_bias={rows.vocab.eos: 100.0}))
    assert rows.sample(sampler) == (rows.vocab.eos, "", 1)
    assert sampler.stop_sequence is None


def test_with_ignore_eos_the_text_goes_on_however_likely_its_end_is(rows: Rows) -> None:
    params = SamplingParams(ignore_eos=True, logit_bias={rows.vocab.eos: 100.0})
    sampler = Sampler(rows.vocab, params, seed=1)
    for _ in range(10):
        token, _, ending = rows.sample(sampler)
        assert (token != rows.vocab.eos, ending) == (True, 0)


def test_a_stop_token_ends_the_sequence_and_is_not_shown(rows: Rows) -> None:
    letter = token_of(rows.driver.model, b"a")
    stop = token_of(rows.driver.model, b"b")
    params = SamplingParams(stop_token_ids=(stop,), logit_bias={letter: 100.0})
    assert rows.sample(Sampler(rows.vocab, params)) == (letter, "a", 0)
    params = SamplingParams(stop_token_ids=(stop,), logit_bias={stop: 100.0})
    assert rows.sample(Sampler(rows.vocab, params)) == (stop, "", 1)


def test_a_stop_string_ends_the_sequence_and_says_which(rows: Rows) -> None:
    letter = token_of(rows.driver.model, b"a")
    params = SamplingParams(stop=("zz", "aaa"), logit_bias={letter: 100.0})
    sampler = Sampler(rows.vocab, params)
    assert [rows.sample(sampler) for _ in range(3)] == [(letter, "", 0), (letter, "", 0), (letter, "", 2)]
    assert sampler.stop_sequence == "aaa"
    assert sampler.flush() == ""


def test_what_was_held_back_for_a_stop_string_is_given_at_the_end(rows: Rows) -> None:
    letter = token_of(rows.driver.model, b"a")
    sampler = Sampler(rows.vocab, SamplingParams(stop=("aaab",), logit_bias={letter: 100.0}))
    assert "".join(rows.sample(sampler)[1] for _ in range(3)) == ""
    assert sampler.flush() == "aaa"
    assert sampler.stop_sequence is None


def test_bytes_of_a_character_are_shown_when_it_is_whole(rows: Rows) -> None:
    shown = []
    bias = {token_of(rows.driver.model, bytes([byte])): 90.0 - i for i, byte in enumerate("東".encode())}
    params = SamplingParams(temperature=0.0, repeat_penalty=100.0, presence_penalty=2.0, logit_bias=bias)
    sampler = Sampler(rows.vocab, params)
    for _ in range(3):  # the likeliest that was not there yet
        shown.append(rows.sample(sampler)[1])
    assert shown == ["", "", "東"]


@pytest.mark.parametrize("shown", [False, True])
def test_a_control_token_has_text_only_where_it_is_asked_for(rows: Rows, shown: bool) -> None:
    params = SamplingParams(ignore_eos=False, logit_bias={1: 100.0})  # <s>: control, and no end of text
    sampler = Sampler(rows.vocab, params, shown_special=[1] if shown else [])
    assert rows.sample(sampler) == (1, "<s>" if shown else "", 0)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.0}, {"temperature": 3.0}, {"logit_bias": {77: 30.0}}, {"repeat_penalty": 5.0}],
    ids=["greedy", "hot", "biased", "penalised"],
)
def test_logprobs_are_those_of_the_raw_logits_whatever_is_sampled(rows: Rows, options: dict[str, Any]) -> None:
    expected = log_softmax(rows.logits())
    sampler = Sampler(rows.vocab, SamplingParams(top_logprobs=5, **options), seed=5)
    sampler.accept_prompt(PROMPT)
    token, _, _ = rows.sample(sampler)
    chosen, *top = sampler.logprobs()
    assert chosen[:2] == (token, rows.vocab.piece(token))
    assert [entry[0] for entry in top] == list(np.argsort(-expected, kind="stable")[:5])
    for id, piece, logprob in [chosen, *top]:
        assert logprob == pytest.approx(expected[id], abs=1e-4)
        assert piece == rows.vocab.piece(id)


def test_top_logprobs_0_gives_the_chosen_token_alone_and_none_gives_nothing(rows: Rows) -> None:
    sampler = Sampler(rows.vocab, SamplingParams(top_logprobs=0))
    rows.sample(sampler)
    assert len(sampler.logprobs()) == 1
    sampler = Sampler(rows.vocab, SamplingParams())
    rows.sample(sampler)
    assert sampler.logprobs() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -0.1), ("temperature", math.nan), ("top_p", 1.1), ("min_p", -1.0), ("top_k", -1),
     ("repeat_penalty", 0.0), ("frequency_penalty", 2.1), ("max_tokens", 0), ("top_logprobs", 21), ("stop", ("",)),
     ("stop", ("x",) * 65),
     ("logit_bias", {5: math.nan}), ("logit_bias", {5: math.inf}), ("logit_bias", {-1: 1.0}), ("repeat_last_n", -1)],
)  # fmt: skip
def test_an_absurd_value_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=field) as refused:
        SamplingParams(**{field: value})
    assert refused.value.param == field
