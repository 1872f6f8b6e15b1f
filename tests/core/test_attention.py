"""A unified cache: cells of other sequences change no bit of a sequence's logits, wherever the kernel skips them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.core.driving import Driver

MINE = [1, *range(300, 400)]
GAP = 64
IDLE = 2000


def logits(model: Any, *, idle: bool, decode: int = 8, chunk: int = 40, **options: Any) -> list[Any]:
    """A prompt, a chunk behind it and a few tokens, always in the same cells; others' cells come after them, or not."""
    driver = Driver(model, n_ctx=4096, n_slots=4, n_batch=512, **options)
    seen = [driver.prefill(0, MINE)]
    driver.prefill(1, [1, *range(500, 500 + GAP - 1)])  # keeps the cells that sequence 0 will go on in
    if idle:
        for start in range(0, IDLE, 500):
            tokens = [1, *range(1000, 1000 + start + 499)]
            driver.prefill(2, tokens, start)
        assert driver.context.length(2) == IDLE
    driver.context.remove(1)
    tokens = [*MINE, *range(700, 700 + chunk)]
    seen.append(driver.prefill(0, tokens, len(MINE)))
    for i in range(decode):
        tokens.append(900 + i)
        seen.append(driver.prefill(0, tokens, len(tokens) - 1))
    return seen


KINDS: dict[str, dict[str, Any]] = {
    "llama": {"arch": "llama"},
    "gemma3, a sliding window": {"arch": "gemma3"},
    "qwen3, quantised": {"arch": "qwen3", "qtype": "q4_0"},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@pytest.mark.parametrize("options", [{}, {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}], ids=["f16", "q8_0"])
def test_2000_idle_cells_of_others_change_no_bit(
    load_model: Callable[..., Any], kind: dict[str, Any], options: dict[str, Any]
) -> None:
    model = load_model(**kind)
    for lone, crowded in zip(logits(model, idle=False, **options), logits(model, idle=True, **options), strict=True):
        np.testing.assert_array_equal(lone, crowded)


def test_without_flash_attention_they_change_nothing_that_matters(model: Any) -> None:
    for lone, crowded in zip(
        logits(model, idle=False, flash_attn="off"), logits(model, idle=True, flash_attn="off"), strict=True
    ):
        np.testing.assert_allclose(lone, crowded, atol=5e-3)


def test_with_two_threads_they_change_nothing_that_matters(model: Any) -> None:
    threads = {"threads": 2, "threads_batch": 2}
    for lone, crowded in zip(logits(model, idle=False, **threads), logits(model, idle=True, **threads), strict=True):
        np.testing.assert_allclose(lone, crowded, atol=5e-3)


def test_a_lone_sequence_has_the_same_bits_in_a_unified_and_a_split_cache(model: Any) -> None:
    unified, split = (Driver(model, n_ctx=4096, n_slots=4, kv_unified=kv) for kv in (True, False))
    for driver in (unified, split):
        driver.prefill(0, MINE)
    for n in range(len(MINE), len(MINE) + 8):
        tokens = [*MINE, *range(700, 720)][: n + 1]
        np.testing.assert_array_equal(unified.prefill(0, tokens, n), split.prefill(0, tokens, n))
