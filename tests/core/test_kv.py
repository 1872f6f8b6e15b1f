"""KV slots: remove, copy, keep, length, save and restore, and that sharing changes no logit by a bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minerva.errors import EngineError
from tests.core.driving import PROMPT, Driver

OTHER = [1, *range(900, 960)]


def same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a, b)


def in_two_steps(driver: Driver, tokens: list[int], seq: int = 0) -> Any:
    """The logits of a fresh prefill whose last token is computed by itself, as after a hit."""
    driver.prefill(seq, tokens[:-1])
    return driver.prefill(seq, tokens, len(tokens) - 1)


def test_length_counts_positions(make: Callable[..., Driver]) -> None:
    driver = make()
    assert [driver.context.length(seq) for seq in range(4)] == [0, 0, 0, 0]
    driver.prefill(2, PROMPT)
    assert [driver.context.length(seq) for seq in range(4)] == [0, 0, len(PROMPT), 0]
    assert driver.context.remove(2, 10)
    assert driver.context.length(2) == 10
    driver.context.clear()
    assert driver.context.length(2) == 0


def test_after_a_cut_a_sequence_goes_on_as_if_the_rest_had_never_been(make: Callable[..., Driver]) -> None:
    fresh = make()
    fresh.prefill(0, PROMPT[:20])
    expected = fresh.prefill(0, PROMPT[:20] + OTHER[20:], 20)
    driver = make()
    driver.prefill(0, PROMPT[:20])
    driver.prefill(0, PROMPT, 20)
    assert driver.context.remove(0, 20)
    same(driver.prefill(0, PROMPT[:20] + OTHER[20:], 20), expected)


@pytest.mark.parametrize("holder", [3, 4, 100, 200, 255])
def test_a_hit_through_a_holder_gives_the_logits_of_a_fresh_prefill(make: Callable[..., Driver], holder: int) -> None:
    """The contract that the prefix cache stands on: ids from `n_slots` to 255 may hold cells (DESIGN.md §6)."""
    expected = in_two_steps(make(), PROMPT)
    driver = make()
    n = len(PROMPT) - 1
    driver.prefill(0, PROMPT)
    driver.context.copy(0, holder, 0, n)
    driver.context.remove(0)
    assert (driver.context.length(0), driver.context.length(holder)) == (0, n)
    driver.context.copy(holder, 1, 0, n)
    same(driver.prefill(1, PROMPT, n), expected)
    assert driver.context.length(holder) == n, "the holder keeps what it held"


def test_slots_that_share_a_prefix_do_not_see_each_other(make: Callable[..., Driver]) -> None:
    shared = PROMPT[:30]
    ends = {1: [*shared, 700, 701, 702], 2: [*shared, 800, 801, 802], 3: [*shared, 700, 801, 702]}
    expected = {}
    for seq, tokens in ends.items():
        fresh = make()
        fresh.prefill(0, shared)
        expected[seq] = fresh.prefill(0, tokens, 30)
    driver = make()
    driver.prefill(0, shared)
    for seq in ends:
        driver.context.copy(0, seq)
    for seq, tokens in ends.items():
        np.testing.assert_allclose(driver.prefill(seq, tokens, 30), expected[seq], atol=2e-3)


def test_copied_cells_are_shared_and_free_when_the_last_owner_goes(make: Callable[..., Driver]) -> None:
    driver = make(n_ctx=256)
    driver.prefill(0, [1, *range(300, 499)])  # 200 of 256 cells
    for holder in range(1, 256):
        driver.context.copy(0, holder)
    driver.prefill(1, [1, *range(300, 499), *range(500, 550)], 200)  # 50 more: no owner costs a cell
    for seq in range(255):
        driver.context.remove(seq)
    with pytest.raises(EngineError, match="no room"):
        driver.prefill(0, [1, *range(300, 400)])
    driver.context.remove(255)
    driver.prefill(0, [1, *range(300, 540)])


def test_keep_frees_everyone_else(make: Callable[..., Driver]) -> None:
    driver = make()
    for seq in range(4):
        driver.prefill(seq, PROMPT)
    driver.context.keep(2)
    assert [driver.context.length(seq) for seq in range(4)] == [0, 0, len(PROMPT), 0]


@pytest.mark.parametrize("unified", [True, False], ids=["unified", "split"])
def test_a_restored_sequence_goes_on_with_the_logits_it_had(make: Callable[..., Driver], unified: bool) -> None:
    expected = in_two_steps(make(kv_unified=unified), PROMPT)
    driver = make(kv_unified=unified)
    n = len(PROMPT) - 1
    driver.prefill(0, PROMPT[:-1])
    blob = driver.context.save(0)
    driver.context.remove(0)
    driver.prefill(1, OTHER[:5])
    assert driver.context.restore(0, blob)
    assert driver.context.length(0) == n
    np.testing.assert_allclose(driver.prefill(0, PROMPT, n), expected, atol=2e-3)
    elsewhere = make(kv_unified=unified)
    assert elsewhere.context.restore(2, blob)
    same(elsewhere.prefill(2, PROMPT, n), expected)


def test_a_restore_without_room_says_so_and_disturbs_nobody(make: Callable[..., Driver]) -> None:
    driver = make(n_ctx=256)
    driver.prefill(0, [1, *range(300, 400)])
    blob = driver.context.save(0)
    driver.context.clear()
    tokens = [1, *range(500, 700)]
    driver.prefill(1, tokens)
    assert not driver.context.restore(0, blob)
    assert (driver.context.length(0), driver.context.length(1)) == (0, len(tokens))
    fresh = make(n_ctx=256)
    fresh.prefill(1, tokens)
    same(driver.prefill(1, [*tokens, 5], len(tokens)), fresh.prefill(1, [*tokens, 5], len(tokens)))


@pytest.mark.parametrize("seq", [-1, 256, 10**6])
def test_an_id_that_no_sequence_can_have_is_refused(make: Callable[..., Driver], seq: int) -> None:
    context = make().context
    calls: list[Callable[[], object]] = [
        lambda: context.remove(seq),
        lambda: context.copy(0, seq),
        lambda: context.copy(seq, 0),
        lambda: context.keep(seq),
        lambda: context.length(seq),
        lambda: context.save(seq),
        lambda: context.restore(seq, b""),
    ]
    for call in calls:
        with pytest.raises(EngineError, match="no sequence"):
            call()


def test_a_split_cache_has_no_ids_beyond_its_slots_and_no_partial_copies(make: Callable[..., Driver]) -> None:
    driver = make(kv_unified=False)
    driver.prefill(0, PROMPT)
    with pytest.raises(EngineError, match="no sequence"):
        driver.context.copy(0, 4)
    with pytest.raises(EngineError, match="whole sequences"):
        driver.context.copy(0, 1, 0, 10)
    driver.context.copy(0, 1)
    assert driver.context.length(1) == len(PROMPT)


@pytest.mark.parametrize("arch", ["gemma3", "mamba", "lfm2"])
def test_memories_that_cannot_cut_anywhere_still_restore_exactly(load_model: Callable[..., Any], arch: str) -> None:
    model = load_model(arch=arch)
    expected = in_two_steps(Driver(model), PROMPT)
    driver = Driver(model)
    driver.prefill(0, PROMPT[:-1])
    blob = driver.context.save(0)
    driver.prefill(0, PROMPT + OTHER, len(PROMPT) - 1)
    driver.context.remove(0)
    assert driver.context.restore(0, blob)
    assert driver.context.length(0) == len(PROMPT) - 1
    np.testing.assert_allclose(driver.prefill(0, PROMPT, len(PROMPT) - 1), expected, atol=2e-3)


@pytest.mark.parametrize(("arch", "cuts"), [("llama", True), ("gemma3", True), ("mamba", False), ("lfm2", False)])
def test_remove_says_whether_the_memory_could_cut_there(load_model: Callable[..., Any], arch: str, cuts: bool) -> None:
    driver = Driver(load_model(arch=arch))
    driver.prefill(0, PROMPT)
    assert driver.context.remove(0, 10) is cuts
    assert driver.context.remove(0), "a whole sequence can always go"
    assert driver.context.length(0) == 0
