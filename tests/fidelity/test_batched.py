"""Sixteen sequences in one batch: each gets the logits, and where the margin allows the text, that it gets alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minerva import LLM
from minerva._core import Batch, Context
from tests.fidelity.prompts import LONG, SENTENCES
from tests.fidelity.reference import harness_logits

N = 32
TEXTS = [*SENTENCES[:14], LONG, LONG[: len(LONG) // 2]]

FLOAT, QUANTISED = 0.01, 0.07
"""Root mean square of a difference, in standard deviations of the logits; unrelated logits are 1.4 apart. Kernels for
one row and for many add in another order; with quantised weights the activations are rounded too, to 1/127 of a block's
largest, and the smallest difference before that may become one whole step."""

MODELS: dict[str, tuple[float, dict[str, Any]]] = {
    "llama-f16": (FLOAT, {"arch": "llama", "qtype": "f16"}),
    "llama-q4_k": (QUANTISED, {"arch": "llama", "qtype": "q4_k", "shape": "wide"}),
    "qwen3-q4_0": (QUANTISED, {"arch": "qwen3", "qtype": "q4_0"}),
    "gemma3-q8_0": (QUANTISED, {"arch": "gemma3", "qtype": "q8_0"}),
    "mamba-f16": (FLOAT, {"arch": "mamba", "qtype": "f16"}),
    "lfm2-q8_0": (QUANTISED, {"arch": "lfm2", "qtype": "q8_0"}),
}


@dataclass
class Alone:
    """What each prompt gives without company: its greedy tokens, and the logits before each of them."""

    path: Path
    model: Any
    tolerance: float
    prompts: list[list[int]]
    tokens: list[list[int]]
    logits: list[list[NDArray[np.float32]]]


def step(context: Any, batch: Any, seqs: dict[int, list[int]]) -> dict[int, NDArray[np.float32]]:
    """Computes what every sequence lacks in one batch; the logits after its last token."""
    batch.clear()
    rows = {}
    for seq, tokens in seqs.items():
        batch.add(seq, tokens, context.length(seq), len(tokens), logits=True)
        rows[seq] = len(batch) - 1
    context.step(batch)
    return {seq: context.logits(row) for seq, row in rows.items()}


@pytest.fixture(scope="module", params=list(MODELS))
def alone(request: pytest.FixtureRequest, model_file: Callable[..., Path], load_model: Callable[..., Any]) -> Alone:
    tolerance, options = MODELS[request.param]
    model = load_model(**options)
    prompts = [model.vocab.tokenize(text, add_special=True) for text in TEXTS]
    found = Alone(model_file(**options), model, tolerance, prompts, [], [])
    context, batch = Context(model, n_ctx=2048, n_slots=1, n_batch=512), Batch(512)
    for prompt in prompts:
        context.clear()
        tokens, logits = list(prompt), []
        for _ in range(N):
            logits.append(step(context, batch, {0: tokens})[0])
            tokens.append(int(logits[-1].argmax()))
        found.tokens.append(tokens[len(prompt) :])
        found.logits.append(logits)
    return found


def difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)) / b.std())


@pytest.mark.parametrize("unified", [True, False], ids=["unified", "split"])
def test_logits_in_a_batch_of_16_agree_with_those_alone(alone: Alone, unified: bool) -> None:
    n_ctx = 2048 if unified else 16 * 512
    context, batch = Context(alone.model, n_ctx=n_ctx, n_slots=16, n_batch=1024, kv_unified=unified), Batch(1024)
    sequences = {i: list(prompt) for i, prompt in enumerate(alone.prompts)}
    for i in range(N):
        for seq, logits in step(context, batch, sequences).items():
            assert difference(logits, alone.logits[seq][i]) < alone.tolerance, f"sequence {seq}, token {i}"
            sequences[seq].append(alone.tokens[seq][i])


def test_logits_of_a_prompt_in_chunks_beside_decodes_agree_with_those_alone(alone: Alone) -> None:
    context, batch = Context(alone.model, n_ctx=2048, n_slots=16, n_batch=256), Batch(256)
    others = {i: list(alone.prompts[i]) for i in range(4)}
    step(context, batch, others)
    for i in others:
        others[i].append(alone.tokens[i][0])
    long = alone.prompts[14]
    for stop in [*range(7, len(long), 7), len(long)]:
        seen = step(context, batch, others | {14: long[:stop]})
        for i in others:
            others[i].append(int(seen[i].argmax()))
    assert difference(seen[14], alone.logits[14][0]) < alone.tolerance


def test_logits_alone_are_the_harness_own(alone: Alone, tmp_path: Path) -> None:
    rows = harness_logits(alone.path, alone.prompts, tmp_path / "logits")
    for row, logits in zip(rows, alone.logits, strict=True):
        np.testing.assert_array_equal(row, logits[0])


@pytest.mark.parametrize("unified", [True, False], ids=["unified", "split"])
def test_what_others_say_never_reaches_a_sequence(alone: Alone, unified: bool) -> None:
    """Bit for bit: the same shapes in every batch, and other words in every other sequence."""

    def run(shift: int) -> list[NDArray[np.float32]]:
        n_ctx = 1024 if unified else 4 * 512
        context, batch = Context(alone.model, n_ctx=n_ctx, n_slots=4, n_batch=512, kv_unified=unified), Batch(512)
        mine = list(alone.prompts[14])
        others = {seq: [1, *range(300 + shift, 300 + shift + 50 * seq)] for seq in (1, 3)}
        seen = []
        for i in range(8):
            seen.append(step(context, batch, {1: others[1], 2: mine, 3: others[3]})[2])
            mine.append(alone.tokens[14][i])
            others = {seq: [*tokens, 400 + shift + i] for seq, tokens in others.items()}
        return seen

    for one, other in zip(run(0), run(1000), strict=True):
        np.testing.assert_array_equal(one, other)


def margin(logits: NDArray[np.float32]) -> float:
    """Between the two likeliest tokens, in standard deviations."""
    second, first = np.partition(logits, -2)[-2:]
    return float((first - second) / logits.std())


def test_sixteen_prompts_in_one_call_each_give_the_text_they_give_alone(alone: Alone) -> None:
    options = {"max_tokens": N, "temperature": 0, "ignore_eos": True, "top_logprobs": 0}
    with LLM(alone.path, ctx_size=512, kv_size=4096, parallel=16, threads=1, gpu_layers=0, check_integrity=True) as llm:
        for _ in range(2):  # the second time a prefix cache may know them
            agreed = 0
            for i, answer in enumerate(llm.generate(TEXTS, **options)):
                tokens = [logprob.token_id for logprob in answer.logprobs]
                assert len(tokens) == N
                first = next((k for k in range(N) if tokens[k] != alone.tokens[i][k]), N)
                agreed += first
                if first < N:
                    assert margin(alone.logits[i][first]) < 10 * alone.tolerance, f"prompt {i}, token {first}"
            assert agreed > 16 * N * (0.95 if alone.tolerance == FLOAT else 0.5)
