"""Greedy output of one sequence is llama.cpp's own, token for token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minerva import LLM
from minerva._core import Batch, Context, Sampler, sanitize_utf8
from minerva.engine.params import SamplingParams
from tests.fidelity.prompts import LONG
from tests.fidelity.reference import harness_greedy

N = 256

MODELS: dict[str, dict[str, Any]] = {
    "llama-f16": {"arch": "llama", "qtype": "f16"},
    "llama-bf16": {"arch": "llama", "qtype": "bf16"},
    "llama-q8_0": {"arch": "llama", "qtype": "q8_0"},
    "llama-q4_0": {"arch": "llama", "qtype": "q4_0"},
    "llama-q5_1": {"arch": "llama", "qtype": "q5_1"},
    "llama-q4_k": {"arch": "llama", "qtype": "q4_k", "shape": "wide"},
    "llama-q5_k": {"arch": "llama", "qtype": "q5_k", "shape": "wide"},
    "llama-q6_k": {"arch": "llama", "qtype": "q6_k", "shape": "wide"},
    "qwen2-q8_0": {"arch": "qwen2", "qtype": "q8_0", "vocab": "qwen2"},
    "qwen3-q4_0": {"arch": "qwen3", "qtype": "q4_0"},
    "qwen3-q4_k": {"arch": "qwen3", "qtype": "q4_k", "shape": "wide"},
    "gemma2-f16": {"arch": "gemma2", "qtype": "f16"},  # every second layer sees a window of 64 tokens
    "gemma3-q8_0": {"arch": "gemma3", "qtype": "q8_0"},
    "phi3-q4_0": {"arch": "phi3", "qtype": "q4_0", "vocab": "phi-3"},
    "mamba-f16": {"arch": "mamba", "qtype": "f16"},  # recurrent
    "lfm2-q8_0": {"arch": "lfm2", "qtype": "q8_0"},  # hybrid
}


class Case:
    """A model, a prompt longer than any window, and what llama.cpp makes of it."""

    def __init__(self, path: Path, model: Any) -> None:
        self.path = path
        self.model = model
        self.prompt = model.vocab.tokenize(LONG, add_special=True)
        (self.expected,) = harness_greedy(path, [self.prompt], N)


@pytest.fixture(scope="module", params=list(MODELS))
def case(request: pytest.FixtureRequest, model_file: Callable[..., Path], load_model: Callable[..., Any]) -> Case:
    options = MODELS[request.param]
    return Case(model_file(**options), load_model(**options))


def core_greedy(model: Any, prompt: list[int], n: int, **options: Any) -> list[int]:
    context = Context(model, **{"n_ctx": 1024, "n_batch": 512} | options)
    batch = Batch(512)
    sampler = Sampler(model.vocab, SamplingParams(temperature=0.0, ignore_eos=True))
    tokens = list(prompt)
    while len(tokens) < len(prompt) + n:
        batch.clear()
        batch.add(0, tokens, context.length(0), len(tokens), sampler)
        tokens += context.step(batch)[0][0]
    return tokens[len(prompt) :]


def test_the_reference_is_worth_comparing_with(case: Case) -> None:
    assert len(case.prompt) > 100
    assert len(case.expected) == N
    assert len(set(case.expected)) > N // 8, "the model repeats itself: a wrong cell would not show"
    assert not any(case.model.vocab.is_eog(token) for token in case.expected)


def test_the_step_loop_gives_llama_cpps_own_tokens(case: Case) -> None:
    assert core_greedy(case.model, case.prompt, N) == case.expected


def test_a_context_with_room_for_others_gives_the_same_tokens(case: Case) -> None:
    assert core_greedy(case.model, case.prompt, N, n_slots=8, kv_unified=True) == case.expected


def test_llm_generate_gives_llama_cpps_own_tokens_and_text(case: Case) -> None:
    with LLM(case.path, ctx_size=1024, parallel=2, threads=1, gpu_layers=0) as llm:
        done = llm.generate(case.prompt, max_tokens=N, temperature=0, ignore_eos=True, top_logprobs=0)
    assert [logprob.token_id for logprob in done.logprobs] == case.expected
    raw = b"".join(case.model.vocab.piece(token, special=False) for token in case.expected)
    assert done.text == sanitize_utf8(raw)
    assert done.finish_reason == "length"
    assert (done.prompt_tokens, done.completion_tokens) == (len(case.prompt), N)


def test_llm_generate_with_everything_on_gives_llama_cpps_own_text(case: Case) -> None:
    """Without log-probabilities the engine may guess ahead, and the second time it may know the prompt."""
    raw = b"".join(case.model.vocab.piece(token, special=False) for token in case.expected)
    with LLM(case.path, ctx_size=1024, parallel=2, threads=1, gpu_layers=0) as llm:
        fresh, known = (llm.generate(case.prompt, max_tokens=N, temperature=0, ignore_eos=True) for _ in range(2))
    assert fresh.text == sanitize_utf8(raw)
    assert known.text[:20] == fresh.text[:20], "from the cache: computed in other shapes, so close calls may differ"


@pytest.fixture(scope="module")
def plain(model_file: Callable[..., Path]) -> Path:
    return model_file(arch="llama", qtype="f16")


@pytest.mark.parametrize("options", [{"kv_unified": False}, {"mmap": False}, {"parallel": 16}], ids=str)
def test_an_engine_option_that_changes_no_arithmetic_changes_no_token(plain: Path, options: dict[str, Any]) -> None:
    with LLM(plain, ctx_size=512, parallel=1, threads=1, gpu_layers=0) as llm:
        prompt = llm.tokenize("Once upon a time", add_special=True)
    (expected,) = harness_greedy(plain, [prompt], 64)
    with LLM(plain, **{"ctx_size": 512, "parallel": 1, "threads": 1, "gpu_layers": 0} | options) as llm:
        done = llm.generate(prompt, max_tokens=64, temperature=0, ignore_eos=True, top_logprobs=0)
    assert [logprob.token_id for logprob in done.logprobs] == expected
