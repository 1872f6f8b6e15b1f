from __future__ import annotations

import pytest

from minerva.engine.options import EngineOptions
from minerva.engine.sizing import (
    CELL_PADDING,
    GPU_MARGIN,
    SMALL_MODEL,
    choose_gpu_layers,
    choose_sizes,
    choose_threads,
    free_memory,
    physical_cores,
)
from minerva.errors import ModelLoadError

MIB = 1 << 20


def sizes(memory: int = 8192 * MIB, trained: int = 32768, per_token: int = 100_000, **options: object):
    made = EngineOptions(model="m.gguf", **options)  # type: ignore[arg-type]
    return choose_sizes(made, n_ctx_train=trained, kv_bytes_per_token=per_token, memory=memory)


def test_a_model_gets_the_context_it_was_trained_with_where_that_fits():
    assert sizes().n_ctx == 32768
    assert sizes().notes == []


def test_less_memory_gives_a_smaller_context_and_says_so():
    small = sizes(memory=1024 * MIB)
    assert small.n_ctx < 32768
    assert small.n_cells * 100_000 <= 1024 * MIB
    assert "32768" in small.notes[0]


def test_a_short_context_still_leaves_cells_for_several_requests():
    assert sizes(trained=2048).n_cells > 2048


def test_a_context_that_was_asked_for_is_given_or_refused_with_what_fits():
    assert sizes(ctx_size=5000).n_ctx == 5000
    with pytest.raises(ModelLoadError, match=r"--ctx-size \d+ or less"):
        sizes(ctx_size=10**6)


def test_a_context_past_the_training_is_given_with_a_warning():
    assert "4096" in sizes(trained=4096, ctx_size=8192).notes[0]


def test_split_caches_share_what_was_asked_for():
    split = sizes(ctx_size=1024, parallel=4, kv_unified=False)
    assert (split.n_cells, split.n_ctx) == (4096, 1024)


def test_cells_come_in_whole_pages():
    assert sizes(ctx_size=1000).n_cells % CELL_PADDING == 0


@pytest.mark.parametrize(
    ("free", "wanted", "layers"),
    [
        (GPU_MARGIN, None, 0),
        (GPU_MARGIN + 1000 * MIB, None, 33),
        (GPU_MARGIN + 330 * MIB, None, 11),
        (0, 5, 5),
        (0, 9999, 33),
        (1 << 40, 0, 0),
    ],
)
def test_as_many_layers_go_to_the_gpu_as_fit_or_were_asked_for(free: int, wanted: int | None, layers: int):
    assert choose_gpu_layers(n_layers=32, model_bytes=990 * MIB, gpu_free=free, wanted=wanted) == layers


def test_a_tiny_model_computes_on_one_thread():
    assert choose_threads(SMALL_MODEL - 1) == 1
    assert choose_threads(SMALL_MODEL) == physical_cores() >= 1


def test_free_memory_is_some_of_the_machines():
    assert 0 < free_memory() < 1 << 50
